package consensus

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling/wire"
)

var single = Group{ID: 1, Voters: []string{"a"}}

// joining lets every node take the replicas that it is given.
func joining(cfg *Config) {
	cfg.Join = func(group uint32) (Group, bool) { return Group{}, true }
}

// atLeader runs fn on the host that leads until it ends with no error or a
// final one.
func (c *cluster) atLeader(what string, fn func(h *Host) error) {
	c.t.Helper()
	var err error
	for range 1000 {
		if err = fn(c.host(c.leader(1))); err == nil {
			return
		}
		if e := wire.AsError(err); !e.Retryable && e.Code != wire.CodeUnavailable {
			c.t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	c.t.Fatalf("%s: %v", what, err)
}

func (c *cluster) addVoter(node string) {
	c.t.Helper()
	c.atLeader("add "+node, func(h *Host) error { return h.AddLearner(context.Background(), 1, node, 0) })
	c.atLeader("promote "+node, func(h *Host) error { return h.Promote(context.Background(), 1, node, 0) })
}

func (c *cluster) remove(node string) {
	c.t.Helper()
	c.atLeader("remove "+node, func(h *Host) error { return h.Remove(context.Background(), 1, node, 0) })
}

// voters returns those that the leader names.
func (c *cluster) voters() []string {
	s := c.host(c.leader(1)).group(1).status()
	slices.Sort(s.Voters)
	return s.Voters
}

// TestGroupGrowsAndShrinks takes a group from one voter to five and back to
// three, the leader not among them, while commands are written.
func TestGroupGrowsAndShrinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, joining, "a", "b", "c", "d", "e")
		c.start("a", single)
		for _, name := range c.names[1:] {
			c.start(name)
		}
		defer c.stopAll()
		c.leader(1)
		w := write(c, false)
		time.Sleep(100 * time.Millisecond)
		for i, name := range c.names[1:] {
			c.addVoter(name)
			if v := c.voters(); len(v) != i+2 {
				t.Fatalf("voters %v after %s was added", v, name)
			}
		}
		c.remove("a")
		c.remove("b")
		if v := c.voters(); !slices.Equal(v, []string{"c", "d", "e"}) {
			t.Fatalf("voters %v", v)
		}
		time.Sleep(100 * time.Millisecond)
		w.end("c", "d", "e")
		c.stop("c")
		c.mustPropose(c.leader(1), 1, 10, "later")
	})
}

// TestVoterReplaced puts another node in the place of a voter that died, after
// its log has been cut so that the new one needs a snapshot.
func TestVoterReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, func(cfg *Config) { joining(cfg); quickSnapshots(cfg) }, "a", "b", "c", "d")
		for _, name := range []string{"a", "b", "c"} {
			c.start(name, one)
		}
		c.start("d")
		defer c.stopAll()
		c.leader(1)
		w := write(c, false)
		time.Sleep(300 * time.Millisecond)
		c.stop("c")
		time.Sleep(300 * time.Millisecond)
		c.addVoter("d")
		c.remove("c")
		time.Sleep(300 * time.Millisecond)
		w.end("a", "b", "d")
		if v := c.voters(); !slices.Equal(v, []string{"a", "b", "d"}) {
			t.Errorf("voters %v", v)
		}
		if c.nodes["d"].machines[1].restored == 0 {
			t.Error("the new voter needed no snapshot: the test proves less than it says")
		}
	})
}

// TestChangesRefused asks for what must not be.
func TestChangesRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, joining, "a", "b", "c", "d")
		c.startAll(one)
		defer c.stopAll()
		ctx := context.Background()
		a := c.host(c.leader(1))
		c.mustPropose("a", 1, 200, "m")
		time.Sleep(time.Second)
		expect := func(what string, err error, code, text string) {
			t.Helper()
			if wire.Code(err) != code || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v, want %s", what, err, code)
			}
		}
		err := c.host("b").AddLearner(ctx, 1, "d", 0)
		expect("at a follower", err, wire.CodeNotLeader, "")
		if wire.AsError(err).Node != "a" {
			t.Errorf("a follower names %q", wire.AsError(err).Node)
		}
		expect("another group", a.Remove(ctx, 7, "b", 0), wire.CodeNotLeader, "not on this node")
		expect("no name", a.AddLearner(ctx, 1, "", 0), wire.CodeBadRequest, "")
		expect("promote a stranger", a.Promote(ctx, 1, "d", 0), wire.CodeBadRequest, "no learner")
		expect("learner that votes", a.AddLearner(ctx, 1, "b", 0), wire.CodeBadRequest, "voter")
		at := a.group(1).status().ConfigIndex
		expect("old configuration", a.AddLearner(ctx, 1, "d", at+1), wire.CodeConflict, "changed")

		c.isolate("d", true)
		if err := a.AddLearner(ctx, 1, "d", at); err != nil {
			t.Fatal(err)
		}
		expect("far behind", a.Promote(ctx, 1, "d", 0), wire.CodeConflict, "d (has not answered yet)")
		c.isolate("d", false)
		c.addVoter("d")
		c.remove("d")
		if err := a.Remove(ctx, 1, "d", 0); err != nil {
			t.Errorf("twice: %v", err)
		}

		g := a.group(1)
		g.turn.Lock()
		expect("two at a time", a.AddLearner(ctx, 1, "d", 0), wire.CodeConflict, "under way")
		g.turn.Unlock()
		c.isolate("c", true)
		time.Sleep(heardWithin + time.Second)
		err = a.Remove(ctx, 1, "b", 0)
		expect("no quorum after it", err, wire.CodeConflict, "no quorum")
		if e := wire.AsError(err); !e.Retryable || e.RetryAfterMs == 0 {
			t.Errorf("not to be tried again: %v", e)
		}
		c.isolate("b", true)
		expect("without a quorum", a.Remove(ctx, 1, "c", 0), wire.CodeUnavailable, "")
		c.isolate("b", false)
		c.isolate("c", false)
	})
}

// TestChangeEndsWithContext: the caller goes, the change does not.
func TestChangeEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, joining, "a", "b", "c", "d")
		c.startAll(one)
		defer c.stopAll()
		a := c.host(c.leader(1))
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := a.AddLearner(ctx, 1, "d", 0); wire.Code(err) != wire.CodeUnavailable {
			t.Errorf("after the end of its context: %v", err)
		}
		eventually(t, "d has a replica", func() bool { return c.host("d").group(1) != nil })
	})
}

// TestRemovalLeavesQuorum cuts the leader off in the middle of a removal that
// only the removed voter has heard of. The other two must go on: were it told
// before the entry is committed, one would stand no more and the other lack it.
func TestRemovalLeavesQuorum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, joining, "a", "b", "c")
		c.startAll(one)
		defer c.stopAll()
		a := c.host(c.leader(1))
		c.mustPropose("a", 1, 10, "m")
		time.Sleep(time.Second)
		c.isolate("b", true)
		gone := make(chan error, 1)
		go func() { gone <- a.Demote(context.Background(), 1, "c", 0) }()
		time.Sleep(time.Second)
		c.isolate("a", true)
		c.mu.Lock()
		c.cut[[2]string{"b", "c"}] = false
		c.mu.Unlock()
		l := c.leader(1, "a")
		c.mustPropose(l, 1, 10, "n")
		if err := <-gone; wire.Code(err) != wire.CodeUnavailable {
			t.Errorf("the change that was cut off: %v", err)
		}
		c.isolate("b", false)
		c.isolate("a", false)
	})
}

// TestRemovedComesBack lets a voter return that was removed while it was away.
// It must not disturb, learn of it, and may be dropped and added again.
func TestRemovedComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, joining, "a", "b", "c")
		c.startAll(one)
		defer c.stopAll()
		a := c.host(c.leader(1))
		c.mustPropose("a", 1, 10, "m")
		if err := a.Drop(1); wire.Code(err) != wire.CodeConflict {
			t.Errorf("drop of a replica in use: %v", err)
		}
		c.isolate("c", true)
		time.Sleep(10 * time.Second)
		c.remove("c")
		term := a.group(1).instance().CurrentTerm()
		c.isolate("c", false)
		eventually(t, "c knows that it is out", func() bool { return c.host("c").group(1).status().Removed })
		time.Sleep(time.Minute)
		if now := a.group(1).instance().CurrentTerm(); now != term || c.leader(1) != "a" {
			t.Errorf("the one that came back disturbs: term %d, was %d", now, term)
		}
		voted := c.host("b").peer("c")
		if m, err := voted.askWait(preVote(1, 0, term+100, 1<<40, term+99), false); err == nil && m.GetPreVoteReply().GetGranted() {
			t.Error("the one that was removed votes")
		}
		c.rejoin(t, "c", 10)
	})
}

// rejoin drops the replica of a node and adds it again.
func (c *cluster) rejoin(t *testing.T, name string, commands int) {
	t.Helper()
	if err := c.host(name).Drop(1); err != nil {
		t.Fatal(err)
	}
	c.begins(t, name, commands)
}

// begins adds a node as a voter of which nothing may be left.
func (c *cluster) begins(t *testing.T, name string, commands int) {
	t.Helper()
	if err := c.host(name).Read(1, func(Reader) {}); wire.Code(err) != wire.CodeNotLeader {
		t.Errorf("read after the drop: %v", err)
	}
	if held, err := c.host(name).Held(); err != nil || len(held) > 0 {
		t.Errorf("held after the drop: %v %v", held, err)
	}
	gd := c.host(name).s.guard
	gd.mu.Lock()
	if gd.tips[1] != nil {
		t.Error("the tip is still there after the drop")
	}
	gd.mu.Unlock()
	c.addVoter(name)
	if n := len(history(t, c.host(name), 1)); n != commands {
		t.Errorf("%d commands after it was added again", n)
	}
	if held, err := c.host(name).Held(); err != nil || !slices.Equal(held, []uint32{1}) {
		t.Errorf("held after it was added again: %v %v", held, err)
	}
	if s := c.host(name).group(1).status(); s.Removed {
		t.Errorf("added again: %+v", s)
	}
}

// TestRemovedAddedAgainWithoutDrop adds a replica again that still has its data.
func TestRemovedAddedAgainWithoutDrop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, joining, "a", "b", "c")
		c.startAll(one)
		defer c.stopAll()
		c.leader(1)
		c.mustPropose("a", 1, 10, "m")
		c.remove("c")
		eventually(t, "c knows that it is out", func() bool { return c.host("c").group(1).status().Removed })
		time.Sleep(2 * tendEvery)
		c.addVoter("c")
		time.Sleep(2 * tendEvery)
		c.stop("a")
		c.mustPropose(c.leader(1), 1, 10, "n")
		eventually(t, "replicas are equal", func() bool {
			return slices.Equal(history(t, c.host("b"), 1), history(t, c.host("c"), 1)) && len(history(t, c.host("b"), 1)) == 20
		})
	})
}

// TestJoinRefused: a node takes no replica that its owner does not want, and
// is not asked too often.
func TestJoinRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		c := newCluster(t, func(cfg *Config) {
			cfg.Join = func(uint32) (Group, bool) { asked.Add(1); return Group{}, false }
		}, "a", "b")
		c.start("a", single)
		c.start("b")
		defer c.stopAll()
		a := c.host(c.leader(1))
		if err := a.AddLearner(context.Background(), 1, "b", 0); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if n := asked.Load(); n == 0 || n > 11 {
			t.Errorf("asked %d times in 10 s", n)
		}
		if c.host("b").group(1) != nil {
			t.Error("b joined")
		}
	})
}
