package consensus

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/hashicorp/raft"
)

// fill writes so many bytes of records, which do not compress, into a group, as
// applies would.
func fill(t testing.TB, h *Host, group uint32, bytes int) {
	t.Helper()
	chance := rand.NewChaCha8([32]byte{1})
	value := make([]byte, 4<<10)
	b := h.s.db.NewBatch()
	for n := uint64(0); bytes > 0; n++ {
		_, _ = chance.Read(value)
		_ = b.Set(key(tableData, group, string(binary.BigEndian.AppendUint64(nil, n))), value, nil)
		bytes -= len(value)
		if b.Len() >= importBytes || bytes <= 0 {
			_ = b.Set(key(tableMeta, group, positionKey), position{index: 100, term: 1}.encode(), nil)
			if err := h.s.commit(b, pebble.NoSync); err != nil {
				t.Fatal(err)
			}
			b = h.s.db.NewBatch()
		}
	}
}

// moveSnapshot exports group 1 of one host and takes it over at another.
func moveSnapshot(t testing.TB, from, to *Host) (bytes int64) {
	t.Helper()
	a := from.group(1).snaps
	if err := a.export("1-1.export"); err != nil {
		t.Fatal(err)
	}
	info, err := from.cfg.FS.Stat(a.path("1-1.export"))
	if err != nil {
		t.Fatal(err)
	}
	takeSnapshot(t, to, a.path("1-1.export"))
	return info.Size()
}

// takeSnapshot does what a replica does with a file that it has received.
func takeSnapshot(t testing.TB, h *Host, file string) {
	t.Helper()
	snaps := h.group(1).snaps
	if err := h.cfg.FS.Rename(file, snaps.path("1-1.received")); err != nil {
		t.Fatal(err)
	}
	if err := snaps.verify("1-1.received"); err != nil {
		t.Fatal(err)
	}
	snaps.received = &received{"1-1.received", newMeta(100, 1, raft.Configuration{}, 1)}
	if err := h.group(1).fsm.Restore(nil); err != nil {
		t.Fatal(err)
	}
}

// peak samples a size until stopped, and returns the largest.
func peak(sample func() uint64) (stop func() uint64) {
	var most atomic.Uint64
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			most.Store(max(most.Load(), sample()))
			select {
			case <-tick.C:
			case <-quit:
				return
			}
		}
	}()
	return func() uint64 { close(quit); <-done; return most.Load() }
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// twoHosts are a source and a target of a snapshot, on a disk in dir.
func twoHosts(t testing.TB, fs vfs.FS, dir string) (c *cluster) {
	c = newCluster(t, func(cfg *Config) {
		cfg.FS = fs
		cfg.Machine = func(uint32) Machine { return &plain{} }
	}, "a", "b")
	for _, name := range c.names {
		c.nodes[name].dir = filepath.Join(dir, name)
		c.start(name, Group{ID: 1})
	}
	return c
}

// TestSnapshotOfBigGroup moves 64 MiB, on a disk and with the small tables of
// tests, through far less memory.
func TestSnapshotOfBigGroup(t *testing.T) {
	const size, bound = 64 << 20, 60 << 20
	c := twoHosts(t, errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(errorfs.Op) error { return nil })), t.TempDir())
	defer c.stopAll()
	fill(t, c.host("a"), 1, size)
	runtime.GC()
	before, stop := heap(), peak(heap)
	moved := moveSnapshot(t, c.host("a"), c.host("b"))
	most := stop()
	t.Logf("%d MiB moved with %d MiB of memory", moved>>20, (most-before)>>20)
	if moved < size {
		t.Errorf("a snapshot of %d bytes, want %d: the test proves nothing", moved, size)
	}
	if most > before+bound {
		t.Errorf("it took %d MiB of memory", (most-before)>>20)
	}
	n := 0
	if err := c.host("b").Read(1, func(r Reader) { r.Scan(nil, nil, func(_, _ []byte) bool { n++; return true }) }); err != nil || n != size/(4<<10) {
		t.Errorf("%d records arrived, %v", n, err)
	}
}

// BenchmarkSnapshot moves 5 GiB, with the tables of a node, in three steps that
// are made by a process each: fill, export, take. The folder is STARLING_DATA. It
// is make measure-snapshot.
func BenchmarkSnapshot(b *testing.B) {
	const size = 5 << 30
	dir := os.Getenv("STARLING_DATA")
	if dir == "" || b.N > 1 {
		return
	}
	step := func(node, name string, fn func(h *Host)) {
		b.Run(name, func(b *testing.B) {
			c := newCluster(b, func(cfg *Config) {
				cfg.FS, cfg.Dir = vfs.Default, filepath.Join(dir, node)
				cfg.Machine = func(uint32) Machine { return &plain{} }
			}, node)
			c.start(node, Group{ID: 1})
			defer c.host(node).Close() // which waits for Pebble to tidy up
			start, stop := time.Now(), peak(resident)
			fn(c.host(node))
			took := time.Since(start).Seconds()
			b.ReportMetric(size/float64(1<<30), "GiB")
			b.ReportMetric(took, "s")
			b.ReportMetric(size/took/(1<<20), "MiB/s")
			b.ReportMetric(float64(stop())/(1<<20), "MiB-resident")
			b.ReportMetric(0, "ns/op")
		})
	}
	file := filepath.Join(dir, "snapshot")
	step("a", "fill", func(h *Host) { fill(b, h, 1, size) })
	step("a", "export", func(h *Host) {
		if err := h.group(1).snaps.export("1-1.export"); err != nil {
			b.Fatal(err)
		}
		if err := os.Rename(h.group(1).snaps.path("1-1.export"), file); err != nil {
			b.Fatal(err)
		}
	})
	step("b", "take", func(h *Host) {
		link := file + ".taken" // the file stays for another try
		_ = os.Remove(link)
		if err := os.Link(file, link); err != nil {
			b.Fatal(err)
		}
		takeSnapshot(b, h, link)
	})
}

// resident is the memory of this process, in bytes.
func resident() uint64 {
	text, _ := os.ReadFile("/proc/self/statm")
	var size, pages uint64
	_, _ = fmt.Sscan(string(text), &size, &pages)
	return pages * uint64(os.Getpagesize())
}
