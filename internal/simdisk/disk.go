package simdisk

import (
	"math/rand/v2"
	"path"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Disk is a filesystem in memory that knows what was synced. Its methods are
// safe for concurrent use; use New.
type Disk struct {
	vfs.FS // of the methods that no fault touches
	mem    *vfs.MemFS

	mu     sync.Mutex
	rand   *rand.Rand
	faults []hook
	healed chan struct{} // closed by Heal
	// last is the last write to each file, in the order of turn.
	last map[string]written
	turn int
}

// written is where a write went.
type written struct {
	turn     int
	from, to int64
}

// New returns an empty disk.
func New(seed uint64) *Disk {
	return newDisk(vfs.NewCrashableMem(), rand.New(rand.NewPCG(seed, 0)), map[string]written{}, 0)
}

func newDisk(mem *vfs.MemFS, r *rand.Rand, last map[string]written, turn int) *Disk {
	return &Disk{FS: mem, mem: mem, rand: r, last: last, turn: turn, healed: make(chan struct{})}
}

// PowerLoss returns the disk as it is found when the power has gone and come
// back: without what was not synced, save that each block and each name of
// that is there with a chance of keep percent. The old disk is healed: who
// still writes to it ends as on any disk, and is not heard of any more.
func (d *Disk) PowerLoss(keep int) *Disk {
	left := d.clone(keep)
	d.Heal()
	return left
}

// Copy returns a disk of its own with all that is on this one, synced or not,
// and none of its faults.
func (d *Disk) Copy() *Disk { return d.clone(100) }

func (d *Disk) clone(keep int) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := rand.New(rand.NewPCG(d.rand.Uint64(), 0))
	last := make(map[string]written, len(d.last))
	for name, w := range d.last {
		last[name] = w
	}
	return newDisk(d.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: keep, RNG: r}), r, last, d.turn)
}

// Inflict makes a fault happen. The error says that it cannot: no file is as
// the fault wants it.
func (d *Disk) Inflict(f Fault) error {
	h, err := f.inflict(d)
	if err != nil || h == nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = append(d.faults, h)
	return nil
}

// Heal ends all faults that last, and lets go who waits in one.
func (d *Disk) Heal() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = nil
	close(d.healed)
	d.healed = make(chan struct{})
}

// meet leads an operation through the faults there are.
func (d *Disk) meet(o *op) error {
	d.mu.Lock()
	faults, healed := d.faults, d.healed
	d.mu.Unlock()
	for _, h := range faults {
		if err := h(o, healed); err != nil {
			return err
		}
	}
	return nil
}

// wrote notes the last write to a file.
func (d *Disk) wrote(name string, from, to int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.turn++
	d.last[name] = written{d.turn, from, to}
}

// moved follows a file to its new name.
func (d *Disk) moved(from, to string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w, ok := d.last[from]; ok {
		delete(d.last, from)
		d.last[to] = w
	}
}

// newest returns the file that was written last of those whose base name
// matches, and are not empty.
func (d *Disk) newest(pattern string) (name string, size int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	turn := 0
	for n, w := range d.last {
		if w.turn < turn || !matches(pattern, n) {
			continue
		}
		if info, err := d.mem.Stat(n); err == nil && info.Size() > 0 {
			name, size, turn = n, info.Size(), w.turn
		}
	}
	return name, size
}

// matches compares a pattern of package path with a file's base name; "" is
// for every file.
func matches(pattern, name string) bool {
	ok, err := path.Match(pattern, path.Base(name))
	if err != nil {
		panic("simdisk: " + pattern + ": " + err.Error())
	}
	return ok || pattern == ""
}
