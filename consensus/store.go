package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/starling-im/starling/wire"
)

// store is the database of a Host. Keys are a table byte, the group (4 bytes,
// big-endian) and what the table adds. Values of the tables log, stable and
// meta start with a version byte; those of data are the machine's business.
type store struct {
	db     *pebble.DB
	lock   *pebble.Lock
	write  *pebble.WriteOptions // for what must be durable
	broken atomic.Pointer[error]
	fatal  func(error) // called once, with the first error
	guard  *guard      // nil without syncs
	disk   besideLog   // of db
	stall  stall
}

const (
	tableFormat = 'f' // the version of everything else, and whether it is guarded
	tableLog    = 'l' // index, big-endian → entry
	tableStable = 's' // term and vote
	tableMeta   = 'm' // applied, snapshot, restoring, writes, epoch
	tableData   = 'd' // the machine's keys
	tablePeer   = 'p' // of no group: node → its highest life seen
	tableEpoch  = 'e' // nothing else: the highest epoch heard of
)

// storeVersion is the format of the whole folder. It rises when an older
// release must not touch what this one writes.
const storeVersion = 1

const (
	// memTable is large so that few log entries live long enough to be
	// flushed; Pebble starts small and grows to it only under load.
	memTable = 64 << 20
	// blockCache serves reads of history, after which the system's own cache is
	// asked. Small nodes have 256 MiB in all, and what is here costs twice itself:
	// the garbage collector leaves as much again free.
	blockCache = 16 << 20
	// bloomBits per key answer 99 % of the lookups of new idempotency keys
	// without reading a block.
	bloomBits = 10
)

func openStore(cfg Config, fatal func(error)) (*store, error) {
	dir := cfg.FS.PathJoin(cfg.Dir, "db")
	if err := makeFolders(cfg.FS, cfg.Dir, dir, cfg.FS.PathJoin(cfg.Dir, "snapshots")); err != nil {
		return nil, fmt.Errorf("consensus: data folder: %w", err)
	}
	lock, err := pebble.LockDirectory(dir, cfg.FS)
	if err != nil {
		if isLocked(err) {
			return nil, fmt.Errorf("%w: %s", ErrLocked, cfg.Dir)
		}
		return nil, fmt.Errorf("consensus: lock of %s: %w", cfg.Dir, err)
	}
	s := &store{lock: lock, write: pebble.Sync, fatal: fatal, disk: besideLog{FS: cfg.FS}}
	if cfg.NoSync {
		s.write = pebble.NoSync
	}
	if s.db, err = pebble.Open(dir, s.options(cfg, lock)); err != nil {
		_ = lock.Close()
		if strings.Contains(err.Error(), "unknown format major version") {
			return nil, wire.Errorf(wire.CodeNewerFormat, "data folder %s: %v", cfg.Dir, err)
		}
		return nil, fmt.Errorf("consensus: open %s: %w", cfg.Dir, err)
	}
	if err := s.checkVersion(cfg.Dir); err != nil {
		return nil, errors.Join(err, s.close())
	}
	if cfg.NoSync {
		return s, nil
	}
	if err := s.openGuard(cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("consensus: tip files of %s: %w", cfg.Dir, err), s.close())
	}
	return s, nil
}

// openGuard begins a new life, and notes in the store that it is guarded.
func (s *store) openGuard(cfg Config) error {
	guarded := []byte{tableFormat, 'g'}
	_, known, err := s.get(guarded)
	if err != nil {
		return err
	}
	if s.guard, err = openGuard(cfg.FS, cfg.Dir, known, s.fail); err != nil {
		return err
	}
	s.disk.guard.Store(s.guard)
	if known {
		return nil
	}
	return s.set(guarded, []byte{guardVersion})
}

func (s *store) options(cfg Config, lock *pebble.Lock) *pebble.Options {
	o := &pebble.Options{
		FS:   &s.disk,
		Lock: lock,
		// The newest format has checksums on everything and the fastest tables.
		FormatMajorVersion: pebble.FormatNewest,
		MemTableSize:       memTable,
		// A third memtable lets writes go on while one is flushed.
		MemTableStopWritesThreshold: 3,
		CacheSize:                   blockCache,
		// One compaction at a time: the cores are for messages.
		CompactionConcurrencyRange: func() (int, int) { return 1, 1 },
		Logger:                     pebbleLogger{cfg.Log, s.fail},
	}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(bloomBits)
	}
	if cfg.FS != vfs.Default {
		// Tests open hundreds of stores in one process.
		o.MemTableSize = 4 << 20
		o.CacheSize = 1 << 20
	}
	return o
}

// makeFolders makes folders inside root durable, root itself included: a synced
// file in a folder whose name is lost is lost too.
func makeFolders(fs vfs.FS, root string, folders ...string) error {
	changed := []string{root, fs.PathDir(root)}
	for dir := changed[1]; fs.PathDir(dir) != dir; changed = append(changed, dir) {
		if _, err := fs.Stat(dir); err == nil {
			break
		}
		dir = fs.PathDir(dir)
	}
	for _, f := range folders {
		if err := fs.MkdirAll(f, 0o700); err != nil {
			return err
		}
	}
	for _, dir := range changed {
		if err := syncDir(fs, dir); err != nil && (dir == root || !errors.Is(err, os.ErrPermission)) {
			return err // a parent that is not ours to read was there before
		}
	}
	return nil
}

// isLocked tells a lock held by somebody from a folder that cannot be locked.
func isLocked(err error) bool {
	return errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) ||
		strings.Contains(err.Error(), "lock held by current process")
}

func (s *store) checkVersion(dir string) error {
	value, ok, err := s.get([]byte{tableFormat})
	switch {
	case err != nil:
		return err
	case !ok:
		return s.set([]byte{tableFormat}, []byte{storeVersion})
	case len(value) == 0 || value[0] > storeVersion:
		return wire.Errorf(wire.CodeNewerFormat, "data folder %s has format %v, this release knows %d", dir, value, storeVersion)
	}
	return nil
}

// get returns a copy of the value of key.
func (s *store) get(key []byte) ([]byte, bool, error) {
	if err := s.err(); err != nil {
		return nil, false, err
	}
	value, closer, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, s.fail(err)
	}
	value = append([]byte{}, value...)
	return value, true, closer.Close()
}

// set writes one durable record.
func (s *store) set(key, value []byte) error {
	b := s.db.NewBatch()
	if err := b.Set(key, value, nil); err != nil {
		return s.fail(err)
	}
	return s.commit(b, s.write)
}

// commit writes b and closes it.
func (s *store) commit(b *pebble.Batch, o *pebble.WriteOptions) error {
	if o.GetSync() {
		defer s.stall.begin()()
	}
	return s.try(func() error {
		if err := b.Commit(o); err != nil {
			return err
		}
		return b.Close()
	})
}

// try calls fn, which writes. After any error the store is broken.
func (s *store) try(fn func() error) (err error) {
	if err := s.err(); err != nil {
		return err
	}
	defer func() {
		// Pebble panics where its log cannot be written.
		if r := recover(); r != nil {
			cause, ok := r.(error)
			if !ok {
				cause = fmt.Errorf("%v", r)
			}
			err = s.fail(cause)
		}
	}()
	if err := fn(); err != nil {
		return s.fail(err)
	}
	return s.err() // Pebble's Fatalf has returned
}

// fail breaks the store: nothing is read, written or answered any more.
func (s *store) fail(err error) error {
	err = fmt.Errorf("consensus: storage: %w", err)
	if s.broken.CompareAndSwap(nil, &err) {
		s.fatal(err)
	}
	return s.err()
}

// err returns what broke the store.
func (s *store) err() error {
	if p := s.broken.Load(); p != nil {
		return *p
	}
	return nil
}

func (s *store) close() error {
	if s.err() == nil {
		return errors.Join(s.db.Close(), s.closeGuard(), s.lock.Close())
	}
	// A broken Pebble may hang or panic here, and the process is to end anyway.
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = recover() }()
		_ = s.closeGuard()
		_ = s.db.Close()
		_ = s.lock.Close()
	}()
	timer := time.NewTimer(closeTimeout)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
	return s.err()
}

func (s *store) closeGuard() error {
	if s.guard == nil {
		return nil
	}
	return s.guard.close()
}

// closeTimeout is how long a broken database may take to close.
const closeTimeout = 300 * time.Millisecond

// key returns the key of a group's record in a table.
func key(table byte, group uint32, rest string) []byte {
	k := make([]byte, 0, 5+len(rest))
	k = append(k, table)
	k = binary.BigEndian.AppendUint32(k, group)
	return append(k, rest...)
}

// tableEnd returns the first key after those of a group in a table.
func tableEnd(table byte, group uint32) []byte {
	if group == 1<<32-1 {
		return []byte{table + 1}
	}
	return key(table, group+1, "")
}
