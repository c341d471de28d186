package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// guard keeps what must be known of the store when the store itself forgets:
// the tip of each group and the number of this node's lives. It is two small
// files outside the database, of which the older one is written over; a write
// that a crash cuts short leaves the other.
//
// Claims are written and synced while the database syncs its own log, all that
// have come by then together; see besideLog.
type guard struct {
	files [2]vfs.File
	fail  func(error) error
	nonce uint64        // tells this life from another one of the same number
	turn  chan struct{} // has a place for who writes the files

	mu         sync.Mutex
	generation uint64
	life       uint64 // raised at each start
	shown      uint64 // the life that the files say; no other leaves the node
	lost       uint64 // the life that began with an old disk or without tips, 0 = none
	tips       map[uint32]*tip
	claimed    bool // there is what the files do not say
	lagging    bool // what the files say of synced is old
	wrote      time.Time
	took       time.Duration // the last write of a file
	confirm    *time.Timer   // nil unless lagging was set
	closed     bool
}

// tip is what the store must hold of one group. Writes counts the durable
// writes of the group, and each carries its number: as they are in one log in
// their order, a store that has number n lacks none before it.
type tip struct {
	order sync.Mutex // held while a write gets its number and its place in the log

	writes uint64 // claimed; the last ones may not have become durable
	synced uint64 // known to be durable
	entry  logID  // the last entry of the log, or the one to be reached in doubt
	term   uint64 // in which the node has voted, or could have
	doubt  doubt
}

// logID names an entry; of two, the one with the higher term is newer.
type logID struct{ term, index uint64 }

func (a logID) less(b logID) bool {
	return a.term < b.term || a.term == b.term && a.index < b.index
}

const (
	guardVersion = 1
	guardHead    = 4 + 1 + 3*8 + 4
	guardTip     = 4 + 5*8 + 1
	// guardTips bounds the groups of a node; a damaged count ends there.
	guardTips = 1 << 16
	// confirmAfter is how long a quiet guard waits before it writes down that
	// the last claims have become durable, and confirmSyncs the same in syncs of
	// the disk: on a slow one the next claim would else wait for the confirmation.
	confirmAfter = 20 * time.Millisecond
	confirmSyncs = 4
)

var guardMagic = [4]byte{'S', 'T', 'I', 'P'}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openGuard reads the files and begins a new life, durably. known says that
// the store was guarded before: files that say nothing are then a loss.
func openGuard(fs vfs.FS, dir string, known bool, fail func(error) error) (*guard, error) {
	g := &guard{
		fail: fail, tips: map[uint32]*tip{}, nonce: rand.Uint64(), turn: make(chan struct{}, 1),
	}
	found := false
	for i := range g.files {
		name := fs.PathJoin(dir, fmt.Sprintf("tip.%d", i))
		old, err := readGuard(fs, name)
		if err != nil {
			return nil, errors.Join(err, g.closeFiles())
		}
		if old != nil && old.generation >= g.generation {
			found = true
			g.generation, g.life, g.lost, g.tips = old.generation, old.life, old.lost, old.tips
		}
		if g.files[i], err = fs.OpenReadWrite(name, vfs.WriteCategoryUnspecified); err != nil {
			return nil, errors.Join(err, g.closeFiles())
		}
	}
	g.life++
	if known && !found {
		g.lost = g.life
	}
	// Twice, so that no file is left that cannot be read.
	for range g.files {
		if err := g.write(g.encode()); err != nil {
			return nil, errors.Join(err, g.closeFiles())
		}
	}
	if err := syncDir(fs, dir); err != nil {
		return nil, errors.Join(err, g.closeFiles())
	}
	g.shown = g.life
	return g, nil
}

// readGuard returns nil for a file that is not there or was cut short.
func readGuard(fs vfs.FS, name string) (*guard, error) {
	f, err := fs.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, guardHead)
	if _, err := io.ReadFull(f, head); err != nil {
		return nil, ifDisk(err)
	}
	n := binary.BigEndian.Uint32(head[guardHead-4:])
	if [4]byte(head) != guardMagic || n > guardTips {
		return nil, nil
	}
	if head[4] > guardVersion {
		return nil, newer("tip file", head[4], guardVersion)
	}
	b := append(head, make([]byte, n*guardTip+4)...)
	if _, err := io.ReadFull(f, b[guardHead:]); err != nil {
		return nil, ifDisk(err)
	}
	body := b[:len(b)-4]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(b[len(body):]) {
		return nil, nil
	}
	return decodeGuard(body, int(n)), nil
}

// ifDisk returns err unless it says that a file is too short.
func ifDisk(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

func decodeGuard(b []byte, n int) *guard {
	d := decoder{rest: b[5:]}
	g := &guard{generation: d.uint64(), life: d.uint64(), lost: d.uint64(), tips: make(map[uint32]*tip, n)}
	d.rest = d.rest[4:]
	for range n {
		group := binary.BigEndian.Uint32(d.rest)
		d.rest = d.rest[4:]
		t := &tip{writes: d.uint64(), synced: d.uint64()}
		t.entry = logID{d.uint64(), d.uint64()}
		t.term = d.uint64()
		t.doubt = doubt(d.rest[0])
		d.rest = d.rest[1:]
		g.tips[group] = t
	}
	return g
}

// encode is called with mu held, or before others have the guard.
func (g *guard) encode() []byte {
	g.generation++
	b := make([]byte, 0, guardHead+len(g.tips)*guardTip+4)
	b = append(append(b, guardMagic[:]...), guardVersion)
	for _, v := range []uint64{g.generation, g.life, g.lost} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(g.tips)))
	for group, t := range g.tips {
		b = binary.BigEndian.AppendUint32(b, group)
		for _, v := range []uint64{t.writes, t.synced, t.entry.term, t.entry.index, t.term} {
			b = binary.BigEndian.AppendUint64(b, v)
		}
		b = append(b, byte(t.doubt))
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// write puts an encoding into the older file.
func (g *guard) write(b []byte) error {
	f := g.files[binary.BigEndian.Uint64(b[5:])%2]
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	return f.SyncData()
}

// flush returns when the files say all that was claimed before the call.
func (g *guard) flush() error {
	g.turn <- struct{}{}
	defer func() { <-g.turn }()
	g.mu.Lock()
	if !g.claimed || g.closed {
		g.mu.Unlock()
		return nil
	}
	g.claimed, g.lagging, g.wrote = false, false, time.Now()
	b, life := g.encode(), g.life
	g.mu.Unlock()
	began := time.Now()
	if err := g.write(b); err != nil {
		return fmt.Errorf("tip file: %w", err)
	}
	g.mu.Lock()
	g.took, g.shown = time.Since(began), max(g.shown, life)
	g.mu.Unlock()
	return nil
}

// quiet is how long nothing must have been written before a confirmation; it is
// called with mu held.
func (g *guard) quiet() time.Duration { return max(confirmAfter, confirmSyncs*g.took) }

// waits reports whether there is something to write, or being written.
func (g *guard) waits() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.claimed || len(g.turn) > 0
}

// durable notes that all writes of a group up to number n are in the store.
// The files say so with the next claim, or soon if there is none.
func (g *guard) durable(t *tip, n uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	t.synced = max(t.synced, n)
	if g.lagging = true; g.confirm == nil && !g.closed {
		g.confirm = time.AfterFunc(g.quiet(), g.confirmed)
	}
}

func (g *guard) confirmed() {
	g.mu.Lock()
	g.confirm = nil
	if wait := g.quiet() - time.Since(g.wrote); g.lagging && wait > 0 {
		g.confirm = time.AfterFunc(wait, g.confirmed)
	} else if g.lagging {
		g.claimed = true
	}
	g.mu.Unlock()
	if err := g.flush(); err != nil {
		_ = g.fail(err)
	}
}

// tip returns the tip of a group, whose order the caller may hold.
func (g *guard) tip(group uint32) *tip {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.tips[group]
	if t == nil {
		t = &tip{}
		g.tips[group] = t
	}
	return t
}

// change changes what the files say, and returns when they do.
func (g *guard) change(fn func()) {
	g.mu.Lock()
	fn()
	g.claimed = true
	g.mu.Unlock()
	if err := g.flush(); err != nil {
		_ = g.fail(err)
	}
}

// close writes down what is known to be durable.
func (g *guard) close() error {
	g.mu.Lock()
	g.claimed = g.claimed || g.lagging
	if g.confirm != nil {
		g.confirm.Stop()
	}
	g.mu.Unlock()
	err := g.flush()
	g.turn <- struct{}{} // nobody writes any more
	defer func() { <-g.turn }()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	return errors.Join(err, g.closeFiles())
}

func (g *guard) closeFiles() error {
	var errs []error
	for _, f := range g.files {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
