package consensus

import (
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling/internal/simdisk"
)

// TestPowerGoesAtAnyWrite lets the power of one node after the other go before
// a write, sync or change of a folder that chance picks: between append and
// apply, between apply and the cut of the log, in the middle of a snapshot. All
// replicas then hold what was acknowledged, each command once, in one order.
func TestPowerGoesAtAnyWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(3, 4))
		c := newCluster(t, quickSnapshots, "a", "b", "c")
		disks := map[string]*simdisk.Disk{}
		for i, name := range c.names {
			disks[name] = simdisk.New(uint64(i))
			c.nodes[name].fs = disks[name]
		}
		c.startAll(one)
		acked, restored := map[string]uint64{}, 0
		rounds := 9
		if os.Getenv("STARLING_LONG") != "" {
			rounds = 300
		}
		for round := range rounds {
			l := c.leader(1)
			victim := c.names[round%3]
			stop := load(c, l, round, acked)
			if err := disks[victim].Inflict(simdisk.PowerOff{After: rng.IntN(200)}); err != nil {
				t.Fatal(err)
			}
			n := c.nodes[victim]
			eventually(t, victim+" ends", func() bool {
				n.mu.Lock()
				defer n.mu.Unlock()
				return errors.Is(n.fatal, syscall.EIO)
			})
			stop.end()
			acked = stop.acked()
			c.isolate(victim, true)
			c.stop(victim)
			if rng.IntN(3) == 0 { // long enough away to need a snapshot
				behind := load(c, c.leader(1, victim), 1000+round, acked)
				time.Sleep(time.Second)
				behind.end()
				acked = behind.acked()
			}
			disks[victim] = disks[victim].PowerLoss(rng.IntN(2) * rng.IntN(100))
			n.fs, n.fatal = disks[victim], nil
			c.isolate(victim, false)
			c.start(victim, one)
			if lost := missing(t, c, c.leader(1), maps.Clone(acked)); len(lost) > 0 {
				t.Fatalf("round %d, %d acknowledged: %s", round, len(acked), some(lost))
			}
			restored += n.machines[1].restored
		}
		t.Logf("%d acknowledged commands, %d snapshots taken over", len(acked), restored)
		if restored == 0 {
			t.Error("no replica needed a snapshot: the test proves little")
		}
		c.stopAll()
	})
}
