package consensus

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"github.com/starling-im/starling/wire"
)

func TestRestartFromDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil, "a", "b", "c")
		c.startAll(one)
		defer c.stopAll()
		c.mustPropose(c.leader(1), 1, 100, "m")
		want := history(t, c.host("a"), 1)
		c.stopAll()
		start := time.Now()
		c.startAll(one)
		l := c.leader(1)
		if took := time.Since(start); took > time.Second {
			t.Errorf("back after %v", took)
		}
		c.mustPropose(l, 1, 10, "later")
		if got := history(t, c.host(l), 1); !slices.Equal(got[:100], want) || len(got) != 110 {
			t.Errorf("%d commands after the restart", len(got))
		}
	})
}

func TestLeaderLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil, "a", "b", "c")
		c.startAll(one)
		defer c.stopAll()
		c.mustPropose(c.leader(1), 1, 50, "m") // a, whom the test prefers
		c.isolate("a", true)
		start := time.Now()
		l := c.leader(1, "a")
		if took := time.Since(start); took > 3*3*time.Second {
			t.Errorf("another leader after %v", took)
		}
		c.mustPropose(l, 1, 50, "n")
		if err := c.host("a").Barrier(context.Background(), 1); err == nil {
			t.Error("a cut-off leader serves linearizable reads")
		}
		if _, err := c.propose("a", 1, "lost"); err == nil {
			t.Error("a cut-off leader acknowledges")
		}
		c.isolate("a", false)
		eventually(t, "the old leader catches up", func() bool { return len(history(t, c.host("a"), 1)) == 100 })
	})
}

// TestOrderAcrossRefusals proposes numbered commands without waiting while
// leadership moves about: those that took effect must be in order on each node.
func TestOrderAcrossRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, func(cfg *Config) { cfg.Depth = 4 }, "a", "b", "c")
		c.startAll(one)
		defer c.stopAll()
		c.leader(1)
		var wg sync.WaitGroup
		answered := map[string]*[]int{"a": {}, "b": {}, "c": {}}
		for i := range 3000 {
			for _, name := range c.names {
				wg.Add(1)
				c.host(name).Propose(1, fmt.Appendf(nil, "%s/%06d", name, i), func(_ any, _ error) {
					*answered[name] = append(*answered[name], i)
					wg.Done()
				})
			}
			if i%20 == 0 {
				time.Sleep(time.Millisecond)
			}
			if i%500 == 250 {
				g := c.host(c.leader(1)).group(1)
				g.instance().LeadershipTransfer()
			}
		}
		wg.Wait()
		for name, order := range answered {
			if !slices.IsSorted(*order) || len(*order) != 3000 {
				t.Errorf("%s: answers out of order", name)
			}
		}
		last, took := map[byte]string{}, 0
		for _, cmd := range history(t, c.host(c.leader(1)), 1) {
			if cmd <= last[cmd[0]] {
				t.Errorf("%s after %s", cmd, last[cmd[0]])
			}
			last[cmd[0]] = cmd
			took++
		}
		t.Logf("%d of 9000 took effect", took)
	})
}

func TestSnapshotToLaggard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, quickSnapshots, "a", "b", "c")
		c.startAll(one)
		defer c.stopAll()
		l := c.leader(1)
		c.mustPropose(l, 1, 20, "m")
		c.isolate("c", true)
		for i := range 10 {
			for range 20 {
				c.mustPropose(l, 1, 1, fmt.Sprintf("n%d-%d-", i, rand.Uint64()))
			}
			time.Sleep(200 * time.Millisecond)
		}
		first, _ := c.host(l).group(1).logs.FirstIndex()
		last, _ := c.host("c").group(1).logs.LastIndex()
		if first <= last+1 {
			t.Fatalf("leader's log begins at %d, c ends at %d: no need for a snapshot", first, last)
		}
		c.isolate("c", false)
		want := history(t, c.host(l), 1)
		eventually(t, "c has caught up", func() bool { return slices.Equal(history(t, c.host("c"), 1), want) })
		if c.nodes["c"].machines[1].restored == 0 {
			t.Error("c caught up without a snapshot")
		}
		c.mustPropose(l, 1, 20, "after")
		c.stop("c")
		c.start("c", one)
		eventually(t, "c follows on", func() bool { return len(history(t, c.host("c"), 1)) == len(want)+20 })
		if names, _ := c.nodes["c"].fs.List(c.host("c").snapshotDir()); len(names) > 0 {
			t.Errorf("files stay: %v", names)
		}
	})
}

func TestTornVote(t *testing.T) {
	fs := vfs.NewCrashableMem()
	open := func(fs vfs.FS) *store {
		s, err := openStore(Config{Dir: "data", FS: fs}.withDefaults(), func(err error) { t.Error(err) })
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	vote := func(s *stableStore) (uint64, string) {
		term, err := s.GetUint64([]byte(voteTermKey))
		if err != nil {
			t.Fatal(err)
		}
		cand, err := s.Get([]byte(voteCandKey))
		if err != nil {
			t.Fatal(err)
		}
		return term, string(cand)
	}
	s := open(fs)
	v := &stableStore{s: s, group: 7}
	_ = v.SetUint64([]byte(voteTermKey), 3)
	_ = v.Set([]byte(voteCandKey), []byte("a"))
	_ = v.SetUint64([]byte(voteTermKey), 4)
	torn := open(fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))}))
	if term, cand := vote(&stableStore{s: torn, group: 7}); term != 3 || cand != "a" {
		t.Errorf("a crash between term and candidate leaves the vote %d for %q", term, cand)
	}
	_ = v.Set([]byte(voteCandKey), []byte("b"))
	whole := open(fs.CrashClone(vfs.CrashCloneCfg{}))
	if term, cand := vote(&stableStore{s: whole, group: 7}); term != 4 || cand != "b" {
		t.Errorf("the vote did not last: %d for %q", term, cand)
	}
	for _, s := range []*store{s, torn, whole} {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}
}

func TestFolderErrors(t *testing.T) {
	c := newCluster(t, nil, "a")
	h, err := c.open("a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.open("a"); !errors.Is(err, ErrLocked) {
		t.Errorf("second open: %v", err)
	}
	if err := h.s.set([]byte{tableFormat}, []byte{storeVersion + 1}); err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.open("a"); wire.Code(err) != wire.CodeNewerFormat {
		t.Errorf("newer folder: %v", err)
	}
}

func TestLockedOnDisk(t *testing.T) {
	c := newCluster(t, nil, "a")
	c.nodes["a"].fs, c.nodes["a"].dir = vfs.Default, t.TempDir()
	h, err := c.open("a")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if _, err := c.open("a"); !errors.Is(err, ErrLocked) {
		t.Errorf("second open: %v", err)
	}
}

// TestInterruptedInstall starts a group that was left in the middle of a snapshot.
func TestInterruptedInstall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil, "a")
		solo := Group{ID: 1, Voters: []string{"a"}}
		c.startAll(solo)
		c.mustPropose(c.leader(1), 1, 100, "m")
		g := c.host("a").group(1)
		want := history(t, c.host("a"), 1)
		if err := g.snaps.export("1-1.received"); err != nil {
			t.Fatal(err)
		}
		conf := g.instance().GetConfiguration().Configuration()
		mark := encodeMeta(newMeta(g.fsm.position().index, 2, conf, 1), "1-1.received")
		b := g.h.s.db.NewBatch()
		_ = b.Set(key(tableMeta, 1, restoringKey), mark, nil)
		_ = b.DeleteRange(key(tableData, 1, "k"), tableEnd(tableData, 1), nil)
		if err := g.h.s.commit(b, pebble.Sync); err != nil {
			t.Fatal(err)
		}
		c.stop("a")
		c.start("a", solo)
		if got := history(t, c.host("a"), 1); !slices.Equal(got, want) {
			t.Errorf("%d commands after the install went on", len(got))
		}
		c.mustPropose(c.leader(1), 1, 1, "next")
		if err := c.host("a").s.set(key(tableMeta, 1, restoringKey), mark); err != nil {
			t.Fatal(err)
		}
		c.stop("a")
		h, err := c.open("a")
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		if err := h.Start(solo); !errors.Is(err, ErrHalfRestored) {
			t.Errorf("without the file: %v", err)
		}
	})
}

func TestNewerEntryStops(t *testing.T) {
	c := newCluster(t, nil, "a")
	h, err := c.open("a")
	if err != nil {
		t.Fatal(err)
	}
	f := &fsm{s: h.s, group: 1, m: &counter{}}
	e := entry{commands: [][]byte{[]byte("x")}}.encode()
	e[0]++
	if r := f.ApplyBatch([]*raft.Log{{Index: 1, Term: 1, Type: raft.LogCommand, Data: e}}); r[0] != nil {
		t.Error("applied")
	}
	if wire.Code(c.nodes["a"].fatal) != wire.CodeNewerFormat {
		t.Errorf("fatal: %v", c.nodes["a"].fatal)
	}
	h.Propose(1, nil, func(_ any, err error) {
		if err == nil {
			t.Error("accepted")
		}
	})
	_ = h.Close()
}

// TestChain shows that an entry is void unless the one before it took effect.
func TestChain(t *testing.T) {
	c := newCluster(t, nil, "a")
	h, err := c.open("a")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	f := &fsm{s: h.s, group: 1, m: &counter{}}
	for i, e := range []struct {
		epoch, number uint64
		void          bool
	}{{1, 0, false}, {1, 1, false}, {1, 3, true}, {1, 2, false}, {2, 1, true}, {2, 0, false}, {1, 3, true}} {
		data := entry{epoch: e.epoch, number: e.number, commands: [][]byte{binary.BigEndian.AppendUint64(nil, uint64(i))}}.encode()
		r := f.ApplyBatch([]*raft.Log{{Index: uint64(i + 1), Term: 1, Type: raft.LogCommand, Data: data}})
		if o := r[0].(*outcome); o.void != e.void {
			t.Errorf("entry %d: void %v", i, o.void)
		}
	}
}

// TestSnapshotUnasked sends a follower a snapshot behind the leader's back: if
// it has what that covers, its log must stay, else the leader's requests that
// were under way must do no harm.
func TestSnapshotUnasked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil, "a", "b", "c")
		c.startAll(one)
		defer c.stopAll()
		l := c.leader(1)
		for range 10 {
			c.mustPropose(l, 1, 1, fmt.Sprint(rand.Uint64(), "-"))
		}
		g := c.host(l).group(1)
		if err := g.instance().Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			c.mustPropose(l, 1, 1, fmt.Sprint(rand.Uint64(), "-"))
		}
		meta, data, err := g.snaps.Open(g.snaps.meta.ID)
		if err != nil {
			t.Fatal(err)
		}
		defer data.Close()
		var resp raft.InstallSnapshotResponse
		err = g.trans.InstallSnapshot("b", "b", &raft.InstallSnapshotRequest{
			Term: g.instance().CurrentTerm(), LastLogIndex: meta.Index, LastLogTerm: meta.Term, Size: meta.Size,
			Configuration: raft.EncodeConfiguration(meta.Configuration), ConfigurationIndex: meta.ConfigurationIndex,
		}, &resp, data)
		if err != nil || !resp.Success {
			t.Fatal(resp, err)
		}
		want, _ := g.logs.LastIndex()
		eventually(t, "b has the log", func() bool { last, _ := c.host("b").group(1).logs.LastIndex(); return last == want })
		first, _ := c.host("b").group(1).logs.FirstIndex()
		if restored := c.nodes["b"].machines[1].restored > 0; restored != (first != 1) {
			t.Errorf("b's log begins at %d, restored %v", first, restored)
		}
		c.mustPropose(l, 1, 10, "after")
	})
}

func TestRebase(t *testing.T) {
	entries := func(from, to uint64) (l []*raft.Log) {
		for i := from; i <= to; i++ {
			l = append(l, &raft.Log{Index: i, Term: 3})
		}
		return l
	}
	for _, c := range []struct {
		first, prev, from, to    uint64
		wantPrev, wantN, wantOne uint64
	}{
		{11, 10, 11, 12, 10, 2, 11}, // follows the snapshot
		{11, 12, 13, 14, 12, 2, 13},
		{11, 8, 9, 12, 10, 2, 11},
		{11, 0, 1, 12, 10, 2, 11},
		{0, 3, 4, 5, 10, 0, 0},
		{11, 0, 1, 0, 0, 0, 0}, // a heartbeat
		{5, 8, 9, 12, 8, 4, 9}, // the log has what was before
	} {
		l := &logStore{first: c.first, floor: raft.Log{Index: 10, Term: 2}}
		r := &raft.AppendEntriesRequest{PrevLogEntry: c.prev, Entries: entries(c.from, c.to)}
		l.rebase(r)
		one := uint64(0)
		if len(r.Entries) > 0 {
			one = r.Entries[0].Index
		}
		if r.PrevLogEntry != c.wantPrev || uint64(len(r.Entries)) != c.wantN || one != c.wantOne {
			t.Errorf("%+v: prev %d, %d entries from %d", c, r.PrevLogEntry, len(r.Entries), one)
		}
	}
}
