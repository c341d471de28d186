package consensus

import (
	"context"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestLeaderDiesInChange ends the leader's process and takes its unsynced
// writes, somewhere in the middle of a change, again and again while commands
// are written. The others go on, and all replicas end alike.
func TestLeaderDiesInChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rounds := 10
		if os.Getenv("STARLING_LONG") != "" {
			rounds = 300
		}
		rng := rand.New(rand.NewPCG(3, 5))
		c := newCluster(t, joining, "a", "b", "c", "d")
		c.startAll(one)
		defer c.stopAll()
		w := write(c, true)
		for range rounds {
			l := c.leader(1)
			h, ctx := c.host(l), context.Background()
			changed := make(chan error, 1)
			change := []func() error{
				func() error { return h.AddLearner(ctx, 1, "d", 0) },
				func() error { return h.Promote(ctx, 1, "d", 0) },
				func() error { return h.Demote(ctx, 1, "d", 0) },
				func() error { return h.Remove(ctx, 1, "d", 0) },
				func() error { _, err := h.Transfer(ctx, 1, ""); return err },
			}[rng.IntN(5)]
			go func() { changed <- change() }()
			if rng.IntN(2) == 0 {
				<-changed
				changed <- nil
			}
			for range rng.IntN(50) {
				synctest.Wait() // whoever can run has run
			}
			c.isolate(l, true)
			after := c.nodes[l].fs.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{RNG: rng})
			c.stop(l)
			<-changed
			c.leader(1, l)
			time.Sleep(time.Duration(rng.IntN(1000)) * time.Millisecond)
			c.nodes[l].fs = after
			c.isolate(l, false)
			c.start(l, Group{ID: 1})
			time.Sleep(time.Second)
		}
		voters := slices.Clone(c.voters())
		if len(voters) < 3 {
			t.Errorf("voters %v", voters)
		}
		w.end(voters...)
	})
}
