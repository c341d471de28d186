package consensus

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// stallCluster is three nodes of which a leads, with disks that can stall.
func stallCluster(t *testing.T) (*cluster, map[string]*stallingDisk) {
	c := newCluster(t, nil, "a", "b", "c")
	disks := map[string]*stallingDisk{}
	for _, name := range c.names {
		disks[name] = newStallingDisk(c.nodes[name].fs, ".log")
		c.nodes[name].fs = disks[name]
	}
	c.startAll(one)
	c.leads("a")
	c.mustPropose("a", 1, 10, "m")
	time.Sleep(5 * time.Second)
	return c, disks
}

// TestLeaderDiskStalls stalls the disk of the leader for a while: a short one is
// waited for, otherwise another node leads within three seconds. Nothing that
// was acknowledged is lost.
func TestLeaderDiskStalls(t *testing.T) {
	for name, stall := range map[string]time.Duration{
		"1 s": time.Second, "10 s": 10 * time.Second, "for ever": 2 * time.Minute,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, disks := stallCluster(t)
				defer c.stopAll()
				acked := map[string]uint64{}
				o := load(c, "a", 0, acked)
				time.Sleep(time.Second)
				disks["a"].stall()
				start := time.Now()
				var ended atomic.Int64
				c.host("a").Propose(1, []byte("x"), func(any, error) { ended.Store(int64(time.Since(start))) })
				if stall > stallAfter {
					l := c.leader(1, "a")
					if took := time.Since(start); took > 3*time.Second {
						t.Errorf("another leader after %v", took)
					}
					if l := c.host("a").Leader(1); l == "a" {
						t.Error("a says that it leads")
					}
					if s := c.host("a").Status()[0].State; s != "stalled" {
						t.Errorf("a is %s", s)
					}
					beat := &raft.AppendEntriesRequest{Term: 1}
					if err := c.host("a").group(1).trans.AppendEntries("b", "b", beat, &raft.AppendEntriesResponse{}); !errors.Is(err, errStalled) {
						t.Errorf("a heartbeat is not held back: %v", err)
					}
					c.mustPropose(l, 1, 10, "n")
					eventually(t, "a command of the stalled leader ends", func() bool { return ended.Load() != 0 })
					if took := time.Duration(ended.Load()); took > 6*time.Second {
						t.Errorf("a command of the stalled leader took %v", took)
					}
				}
				time.Sleep(stall - time.Since(start))
				disks["a"].resume()
				if stall < stallAfter && c.leader(1) != "a" {
					t.Error("a gave up for a short stall")
				}
				time.Sleep(10 * time.Second)
				got := o.acked()
				o.end()
				l := c.leader(1)
				eventually(t, "barrier", func() bool { return c.host(l).Barrier(context.Background(), 1) == nil })
				if lost := missing(t, c, l, got); len(lost) > 0 || len(got) == 0 {
					t.Errorf("of %d acknowledged %s", len(got), some(lost))
				}
			})
		})
	}
}

// TestFollowerDiskStalls stalls the disk of a follower: nobody else is harmed.
func TestFollowerDiskStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, disks := stallCluster(t)
		defer c.stopAll()
		disks["c"].stall()
		for i := range 40 {
			start := time.Now()
			c.mustPropose("a", 1, 1, "n"+itoa(i)+"-")
			if took := time.Since(start); took > 100*time.Millisecond {
				t.Errorf("command %d took %v", i, took)
			}
			time.Sleep(500 * time.Millisecond)
		}
		term := c.host("a").Status()[0].Term
		disks["c"].resume()
		eventually(t, "c catches up", func() bool { return len(history(t, c.host("c"), 1)) == 50 })
		time.Sleep(10 * time.Second)
		if s := c.host("a").Status()[0]; s.State != "leader" || s.Term != term {
			t.Errorf("a is %s in term %d, was leader of %d", s.State, s.Term, term)
		}
	})
}
