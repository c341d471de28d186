package consensus

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/starling-im/starling/wire"
)

// TestEveryCommandEnds cuts the leader off under more commands than it may
// queue: each ends once, in time, and in order.
func TestEveryCommandEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil, "a", "b", "c")
		c.startAll(one)
		defer c.stopAll()
		c.mustPropose(c.leader(1), 1, 1, "m")
		c.isolate("a", true)
		var mu sync.Mutex
		var wg sync.WaitGroup
		codes, last := map[string]int{}, -1
		start := time.Now()
		for i := range 2 * QueuedBytes / (32 << 10) {
			wg.Add(1)
			c.host("a").Propose(1, make([]byte, 32<<10), func(_ any, err error) {
				defer wg.Done()
				mu.Lock()
				defer mu.Unlock()
				code := wire.Code(err)
				codes[code]++
				if code == wire.CodeOverloaded {
					if wire.AsError(err).RetryAfterMs == 0 {
						t.Error("overloaded without a time to retry")
					}
					return
				}
				if i < last {
					t.Errorf("%d is answered after %d", i, last)
				}
				last = i
			})
		}
		wg.Wait()
		if took := time.Since(start); took > 6*time.Second {
			t.Errorf("it took %v", took)
		}
		if codes[""] > 0 || codes[wire.CodeOverloaded] == 0 || codes[wire.CodeUnavailable] == 0 || codes[wire.CodeNotLeader] == 0 {
			t.Errorf("ends: %v", codes)
		}
		c.host("a").Propose(1, make([]byte, EntryBytes+1), func(_ any, err error) {
			if wire.Code(err) != wire.CodeTooLarge {
				t.Error(err)
			}
		})
	})
}

// TestNothingOvertakesFailure proposes while the sender of a command that failed
// is being told: what comes then fails too, although the group could take it.
func TestNothingOvertakesFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, func(cfg *Config) { cfg.ProposeTimeout = 100 * time.Millisecond }, "a", "b", "c")
		c.startAll(one)
		defer c.stopAll()
		c.mustPropose(c.leader(1), 1, 1, "m")
		c.isolate("a", true)
		h := c.host("a")
		told := make(chan string, 3)
		h.Propose(1, []byte("first"), func(_ any, err error) {
			c.isolate("a", false)
			for _, name := range []string{"second", "third"} {
				h.Propose(1, []byte(name), func(_ any, err error) { told <- name + " " + wire.Code(err) })
			}
			time.Sleep(time.Second) // a commit takes no time here
			told <- "first " + wire.Code(err)
		})
		for _, want := range []string{"first unavailable", "second not_leader", "third not_leader"} {
			if got := <-told; got != want {
				t.Errorf("%q, not %q", got, want)
			}
		}
		c.mustPropose("a", 1, 1, "again")
	})
}

// TestRaftRestartsInPlace replaces the leader's Raft, as is done when a
// transfer of leadership hangs in it.
func TestRaftRestartsInPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil, "a", "b", "c")
		c.startAll(one)
		defer c.stopAll()
		l := c.leader(1)
		c.mustPropose(l, 1, 20, "m")
		g := c.host(l).group(1)
		_ = g.lanes.translate(raft.ErrLeadershipTransferInProgress)
		time.Sleep(transferTimeout + time.Millisecond)
		before := g.instance()
		_ = g.lanes.translate(raft.ErrLeadershipTransferInProgress)
		eventually(t, "another instance", func() bool { return g.instance() != before })
		l = c.leader(1)
		c.mustPropose(l, 1, 20, "n")
		if n := len(history(t, c.host(l), 1)); n != 40 {
			t.Errorf("%d commands", n)
		}
	})
}

// TestBarrierShared lets many readers ask at once, also of a new leader.
func TestBarrierShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil, "a", "b", "c")
		c.startAll(one)
		defer c.stopAll()
		l := c.leader(1)
		for i := range 20 {
			if _, err := c.propose(l, 1, fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			for range 10 {
				wg.Go(func() {
					if err := c.host(l).Barrier(context.Background(), 1); err != nil {
						t.Error(err)
					}
					if n := len(history(t, c.host(l), 1)); n != i+1 {
						t.Errorf("%d commands after %d", n, i+1)
					}
				})
			}
			wg.Wait()
		}
	})
}

func TestOneVoter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil, "a")
		c.startAll(Group{ID: 1<<32 - 1, Voters: []string{"a"}})
		defer c.stopAll()
		l := c.leader(1<<32 - 1)
		c.mustPropose(l, 1<<32-1, 100, "m")
		if err := c.host(l).Barrier(context.Background(), 1<<32-1); err != nil {
			t.Error(err)
		}
		if n := len(history(t, c.host(l), 1<<32-1)); n != 100 {
			t.Errorf("%d commands", n)
		}
	})
}
