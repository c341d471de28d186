package consensus

import (
	"context"
	"encoding/binary"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// hooked is a log that a test can stop before Raft reads an entry that it is to send.
type hooked struct {
	*logStore
	before func(index uint64)
}

func (h *hooked) GetLog(index uint64, to *raft.Log) error {
	stack := make([]byte, 4096)
	if strings.Contains(string(stack[:runtime.Stack(stack, false)]), "setNewLogs") {
		h.before(index)
	}
	return h.logStore.GetLog(index, to)
}

// hook starts a group's Raft again, with a log that is hooked.
func hook(t *testing.T, g *group, before func(uint64)) {
	g.restarting.Lock()
	defer g.restarting.Unlock()
	g.instance().stop()()
	if err := g.runOn(&hooked{g.logs, before}); err != nil {
		t.Fatal(err)
	}
}

// A leader that another has followed reads one entry to be sent before its log is replaced,
// and the next one after: no follower takes such a log, which nobody has.
func TestMixedEntriesAreNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		five := Group{ID: 1, Voters: []string{"a", "b", "c", "d", "e"}}
		c := newCluster(t, func(cfg *Config) { cfg.Depth = 4 }, five.Voters...)
		c.startAll(five)
		defer c.stopAll()
		c.leader(1)
		var at, term atomic.Uint64 // stop before this entry is read, while the next one is of that term
		g := c.host("a").group(1)
		hook(t, g, func(index uint64) {
			if n := at.Load(); n == 0 || index != n {
				return
			}
			for range 1000 {
				var e raft.Log
				if g.logs.GetLog(index+1, &e) == nil && e.Term != term.Load() {
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
		c.leads("a")
		c.mustPropose("a", 1, 10, "m")
		time.Sleep(3 * time.Second)
		n := g.instance().LastIndex()
		term.Store(g.instance().CurrentTerm())
		at.Store(n + 2)
		c.isolate("a", true)
		c.isolate("e", true)
		c.sends("a", "x1", "x2", "x3")
		l := c.leader(1, "a", "e")
		acked := map[string]uint64{}
		for i := 0; c.host(l).group(1).instance().LastIndex() < n+3; i++ {
			r, err := c.propose(l, 1, "n"+itoa(i))
			if err != nil {
				t.Fatal(err)
			}
			acked["n"+itoa(i)] = r.(uint64)
		}
		c.cutPair("a", "e", false)
		time.Sleep(200 * time.Millisecond)
		c.cutPair("a", l, false)
		for i := 0; i < 200 && c.host("e").group(1).instance().LastIndex() <= n; i++ {
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(20 * time.Millisecond)
		c.isolate("a", true)
		c.isolate(l, true)
		for _, x := range c.names {
			if x != "a" && x != l && x != "e" {
				c.cutPair(x, "e", false)
			}
		}
		c.mustPropose(c.leader(1, "a", l), 1, 3, "o")
		c.isolate("a", false)
		c.isolate(l, false)
		time.Sleep(10 * time.Second)
		if lost := missing(t, c, c.leader(1), acked); len(lost) > 0 {
			t.Error(some(lost))
		}
	})
}

// The log of a leader is cut while it reads what a follower lacks: what stands in for the
// last entry that was cut off is not sent as that entry.
func TestStandInIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, shortLogs, "a", "b", "c")
		c.startAll(one)
		defer c.stopAll()
		c.leader(1)
		var at atomic.Uint64
		var once sync.Once
		g := c.host("a").group(1)
		hook(t, g, func(index uint64) {
			if n := at.Load(); n != 0 && index == n {
				once.Do(func() {
					eventually(t, "applied", func() bool { return g.fsm.position().index >= n })
					if err := g.instance().Snapshot().Error(); err != nil {
						t.Error(err)
					}
				})
			}
		})
		c.leads("a")
		c.mustPropose("a", 1, 10, "m")
		time.Sleep(3 * time.Second)
		c.isolate("b", true)
		n := g.instance().LastIndex()
		c.mustPropose("a", 1, 1, "x")
		at.Store(n + 1)
		c.isolate("b", false)
		time.Sleep(5 * time.Second)
		c.mustPropose("a", 1, 3, "o")
		if lost := missing(t, c, "a", map[string]uint64{"x0": 11}); len(lost) > 0 {
			t.Error(some(lost))
		}
	})
}

// A replica that was taken out and added again starts its Raft again: it is a voter like
// any other, and neither thinks that it is out nor leads without heartbeats.
func TestAddedAgainStartsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil, "a", "b", "c")
		c.startAll(Group{ID: 1, Voters: one.Voters, Heartbeat: 500 * time.Millisecond})
		defer c.stopAll()
		c.leads("a")
		c.mustPropose("a", 1, 10, "m")
		ctx := context.Background()
		eventually(t, "c is removed", func() bool { return c.host("a").Remove(ctx, 1, "c", 0) == nil })
		eventually(t, "c knows", func() bool { return c.host("c").Status()[0].Removed })
		eventually(t, "c is added", func() bool { return c.host("a").AddLearner(ctx, 1, "c", 0) == nil })
		eventually(t, "c is a voter", func() bool { return c.host("a").Promote(ctx, 1, "c", 0) == nil })
		c.mustPropose("a", 1, 10, "n")
		time.Sleep(5 * time.Second)
		c.leads("c")
		time.Sleep(5 * time.Second)
		c.isolate("a", true)
		c.host("c").group(1).restart("a test says so")
		l := c.leader(1, "a")
		term := c.host(l).Status()[0].Term
		time.Sleep(time.Minute)
		for _, n := range []string{"b", "c"} {
			if is := c.host(n).Status()[0]; is.Term != term || is.Removed {
				t.Errorf("%s is %s in term %d, a minute ago %s led in %d; removed: %v", n, is.State, is.Term, l, term, is.Removed)
			}
		}
	})
}

// The disk of a leader stalls in a group that was recovered: another leads as soon as in
// any other group.
func TestLeaderDiskStallsInALaterEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, func(cfg *Config) {
			cfg.Join = func(group uint32) (Group, bool) { return Group{ID: group}, true }
		}, "a", "b", "c")
		disk := newStallingDisk(c.nodes["a"].fs, ".log")
		c.nodes["a"].fs = disk
		c.startAll(one)
		defer c.stopAll()
		c.leads("a")
		c.mustPropose("a", 1, 10, "m")
		c.isolate("a", true)
		time.Sleep(5 * time.Second)
		if _, err := c.host("a").Recover(1, func(e uint64) []byte { return binary.BigEndian.AppendUint64(nil, e) }); err != nil {
			t.Fatal(err)
		}
		c.isolate("a", false)
		for _, n := range []string{"b", "c"} {
			eventually(t, n+" learns", func() bool { return c.host("a").AddLearner(t.Context(), 1, n, 0) == nil })
			eventually(t, n+" votes", func() bool { return c.host("a").Promote(t.Context(), 1, n, 0) == nil })
		}
		c.leads("a")
		time.Sleep(10 * time.Second)
		disk.stall()
		start := time.Now()
		c.host("a").Propose(1, []byte("x"), func(any, error) {})
		c.leader(1, "a")
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("another leader after %v", took)
		}
		disk.resume()
		time.Sleep(5 * time.Second)
	})
}
