package consensus

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling/wire"
)

// far puts a time between any two nodes of a cluster.
func (c *cluster) far(oneWay time.Duration) {
	config := c.config
	c.config = func(cfg *Config) {
		if config != nil {
			config(cfg)
		}
		from := cfg.Node
		cfg.Dial = func(_ context.Context, to string, snapshot bool) (Stream, error) {
			s, err := c.dial(from, to, snapshot)
			if err != nil {
				return nil, err
			}
			return late(s, oneWay), nil
		}
	}
}

// TestTransferUnderLoad hands leadership about while commands are written.
// Each ends in an ack or in a refusal that names the new leader, and the group
// leads again within 10 ms where its voters are a millisecond apart.
func TestTransferUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil, "a", "b", "c")
		c.far(500 * time.Microsecond)
		c.startAll(one)
		defer c.stopAll()
		l := c.leader(1)
		var mu sync.Mutex
		var wg sync.WaitGroup
		acked, refused := 0, 0
		for round := range 20 {
			c.mustPropose(l, 1, 1, fmt.Sprintf("first%d/", round))
			h := c.host(l)
			for i := range 50 {
				wg.Add(1)
				h.Propose(1, fmt.Appendf(nil, "%d/%d", round, i), func(_ any, err error) {
					defer wg.Done()
					mu.Lock()
					defer mu.Unlock()
					if err == nil {
						acked++
					} else if e := wire.AsError(err); e.Code == wire.CodeNotLeader && e.Node != "" {
						refused++
					} else {
						t.Errorf("round %d, command %d: %v", round, i, err)
					}
				})
				if i == 25 {
					wg.Go(func() {
						start := time.Now()
						next, err := h.Transfer(context.Background(), 1, "")
						took := time.Since(start)
						if err != nil || next == l || next == "" || took > 10*time.Millisecond {
							t.Errorf("round %d: %q leads after %v, %v", round, next, took, err)
						}
						l = next
					})
				}
				time.Sleep(200 * time.Microsecond)
			}
			wg.Wait()
		}
		t.Logf("%d acked, %d sent on", acked, refused)
		if acked == 0 || refused == 0 {
			t.Error("the transfers met no commands")
		}
	})
}

// TestTransferRefused asks for leaders that must not be.
func TestTransferRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, joining, "a", "b", "c", "d")
		c.startAll(one)
		defer c.stopAll()
		a := c.host(c.leader(1))
		ctx := context.Background()
		if err := a.AddLearner(ctx, 1, "d", 0); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Transfer(ctx, 1, "d"); wire.Code(err) != wire.CodeBadRequest {
			t.Errorf("to a learner: %v", err)
		}
		if _, err := c.host("b").Transfer(ctx, 1, "c"); wire.AsError(err).Node != "a" {
			t.Errorf("at a follower: %v", err)
		}
		if l, err := a.Transfer(ctx, 1, "a"); l != "a" || err != nil {
			t.Errorf("to itself: %q %v", l, err)
		}
		c.isolate("c", true)
		time.Sleep(heardWithin + time.Second)
		if _, err := a.Transfer(ctx, 1, "c"); wire.Code(err) != wire.CodeConflict {
			t.Errorf("to one that is gone: %v", err)
		}
		c.mustPropose("a", 1, 10, "m")
		if l, err := a.Transfer(ctx, 1, ""); l != "b" || err != nil {
			t.Errorf("to the best: %q %v", l, err)
		}
	})
}

// TestCloseWhileHandingOver closes a node at the moment at which it hands the lead over:
// nobody waits for ever for what Raft has not begun, or the bubble could not end.
func TestCloseWhileHandingOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil, "a", "b", "c")
		c.startAll(one)
		defer c.stopAll()
		for range 200 {
			l := c.leader(1)
			h := c.host(l)
			g := h.group(1)
			go func() { _, _ = g.handOver("") }()
			c.stop(l)
			c.start(l, one)
		}
	})
}

// muted drops what is written to it while the switch is on.
type muted struct {
	Stream
	on *atomic.Bool
}

func (m muted) Write(b []byte) (int, error) {
	if m.on.Load() {
		return len(b), nil
	}
	return m.Stream.Write(b)
}

// TestTransferHangs hands over to a node that hears nothing: commands wait a
// few seconds at most, and go on at the old leader.
func TestTransferHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var deaf atomic.Bool
		c := newCluster(t, nil, "a", "b", "c")
		c.config = func(cfg *Config) {
			from := cfg.Node
			cfg.Dial = func(_ context.Context, to string, snapshot bool) (Stream, error) {
				s, err := c.dial(from, to, snapshot)
				if to == "b" && err == nil {
					s = muted{s, &deaf}
				}
				return s, err
			}
		}
		c.startAll(one)
		defer c.stopAll()
		a := c.host(c.leader(1))
		c.mustPropose("a", 1, 10, "m")
		time.Sleep(time.Second)
		deaf.Store(true)
		start := time.Now()
		failed := make(chan error, 1)
		go func() {
			_, err := a.Transfer(context.Background(), 1, "b")
			failed <- err
		}()
		time.Sleep(100 * time.Millisecond)
		c.mustPropose("a", 1, 10, "n")
		if took := time.Since(start); took > 2*unblockTimeout {
			t.Errorf("commands waited for %v", took)
		}
		if err := <-failed; wire.Code(err) != wire.CodeUnavailable {
			t.Errorf("a transfer to a deaf node: %v", err)
		}
	})
}
