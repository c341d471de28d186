package consensus

import (
	"context"
	"math/rand/v2"
	"path"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/starling-im/starling/wire"
)

func (c *cluster) doubtOf(name string) string { return c.host(name).Status()[0].Doubt }

// stays checks that something holds for a while.
func stays(t *testing.T, what string, d time.Duration, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if !ok() {
			t.Fatalf("no longer: %s", what)
		}
	}
}

func (c *cluster) noLeader(names ...string) func() bool {
	return func() bool {
		for _, name := range names {
			if c.host(name).Status()[0].State == "leader" {
				return false
			}
		}
		return true
	}
}

// TestTailOfLogLost damages the write-ahead log of one node after it was
// synced: it says so, does not help to elect anybody, and serves and votes
// again once it has caught up.
func TestTailOfLogLost(t *testing.T) {
	for name, change := range map[string]func([]byte) []byte{
		"truncated": cutTail(1500), "flipped": flipTail(1500),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, nil, "a", "b", "c")
				c.startAll(one)
				l := c.leader(1)
				for i := range 40 {
					c.mustPropose(l, 1, 1, "m"+itoa(i)+"-")
				}
				time.Sleep(2 * time.Second)
				want := history(t, c.host(l), 1)
				next := c.powerLoss(vfs.CrashCloneCfg{})
				c.stopAll()
				c = next
				c.damage("c", change)
				defer c.stopAll()
				c.start("b", one)
				c.start("c", one)
				if d := c.doubtOf("c"); d != behind.String() {
					t.Fatalf("c says %q", d)
				}
				if err := c.host("c").Read(1, func(Reader) {}); wire.Code(err) != wire.CodeUnavailable {
					t.Errorf("read of a replica that lost something: %v", err)
				}
				stays(t, "no leader without a", 20*time.Second, c.noLeader("b", "c"))
				c.start("a", one)
				c.leader(1)
				eventually(t, "c has caught up", func() bool { return c.doubtOf("c") == "" })
				eventually(t, "c has all", func() bool { return slices.Equal(history(t, c.host("c"), 1), want) })
				c.stop("a")
				c.mustPropose(c.leader(1), 1, 5, "after")
			})
		})
	}
}

// TestAllTailsLost shows that nobody but an operator goes on where all voters
// have lost what they had acknowledged.
func TestAllTailsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil, "a", "b", "c")
		c.startAll(one)
		c.leader(1)
		for i := range 40 {
			c.mustPropose("a", 1, 1, "m"+itoa(i)+"-")
		}
		time.Sleep(2 * time.Second)
		next := c.powerLoss(vfs.CrashCloneCfg{})
		c.stopAll()
		c = next
		for _, name := range c.names {
			c.damage(name, cutTail(1500))
		}
		c.startAll(one)
		defer c.stopAll()
		stays(t, "no leader", 30*time.Second, c.noLeader("a", "b", "c"))
		if _, err := c.host("a").Recover(2, begun); wire.Code(err) != wire.CodeNotLeader {
			t.Errorf("recover of an unknown group: %v", err)
		}
		if _, err := c.host("a").Recover(1, begun); err != nil {
			t.Errorf("recover: %v", err)
		}
		c.mustPropose(c.leader(1), 1, 5, "after")
		if _, err := c.host("a").Recover(1, begun); wire.Code(err) != wire.CodeConflict {
			t.Errorf("recover of a group that goes on: %v", err)
		}
		if n := len(history(t, c.host(c.leader(1)), 1)); n >= 46 || n < 7 {
			t.Errorf("%d commands", n)
		}
	})
}

// TestTipsAhead lets all nodes lose their power when the tips of a write are
// durable and the write is not. It was acknowledged by nobody, so the group
// goes on by itself, even if one node does not come back.
func TestTipsAhead(t *testing.T) {
	for name, up := range map[string][]string{"all": {"a", "b", "c"}, "two": {"b", "c"}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, acked := tipsAhead(t)
				defer c.stopAll()
				for _, name := range up {
					c.start(name, one)
					if d := c.doubtOf(name); d != unsure.String() {
						t.Errorf("%s says %q", name, d)
					}
				}
				l := c.leader(1)
				eventually(t, "barrier", func() bool { return c.host(l).Barrier(context.Background(), 1) == nil })
				if got := history(t, c.host(l), 1); !slices.Equal(got[:len(acked)], acked) {
					t.Errorf("%d commands of %d", len(got), len(acked))
				}
				c.mustPropose(l, 1, 5, "after")
				for _, name := range up {
					eventually(t, name+" is sure", func() bool { return c.doubtOf(name) == "" })
				}
			})
		})
	}
}

func tipsAhead(t *testing.T) (next *cluster, acked []string) {
	c := newCluster(t, func(cfg *Config) { cfg.Depth = 2 }, "a", "b", "c")
	disks := map[string]*stallingDisk{}
	for _, name := range c.names {
		disks[name] = newStallingDisk(c.nodes[name].fs, ".log")
		c.nodes[name].fs = disks[name]
	}
	c.startAll(one)
	c.leads("a")
	c.mustPropose("a", 1, 10, "m")
	time.Sleep(2 * time.Second)
	acked = history(t, c.host("a"), 1)
	unanswered := func(any, error) {}
	disks["b"].stall()
	disks["c"].stall()
	c.host("a").Propose(1, []byte("x"), unanswered)
	time.Sleep(10 * time.Millisecond)
	disks["a"].stall()
	c.host("a").Propose(1, []byte("y"), unanswered)
	time.Sleep(10 * time.Millisecond)
	next = c.powerLoss(vfs.CrashCloneCfg{})
	for _, d := range disks {
		d.resume()
	}
	c.stopAll()
	return next, acked
}

// TestLastWriteLost damages the very last write, which the tip does not know
// yet to have been durable: the node waits for who may have it.
func TestLastWriteLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil, "a", "b", "c")
		c.startAll(one)
		c.leads("a")
		c.mustPropose("a", 1, 10, "m")
		time.Sleep(2 * time.Second)
		c.isolate("c", true)
		c.mustPropose("a", 1, 1, "last")
		next := c.powerLoss(vfs.CrashCloneCfg{})
		c.stopAll()
		c = next
		c.damage("b", cutTail(30))
		defer c.stopAll()
		c.start("b", one)
		c.start("c", one)
		if d := c.doubtOf("b"); d != unsure.String() {
			t.Fatalf("b says %q", d)
		}
		stays(t, "no leader without a", unsureFor/2, c.noLeader("b", "c"))
		c.start("a", one)
		l := c.leader(1)
		eventually(t, "barrier", func() bool { return c.host(l).Barrier(context.Background(), 1) == nil })
		if got := history(t, c.host(l), 1); len(got) != 11 || got[10] != "last0" {
			t.Errorf("history is %q", got)
		}
	})
}

func TestTipFiles(t *testing.T) {
	fs := vfs.NewMem()
	if err := fs.MkdirAll("d", 0o700); err != nil {
		t.Fatal(err)
	}
	fail := func(err error) error { t.Error(err); return err }
	open := func(known bool) *guard {
		g, err := openGuard(fs, "d", known, fail)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	g := open(false)
	at := g.tip(7)
	g.change(func() { at.writes, at.synced, at.entry, at.term, at.doubt = 5, 4, logID{2, 9}, 3, unsure })
	g.change(func() { at.writes = 6 })
	newest := g.generation % 2
	if err := g.close(); err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, nodes: map[string]*node{"a": {fs: fs}}}
	c.rewrite("a", "d/tip."+itoa(int(newest)), cutTail(3))
	g = open(true)
	if at := g.tips[7]; at == nil || at.writes != 5 || at.synced != 4 || at.entry != (logID{2, 9}) || at.term != 3 || at.doubt != unsure {
		t.Errorf("after a torn write: %+v", at)
	}
	if g.life != 2 || g.lost != 0 {
		t.Errorf("life %d, lost %d", g.life, g.lost)
	}
	if err := g.close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"d/tip.0", "d/tip.1"} {
		c.rewrite("a", name, flipTail(5))
	}
	if g = open(true); g.lost == 0 || len(g.tips) != 0 {
		t.Errorf("both files damaged: lost %d, %d tips", g.lost, len(g.tips))
	}
	if err := g.close(); err != nil {
		t.Fatal(err)
	}
	c.rewrite("a", "d/tip.0", func(b []byte) []byte { b[4] = guardVersion + 1; return b })
	if _, err := openGuard(fs, "d", true, fail); wire.Code(err) != wire.CodeNewerFormat {
		t.Errorf("file of a newer release: %v", err)
	}
}

// TestVoteLost loses a vote with the tail of the log: it is not given again.
func TestVoteLost(t *testing.T) {
	c := newCluster(t, nil, "a")
	h, err := c.open("a")
	if err != nil {
		t.Fatal(err)
	}
	fs := c.nodes["a"].fs.(*vfs.MemFS)
	before := fs.CrashClone(vfs.CrashCloneCfg{})
	v := &stableStore{s: h.s, group: 7}
	_ = v.SetUint64([]byte(voteTermKey), 4)
	if err := v.Set([]byte(voteCandKey), []byte("a")); err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	// The database of before, the tips of after.
	names, err := before.List("data/db")
	if err != nil {
		t.Fatal(err)
	}
	all, _ := fs.List("data/db")
	for _, name := range all {
		_ = fs.Remove(path.Join("data/db", name))
	}
	for _, name := range names {
		if err := vfs.CopyAcrossFS(before, path.Join("data/db", name), fs, path.Join("data/db", name)); err != nil {
			t.Fatal(err)
		}
	}
	if h, err = c.open("a"); err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.Start(Group{ID: 7, Voters: []string{"a", "b", "c"}}); err != nil {
		t.Fatal(err)
	}
	v = h.group(7).stable
	term, _ := v.GetUint64([]byte(voteTermKey))
	current, _ := v.GetUint64([]byte(currentTermKey))
	cand, _ := v.Get([]byte(voteCandKey))
	if term != 4 || current != 4 || cand == nil || string(cand) == "a" {
		t.Errorf("term %d, vote of term %d for %q", current, term, cand)
	}
}

// TestTailsAtRandom cuts synced logs anywhere, one node after the other: all
// that was acknowledged stays.
func TestTailsAtRandom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(3, 4))
		c := newCluster(t, quickSnapshots, "a", "b", "c")
		acked := map[string]uint64{}
		noticed := 0
		for round := range 12 {
			c.startAll(one)
			l := c.leader(1)
			for _, name := range c.names {
				if c.doubtOf(name) == behind.String() {
					noticed++
				}
			}
			for _, name := range c.names {
				eventually(t, name+" is sure", func() bool { return c.doubtOf(name) == "" })
			}
			if lost := missing(t, c, l, acked); len(lost) > 0 {
				t.Fatalf("round %d: %s", round, some(lost))
			}
			o := load(c, l, round, acked)
			time.Sleep(time.Duration(100+rng.IntN(200)) * time.Millisecond)
			acked = o.acked()
			next := c.powerLoss(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(100), RNG: rng})
			c.stopAll()
			o.end()
			c = next
			n := rng.IntN(3000)
			c.damage(c.names[round%3], func(b []byte) []byte { return b[:max(len(b)-n, 0)] })
		}
		if noticed == 0 {
			t.Error("no loss was noticed")
		}
		t.Logf("%d losses noticed", noticed)
	})
}

// TestAckWaitsForTip shows that nothing is acknowledged before its tip is durable.
func TestAckWaitsForTip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil, "a")
		disk := newStallingDisk(c.nodes["a"].fs, "tip.")
		c.nodes["a"].fs = disk
		c.startAll(alone)
		defer c.stopAll()
		c.leader(1)
		disk.stall()
		var acked atomic.Bool
		c.host("a").Propose(1, []byte("x"), func(_ any, err error) { acked.Store(err == nil) })
		stays(t, "waiting", time.Second, func() bool { return !acked.Load() })
		disk.resume()
		eventually(t, "acked", acked.Load)
	})
}
