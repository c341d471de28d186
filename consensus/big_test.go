package consensus

import (
	"encoding/binary"
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
	a, b := from.group(1).snaps, to.group(1).snaps
	if err := a.export("1-1.export"); err != nil {
		t.Fatal(err)
	}
	if err := from.cfg.FS.Rename(a.path("1-1.export"), b.path("1-1.received")); err != nil {
		t.Fatal(err)
	}
	info, err := to.cfg.FS.Stat(b.path("1-1.received"))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.verify("1-1.received"); err != nil {
		t.Fatal(err)
	}
	b.received = &received{"1-1.received", newMeta(100, 1, raft.Configuration{}, 1)}
	if err := to.group(1).fsm.Restore(nil); err != nil {
		t.Fatal(err)
	}
	return info.Size()
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
	const size, bound = 64 << 20, 40 << 20
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

// BenchmarkSnapshot moves 5 GiB, with the tables of a node. It is make
// measure-snapshot; the folder is that of STARLING_DATA, where what was written
// once is used again.
func BenchmarkSnapshot(b *testing.B) {
	const size = 5 << 30
	dir := os.Getenv("STARLING_DATA")
	if dir == "" {
		dir = b.TempDir()
	}
	c := twoHosts(b, vfs.Default, dir)
	defer c.stopAll()
	if c.host("a").group(1).fsm.position().index == 0 {
		fill(b, c.host("a"), 1, size)
	}
	start, stop := time.Now(), peak(resident)
	moved := moveSnapshot(b, c.host("a"), c.host("b"))
	b.ReportMetric(float64(moved)/time.Since(start).Seconds()/(1<<20), "MiB/s")
	b.ReportMetric(float64(stop())/(1<<20), "MiB-resident")
	b.ReportMetric(0, "ns/op")
}
