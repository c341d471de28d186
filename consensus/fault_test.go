package consensus

import (
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/hashicorp/raft"

	"github.com/starling-im/starling/wire"
)

// failing wraps a disk such that, once broken, operations of some kinds on some
// files fail.
func failing(fs vfs.FS, broken *atomic.Bool, files string, err error, kinds ...errorfs.OpKind) vfs.FS {
	return errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && strings.Contains(op.Path, files) {
			for _, kind := range kinds {
				if op.Kind == kind {
					return err
				}
			}
		}
		return nil
	}))
}

// cutShort is a disk that, once broken, writes a part of what it is given to
// the write-ahead log.
type cutShort struct {
	vfs.FS
	broken *atomic.Bool
}

func (d cutShort) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.FS.Create(name, category)
	if err != nil || !strings.HasSuffix(name, ".log") {
		return f, err
	}
	return cutShortFile{f, d.broken}, nil
}

type cutShortFile struct {
	vfs.File
	broken *atomic.Bool
}

func (f cutShortFile) Write(b []byte) (int, error) {
	if !f.broken.Load() {
		return f.File.Write(b)
	}
	n, err := f.File.Write(b[:len(b)/2])
	return n, errors.Join(err, io.ErrShortWrite)
}

// TestDiskFails breaks the disk of the leader, in several ways: its process
// would end with the reason, and the others go on without losing anything. What
// the broken disk holds is good for a start.
func TestDiskFails(t *testing.T) {
	syncs := []errorfs.OpKind{errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo}
	for name, fault := range map[string]struct {
		disk func(vfs.FS, *atomic.Bool) vfs.FS
		err  error
	}{
		"sync fails": {func(fs vfs.FS, b *atomic.Bool) vfs.FS { return failing(fs, b, ".log", syscall.EIO, syncs...) }, syscall.EIO},
		"disk full": {func(fs vfs.FS, b *atomic.Bool) vfs.FS {
			return failing(fs, b, ".log", syscall.ENOSPC, errorfs.OpFileWrite)
		}, syscall.ENOSPC},
		"short write":    {func(fs vfs.FS, b *atomic.Bool) vfs.FS { return cutShort{fs, b} }, io.ErrShortWrite},
		"tip not synced": {func(fs vfs.FS, b *atomic.Bool) vfs.FS { return failing(fs, b, "tip.", syscall.EIO, syncs...) }, syscall.EIO},
		"tip not written": {func(fs vfs.FS, b *atomic.Bool) vfs.FS {
			return failing(fs, b, "tip.", syscall.ENOSPC, errorfs.OpFileWriteAt)
		}, syscall.ENOSPC},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, nil, "a", "b", "c")
				var broken atomic.Bool
				mem := c.nodes["a"].fs.(*vfs.MemFS)
				c.nodes["a"].fs = fault.disk(mem, &broken)
				c.startAll(one)
				defer c.stopAll()
				c.leads("a")
				c.mustPropose("a", 1, 100, "m")
				time.Sleep(time.Second)
				broken.Store(true)
				if _, err := c.propose("a", 1, "x"); err == nil {
					t.Error("acknowledged on a broken disk")
				}
				endsWith(t, c, fault.err)
				if _, err := c.propose("a", 1, "y"); wire.Code(err) == "" || err == nil {
					t.Errorf("after the fault: %v", err)
				}
				l := c.leader(1, "a")
				c.mustPropose(l, 1, 10, "n")
				if got := history(t, c.host(l), 1); len(got) < 110 || got[99] != "m99" {
					t.Errorf("%d commands", len(got))
				}
				c.stop("a")
				c.nodes["a"].fs = mem.CrashClone(vfs.CrashCloneCfg{})
				c.start("a", one)
				eventually(t, "a is back", func() bool { return len(history(t, c.host("a"), 1)) >= 110 && c.doubtOf("a") == "" })
			})
		})
	}
}

// endsWith waits for the end of the process of a, and clears it.
func endsWith(t *testing.T, c *cluster, reason error) {
	t.Helper()
	n := c.nodes["a"]
	eventually(t, "the process would end", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return errors.Is(n.fatal, reason)
	})
}

// TestReadFails shows that a block that cannot be read ends the process: what
// a machine would make of a missing value, nobody knows.
func TestReadFails(t *testing.T) {
	c := newCluster(t, nil, "a")
	var broken atomic.Bool
	c.nodes["a"].fs = failing(c.nodes["a"].fs, &broken, ".sst", syscall.EIO, errorfs.OpFileReadAt, errorfs.OpFileRead)
	c.startAll(alone)
	defer c.stopAll()
	c.leader(1)
	c.mustPropose("a", 1, 100, "m")
	if err := c.host("a").s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	broken.Store(true)
	err := c.host("a").Read(1, func(r Reader) {
		r.Scan(nil, nil, func(_, _ []byte) bool { return true })
		t.Error("read from a broken disk")
	})
	if wire.Code(err) != wire.CodeUnavailable {
		t.Errorf("read: %v", err)
	}
	endsWith(t, c, syscall.EIO)
	if _, err := c.propose("a", 1, "x"); err == nil {
		t.Error("acknowledged after the fault")
	}
}

// TestCutOffNodeDisturbsNobody shows that a node that hears of no leader raises
// no term, as it asks for pre-votes first.
func TestCutOffNodeDisturbsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil, "a", "b", "c")
		c.startAll(one)
		defer c.stopAll()
		l := c.leader(1)
		c.mustPropose(l, 1, 10, "m")
		c.isolate("c", true)
		before := c.host(l).Status()[0]
		time.Sleep(time.Minute)
		c.isolate("c", false)
		eventually(t, "c follows", func() bool { return c.host("c").Leader(1) == l })
		if after := c.host(l).Status()[0]; after.Term != before.Term || after.State != "leader" {
			t.Errorf("%s in term %d, was in %d", after.State, after.Term, before.Term)
		}
	})
}

// TestRaftIsTold holds what Raft asks of its parts.
func TestRaftIsTold(t *testing.T) {
	c := newCluster(t, nil, "a")
	c.startAll(alone)
	defer c.stopAll()
	c.leader(1)
	g := c.host("a").group(1)
	if !g.logs.IsMonotonic() {
		t.Error("a log that does not say that it must have no holes")
	}
	g.trans.SetHeartbeatHandler(func(raft.RPC) { t.Error("a heartbeat went past Raft's main loop") })
	if !g.inbox.push(c.host("a").peer("b"), appendMessage(1, 0, &raft.AppendEntriesRequest{})) {
		t.Error("the inbox takes no heartbeat")
	}
	eventually(t, "the heartbeat is handled", func() bool {
		g.inbox.mu.Lock()
		defer g.inbox.mu.Unlock()
		return !g.inbox.busy
	})
}

// TestCommitsWhatIsShown tells a replica with an entry that nobody else has of a
// commit at its place, before it gets the entry that is there: the request shows
// nothing of that one, so nothing is applied.
func TestCommitsWhatIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil, "a", "b", "c")
		c.startAll(one)
		defer c.stopAll()
		c.leads("a")
		c.mustPropose("a", 1, 10, "m")
		time.Sleep(time.Second)
		before := c.host("a").Status()[0]
		last := c.host("a").group(1).instance().LastIndex()

		c.isolate("a", true)
		if _, err := c.propose("a", 1, "x"); err == nil {
			t.Fatal("a commits alone")
		}
		l := c.leader(1, "a")
		c.mustPropose(l, 1, 10, "n")

		a := c.host("a")
		beat := &wire.Beat{Group: 1, Term: c.host(l).Status()[0].Term, PrevLogIndex: last, PrevLogTerm: before.Term, LeaderCommit: last + 1}
		a.group(1).inbox.pushBeat(a.peer(l), 1, beat)
		eventually(t, "a takes the leader's word", func() bool { return a.Leader(1) == l })
		if got := len(history(t, a, 1)); got != 10 {
			t.Errorf("a has applied %d commands, not 10", got)
		}
		c.isolate("a", false)
		if lost := missing(t, c, l, nil); len(lost) > 0 {
			t.Error(some(lost))
		}
	})
}
