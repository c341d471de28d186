package consensus

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"github.com/starling-im/starling/wire"
)

// replace gives a node that is down another disk.
func (c *cluster) replace(name string, fs vfs.FS) { c.nodes[name].fs = fs }

func (c *cluster) copyOf(name string) vfs.FS {
	return memory(c.nodes[name].fs).CrashClone(vfs.CrashCloneCfg{})
}

// catchesUp starts b and a replica c that has forgotten something, which must
// not help b to lead, and then a.
func (c *cluster) catchesUp(t *testing.T, reason doubt, want []string) {
	t.Helper()
	c.start("b", one)
	c.start("c", one)
	if c.host("c").Status()[0].Doubt == "" && reason == fresh {
		t.Error("c has no doubt")
	}
	eventually(t, "c knows", func() bool { return c.doubtOf("c") == reason.String() })
	stays(t, "no leader without a", 20*time.Second, c.noLeader("b", "c"))
	if reason == unknown {
		if err := c.host("c").Read(1, func(Reader) {}); wire.Code(err) != wire.CodeUnavailable {
			t.Errorf("read of an old disk: %v", err)
		}
	}
	// A start in between does not wash the disk clean.
	c.stop("c")
	c.start("c", one)
	stays(t, "still no leader without a", 5*time.Second, c.noLeader("b", "c"))
	c.start("a", one)
	c.leader(1)
	eventually(t, "c is sure", func() bool { return c.doubtOf("c") == "" })
	eventually(t, "c has all", func() bool { return slices.Equal(history(t, c.host("c"), 1), want) })
	c.stop("a")
	c.mustPropose(c.leader(1), 1, 5, "after")
}

// TestOldDisk puts an old copy of a disk back.
func TestOldDisk(t *testing.T) {
	for name, between := range map[string]func(c *cluster){
		"after a start": func(c *cluster) { c.stop("c"); c.start("c", one) },
		"after a while": func(*cluster) { time.Sleep(renewEvery + time.Minute) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, nil, "a", "b", "c")
				c.startAll(one)
				defer c.stopAll()
				c.mustPropose(c.leader(1), 1, 10, "m")
				time.Sleep(2 * time.Second)
				old := c.copyOf("c")
				between(c)
				c.mustPropose(c.leader(1), 1, 10, "n")
				time.Sleep(2 * time.Second)
				want := history(t, c.host(c.leader(1)), 1)
				c.stopAll()
				c.replace("c", old)
				c.catchesUp(t, unknown, want)
			})
		})
	}
}

// TestEmptyDisk puts an empty disk into a voter.
func TestEmptyDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil, "a", "b", "c")
		c.startAll(one)
		defer c.stopAll()
		c.mustPropose(c.leader(1), 1, 10, "m")
		time.Sleep(2 * time.Second)
		want := history(t, c.host("a"), 1)
		c.stopAll()
		c.replace("c", vfs.NewCrashableMem())
		c.catchesUp(t, fresh, want)
		// A group that nobody had before begins at once.
		c.start("a", one)
		for _, name := range c.names {
			if err := c.host(name).Start(Group{ID: 2, Voters: one.Voters}); err != nil {
				t.Fatal(err)
			}
		}
		c.mustPropose(c.leader(2), 2, 5, "new")
	})
}

// TestDoubtCountsForNothing leaves a leader alone with a voter that lost its
// disk: together they are no quorum.
func TestDoubtCountsForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil, "a", "b", "c")
		c.startAll(one)
		defer c.stopAll()
		c.leads("a")
		c.mustPropose("a", 1, 10, "m")
		time.Sleep(time.Second)
		c.isolate("b", true)
		c.stop("c")
		c.replace("c", vfs.NewCrashableMem())
		c.start("c", one)
		eventually(t, "c has what is committed", func() bool { return len(history(t, c.host("c"), 1)) == 10 })
		if c.host("a").Status()[0].State != "leader" {
			t.Fatal("a leads no more")
		}
		r := &raft.AppendEntriesRequest{LeaderCommitIndex: 2, Entries: []*raft.Log{{Index: 2}, {Index: 3}}}
		g := c.host("c").group(1)
		if _, cut, err := g.screen(g.doubt(), r); err != nil || !cut || len(r.Entries) != 1 {
			t.Errorf("uncommitted entries: cut %v, %d left, %v", cut, len(r.Entries), err)
		}
		if err := c.host("a").Barrier(context.Background(), 1); wire.Code(err) != wire.CodeUnavailable {
			t.Errorf("barrier: %v", err)
		}
		if _, err := c.propose("a", 1, "x"); err == nil {
			t.Error("acknowledged")
		}
		c.isolate("b", false)
		eventually(t, "c is sure", func() bool { return c.doubtOf("c") == "" })
		c.isolate("b", true)
		c.mustPropose(c.leader(1, "b"), 1, 1, "y")
	})
}

// TestOneVoteOfAnEmptyDisk has a voter lose its disk after it has voted, while
// the leader that it elected is away: it gives no other vote.
func TestOneVoteOfAnEmptyDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil, "a", "b", "c")
		c.startAll(one)
		defer c.stopAll()
		l := c.leader(1)
		c.mustPropose(l, 1, 10, "m")
		c.isolate("b", true)
		c.mustPropose(l, 1, 10, "n") // on a and c
		want := history(t, c.host("a"), 1)
		c.isolate("a", true)
		c.stop("c")
		c.replace("c", vfs.NewCrashableMem())
		c.isolate("b", false)
		c.isolate("a", true)
		c.start("c", one)
		stays(t, "no leader but a", 30*time.Second, c.noLeader("b", "c"))
		c.isolate("a", false)
		c.leader(1)
		eventually(t, "c is sure", func() bool { return c.doubtOf("c") == "" })
		if got := history(t, c.host(c.leader(1)), 1); !slices.Equal(got, want) {
			t.Errorf("%d commands of %d", len(got), len(want))
		}
	})
}

// TestGreeting shows how streams are refused.
func TestGreeting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil, "a", "b")
		c.start("a")
		defer c.stopAll()
		serve := func(m *wire.RaftMessage) error {
			a, b := net.Pipe()
			end := make(chan error, 1)
			go func() { end <- c.host("a").Serve("b", &pipe{b}) }()
			if _, err := a.Write(wire.AppendMessage(nil, m)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			_ = a.Close()
			return <-end
		}
		say := func(number, nonce uint64) *wire.RaftMessage {
			return &wire.RaftMessage{Body: &wire.RaftMessage_Life{Life: &wire.NodeLife{Life: number, Nonce: nonce}}}
		}
		for i, s := range []struct {
			number, nonce uint64
			old           bool
		}{{5, 1, false}, {5, 1, false}, {4, 1, true}, {5, 2, true}, {6, 2, false}, {5, 1, true}} {
			if err := serve(say(s.number, s.nonce)); errors.Is(err, ErrOldDisk) != s.old || !s.old && err != nil {
				t.Errorf("greeting %d: %v", i, err)
			}
		}
		if err := serve(preVote(1, 0, 1, 1, 1)); wire.Code(err) != wire.CodeProtocol {
			t.Errorf("no greeting: %v", err)
		}
		c.stop("a")
		c.start("a")
		if err := serve(say(5, 9)); !errors.Is(err, ErrOldDisk) {
			t.Errorf("after a start: %v", err)
		}
	})
}

// TestGreetingNamesDictionaries shows with what a peer is written to: what its present
// stream has named. One of the release before names nothing.
func TestGreetingNamesDictionaries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil, "a", "b")
		c.start("a")
		defer c.stopAll()
		h := c.host("a")
		for _, test := range []struct {
			names []uint32
			want  wire.Dictionary
		}{{h.greeting("b").GetLife().Dictionaries, wire.Shared(wire.Dictionaries())}, {[]uint32{40000}, 0}, {nil, 0}} {
			a, b := net.Pipe()
			end := make(chan error, 1)
			go func() { end <- h.Serve("b", &pipe{b}) }()
			m := &wire.RaftMessage{Body: &wire.RaftMessage_Life{Life: &wire.NodeLife{Life: 5, Nonce: 1, Dictionaries: test.names}}}
			if _, err := a.Write(wire.AppendMessage(nil, m)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if got := wire.Dictionary(h.peer("b").dictionary.Load()); got != test.want {
				t.Errorf("one that names %d is written to with %d, want %d", test.names, got, test.want)
			}
			_ = a.Close()
			<-end
			if got := h.peer("b").dictionary.Load(); got != 0 {
				t.Errorf("after the stream with %d", got)
			}
		}
	})
}

// TestLifeIsToldLater starts a node while another is away: when that is back it
// learns of the life, though two followers have nothing to say to each other.
func TestLifeIsToldLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil, "a", "b", "c")
		c.startAll(one)
		defer c.stopAll()
		c.leads("a")
		c.isolate("b", true)
		c.stop("c")
		c.start("c", one)
		time.Sleep(10 * time.Second)
		c.isolate("b", false)
		eventually(t, "b knows the life of c", func() bool { return c.host("b").lives.of("c") == c.host("c").life() })
	})
}

// TestLifeLeavesOnceDurable raises a life while the disk is busy: others hear of it
// only when it is written, or a loss of power would give its number twice.
func TestLifeLeavesOnceDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil, "a", "b", "c")
		c.startAll(one)
		defer c.stopAll()
		h := c.host("a")
		before, gd := h.life().number, h.s.guard
		gd.turn <- struct{}{} // somebody writes the files
		done := make(chan struct{})
		go func() { gd.change(func() { gd.life++ }); close(done) }()
		time.Sleep(time.Second)
		if now := h.life().number; now != before {
			t.Errorf("life %d is told before it is durable", now)
		}
		<-gd.turn
		<-done
		if now := h.life().number; now != before+1 {
			t.Errorf("the life is %d, was %d", now, before)
		}
	})
}
