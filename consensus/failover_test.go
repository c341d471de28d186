package consensus

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// failover lets leaders die and returns how long it took each time until a
// command was acked again. Where streams break the others see that at once, as
// they do when a process ends orderly or its kernel says so; else the leader
// just falls silent, as over QUIC when a process is killed.
func failover(t *testing.T, trials int, oneWay, heartbeat time.Duration, breaks bool) (took []time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(7, 7))
		var dead atomic.Value
		dead.Store("")
		c := newCluster(t, nil, "a", "b", "c")
		c.config = func(cfg *Config) {
			from := cfg.Node
			cfg.Dial = func(_ context.Context, to string, snapshot bool) (Stream, error) {
				s, err := c.dial(from, to, snapshot)
				if err != nil {
					return nil, err
				}
				return dying{late(s, oneWay), func() bool { d := dead.Load(); return d == from || d == to }}, nil
			}
		}
		g := one
		g.Heartbeat = heartbeat
		c.startAll(g)
		defer c.stopAll()
		for trial := range trials {
			l := c.leader(1)
			time.Sleep(2*heartbeat + time.Duration(rng.Int64N(int64(heartbeat))))
			c.mustPropose(l, 1, 1, fmt.Sprintf("m%d/", trial))
			time.Sleep(time.Duration(rng.Int64N(int64(heartbeat))))
			start := time.Now()
			if breaks {
				c.isolate(l, true)
			} else {
				dead.Store(l)
			}
			for acked := false; !acked; time.Sleep(time.Millisecond) {
				for _, name := range c.names {
					if g := c.host(name).group(1); name != l && g.status().State == "leader" && !acked {
						_, err := c.propose(name, 1, fmt.Sprintf("n%d", trial))
						acked = err == nil
					}
				}
			}
			took = append(took, time.Since(start))
			c.isolate(l, true) // its streams were given up long ago
			dead.Store("")
			c.isolate(l, false)
			eventually(t, "the old leader follows", func() bool { return c.host(l).group(1).status().State == "follower" })
			time.Sleep(3 * heartbeat)
		}
	})
	slices.Sort(took)
	return took
}

// dying drops what is written once a node at one of its ends is dead.
type dying struct {
	Stream
	dead func() bool
}

func (d dying) Write(b []byte) (int, error) {
	if d.dead() {
		return len(b), nil
	}
	return d.Stream.Write(b)
}

// TestFailover measures the protocol's part, in virtual time without disks.
func TestFailover(t *testing.T) {
	trials := 12
	if os.Getenv("STARLING_LONG") != "" {
		trials = 50
	}
	for _, c := range []struct {
		name              string
		oneWay, heartbeat time.Duration
		breaks            bool
		median            time.Duration
	}{
		{"in a region, silent", 500 * time.Microsecond, 500 * time.Millisecond, false, 600 * time.Millisecond},
		{"in a region, streams break", 500 * time.Microsecond, 500 * time.Millisecond, true, 400 * time.Millisecond},
		{"regions 75 ms apart, silent", 75 * time.Millisecond, 1500 * time.Millisecond, false, 2500 * time.Millisecond},
		{"regions 75 ms apart, streams break", 75 * time.Millisecond, 1500 * time.Millisecond, true, 1800 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			took := failover(t, trials, c.oneWay, c.heartbeat, c.breaks)
			median := took[len(took)/2]
			t.Logf("%d deaths: median %v, p99 %v", trials, median, took[len(took)*99/100])
			if median > c.median {
				t.Errorf("half of the deaths cost more than %v", c.median)
			}
		})
	}
}

// lossy delivers in order, and what is lost again after a while, the longer the
// more often it was lost: as a stream over a path that loses packets does. Streams
// are QUIC's, so a lost packet is never a lost message, and reaches Raft as a delay
// of all that is behind it. TestNobodyIsElectedOverLossyPaths of the module's root
// loses packets of real QUIC instead; this model costs a tenth of that.
func lossy(s Stream, oneWay time.Duration, loss float64, rng *rand.Rand) Stream {
	l := late(s, oneWay).(*lateStream)
	l.extra = func() (more time.Duration) {
		for again := 3*oneWay + 25*time.Millisecond; rng.Float64() < loss; again *= 2 {
			more += again
		}
		return more
	}
	return l
}

// TestNoFalseElection lets nodes chat a little for long over paths that lose 1 %.
func TestNoFalseElection(t *testing.T) {
	watch := 5 * time.Minute
	if os.Getenv("STARLING_LONG") != "" {
		watch = 24 * time.Hour
	}
	for name, c := range map[string]struct{ oneWay, heartbeat time.Duration }{
		"in a region": {500 * time.Microsecond, 500 * time.Millisecond},
		"far apart":   {75 * time.Millisecond, 1500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newCluster(t, nil, "a", "b", "c")
				var seed atomic.Uint64
				w.config = func(cfg *Config) {
					from := cfg.Node
					cfg.Dial = func(_ context.Context, to string, snapshot bool) (Stream, error) {
						s, err := w.dial(from, to, snapshot)
						if err != nil {
							return nil, err
						}
						return lossy(s, c.oneWay, 0.01, rand.New(rand.NewPCG(seed.Add(1), 1))), nil
					}
				}
				g := one
				g.Heartbeat = c.heartbeat
				w.startAll(g)
				defer w.stopAll()
				l := w.leader(1)
				time.Sleep(5 * c.heartbeat)
				term := w.host(l).group(1).instance().CurrentTerm()
				sent := 0
				for until := time.Now().Add(watch); time.Now().Before(until); sent++ {
					w.mustPropose(l, 1, 1, fmt.Sprintf("m%d/", sent))
					time.Sleep(15 * time.Second)
				}
				t.Logf("%v, %d commands: %d elections", watch, sent, w.host(l).group(1).instance().CurrentTerm()-term)
				for _, name := range w.names {
					if s := w.host(name).group(1).status(); s.Term != term || s.Leader != l {
						t.Errorf("%s: term %d, leader %s, was %d and %s", name, s.Term, s.Leader, term, l)
					}
				}
			})
		})
	}
}

// TestSlowDiskIsNoSilence lets the disks of both followers take 650 ms for a
// write: their Rafts hear nothing meanwhile, but the leader is not silent.
func TestSlowDiskIsNoSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slow atomic.Bool
		c := newCluster(t, nil, "a", "b", "c")
		for _, name := range c.names[1:] {
			c.nodes[name].fs = errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
				if slow.Load() && (op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSync) {
					time.Sleep(650 * time.Millisecond)
				}
				return nil
			}))
		}
		g := one
		g.Heartbeat = 500 * time.Millisecond
		c.startAll(g)
		defer c.stopAll()
		c.leader(1)
		c.mustPropose("a", 1, 10, "m")
		term := c.host("a").group(1).instance().CurrentTerm()
		time.Sleep(time.Second)
		slow.Store(true)
		c.host("a").Propose(1, []byte("n"), func(any, error) {})
		time.Sleep(100 * time.Millisecond)
		slow.Store(false) // but for what has begun
		time.Sleep(500 * time.Millisecond)
		for _, name := range c.names[1:] {
			g := c.host(name).group(1)
			if heard := g.instance().LastContact(); time.Since(heard) < 500*time.Millisecond {
				t.Errorf("the Raft of %s was not held up: the test proves nothing", name)
			}
			if left, follows := g.silence(g.cfg.Heartbeat, 1); left <= 0 || !follows {
				t.Errorf("%s takes its own slowness for a silence, %v too long", name, -left)
			}
		}
		time.Sleep(3 * time.Second)
		if now := c.host("a").group(1).instance().CurrentTerm(); now != term {
			t.Errorf("there were elections: term %d, was %d", now, term)
		}
	})
}

// TestLongerLogLeadsFirst loses a leader whose first follower in line lacks an
// entry: it must give way to the other, whose vote it will not get.
func TestLongerLogLeadsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil, "a", "b", "c")
		c.startAll(one)
		defer c.stopAll()
		c.leads("a")
		c.mustPropose("a", 1, 10, "m")
		time.Sleep(time.Second)
		c.isolate("b", true)
		c.mustPropose("a", 1, 1, "b lacks this")
		c.isolate("b", false)
		c.isolate("a", true)
		start := time.Now()
		if l, took := c.leader(1, "a"), time.Since(start); l != "c" || took > 2*time.Second {
			t.Errorf("%s leads after %v", l, took)
		}
	})
}
