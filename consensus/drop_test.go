package consensus

import (
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// TestDropInterrupted breaks off a drop at each of its writes. After a restart
// the group is there whole or not at all, and its node can join again.
func TestDropInterrupted(t *testing.T) {
	whole, gone := 0, 0
	for at := int64(1); ; at++ {
		ended := false
		synctest.Test(t, func(t *testing.T) { ended = interruptDrop(t, at, &whole, &gone) })
		if ended || t.Failed() {
			break
		}
	}
	if whole == 0 || gone < 2 {
		t.Errorf("%d whole, %d gone: the drop was not broken off where it matters", whole, gone)
	}
}

func interruptDrop(t *testing.T, at int64, whole, gone *int) (ended bool) {
	c := newCluster(t, joining, "a", "b", "c")
	disk := c.nodes["c"].fs.(*vfs.MemFS)
	var armed atomic.Bool
	var writes atomic.Int64
	c.nodes["c"].fs = errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if armed.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && writes.Add(1) >= at {
			return syscall.EIO
		}
		return nil
	}))
	c.startAll(one)
	defer c.stopAll()
	c.leader(1)
	c.mustPropose("a", 1, 10, "m")
	// Who is removed may never hear that the last entries are committed.
	eventually(t, "c has applied all", func() bool { return len(history(t, c.host("c"), 1)) == 10 })
	c.remove("c")
	eventually(t, "c knows that it is out", func() bool { return c.host("c").group(1).status().Removed })
	// What was applied is durable with the next durable write only.
	if err := c.host("c").s.set([]byte{tableFormat, 'g'}, []byte{guardVersion}); err != nil {
		t.Fatal(err)
	}
	armed.Store(true)
	err := c.host("c").Drop(1)
	c.isolate("c", true)
	after := disk.CrashClone(vfs.CrashCloneCfg{})
	armed.Store(false)
	c.stop("c")
	c.nodes["c"].fatal = nil
	c.nodes["c"].fs = after
	c.isolate("c", false)
	c.start("c")
	held, heldErr := c.host("c").Held()
	switch {
	case heldErr != nil:
		t.Error(heldErr)
	case len(held) == 0:
		*gone++
		c.begins(t, "c", 10)
	case err == nil:
		t.Errorf("dropped, and still held: %v", held)
	default:
		*whole++
		if !slices.Equal(held, []uint32{1}) {
			t.Errorf("held %v", held)
		}
		if err := c.host("c").Start(one); err != nil {
			t.Fatal(err)
		}
		if n := len(history(t, c.host("c"), 1)); n != 10 {
			t.Errorf("%d commands of a drop that did not happen", n)
		}
	}
	return err == nil
}
