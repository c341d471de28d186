package consensus

import (
	"errors"
	"io"
	"path"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// powerLoss returns a cluster on what the disks held at this moment, and ends
// the old one.
func (c *cluster) powerLoss(cfg vfs.CrashCloneCfg) *cluster {
	for _, name := range c.names {
		c.isolate(name, true)
	}
	next := newCluster(c.t, c.config, c.names...)
	for _, name := range c.names {
		next.nodes[name].fs = memory(c.nodes[name].fs).CrashClone(cfg)
	}
	return next
}

// memory returns the disk in memory below a wrapper.
func memory(fs vfs.FS) *vfs.MemFS {
	for {
		if m, ok := fs.(*vfs.MemFS); ok {
			return m
		}
		fs = fs.(interface{ Unwrap() vfs.FS }).Unwrap()
	}
}

// damage changes the end of the newest write-ahead log of a node that is down.
func (c *cluster) damage(name string, change func([]byte) []byte) {
	c.t.Helper()
	fs := c.nodes[name].fs
	names, err := fs.List("data/db")
	if err != nil {
		c.t.Fatal(err)
	}
	logs := slices.DeleteFunc(names, func(n string) bool { return !strings.HasSuffix(n, ".log") })
	slices.Sort(logs)
	c.rewrite(name, path.Join("data/db", logs[len(logs)-1]), change)
}

func (c *cluster) rewrite(name, file string, change func([]byte) []byte) {
	c.t.Helper()
	fs := c.nodes[name].fs
	f, err := fs.Open(file)
	if err != nil {
		c.t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close()); err != nil {
		c.t.Fatal(err)
	}
	w, err := fs.Create(file, vfs.WriteCategoryUnspecified)
	if err != nil {
		c.t.Fatal(err)
	}
	_, err = w.Write(change(b))
	if err = errors.Join(err, w.Sync(), w.Close()); err != nil {
		c.t.Fatal(err)
	}
}

func cutTail(n int) func([]byte) []byte {
	return func(b []byte) []byte { return b[:len(b)-n] }
}

func flipTail(n int) func([]byte) []byte {
	return func(b []byte) []byte {
		b[len(b)-n] ^= 4
		return b
	}
}

// stallingDisk is a disk on which the syncs of some files can be made to hang.
type stallingDisk struct {
	vfs.FS
	hang atomic.Pointer[chan struct{}]
}

func newStallingDisk(fs vfs.FS, files string) *stallingDisk {
	d := &stallingDisk{}
	d.FS = errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		sync := op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo
		if hang := d.hang.Load(); hang != nil && sync && strings.Contains(op.Path, files) {
			<-*hang
		}
		return nil
	}))
	return d
}

func (d *stallingDisk) Unwrap() vfs.FS { return d.FS.(*errorfs.FS).Unwrap() }

func (d *stallingDisk) stall() {
	c := make(chan struct{})
	d.hang.Store(&c)
}

func (d *stallingDisk) resume() {
	if c := d.hang.Swap(nil); c != nil {
		close(*c)
	}
}
