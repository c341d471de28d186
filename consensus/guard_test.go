package consensus

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// On a slow disk a command takes the leader's sync and a follower's, and waits
// for nothing that confirms the one before.
func TestSlowDiskSyncsTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const sync, commands = 30 * time.Millisecond, 20
		var slow atomic.Bool
		c := newCluster(t, nil, "a", "b", "c")
		for _, n := range c.nodes {
			n.fs = errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
				if slow.Load() && op.Kind == errorfs.OpFileSyncData {
					time.Sleep(sync)
				}
				return nil
			}))
		}
		c.startAll(one)
		defer c.stopAll()
		l := c.leader(1)
		c.mustPropose(l, 1, 1, "first")
		time.Sleep(time.Second)
		slow.Store(true)
		var took time.Duration
		for i := range commands + 1 {
			start := time.Now()
			if _, err := c.propose(l, 1, fmt.Sprint("m", i)); err != nil {
				t.Fatal(err)
			}
			if i > 0 { // the first finds a disk of which nothing is known
				took += time.Since(start)
			}
		}
		if took /= commands; took > 2*sync+sync/4 {
			t.Errorf("a command takes %v where a sync takes %v", took, sync)
		}
	})
}
