package consensus

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
)

// snapshotStore keeps the one snapshot of a group.
//
// The data lives in the store, so a snapshot that this node takes is a record
// of what Raft needs to know; once the record is durable, so is all that was
// applied before it, and the log may be cut. A file exists only while a
// snapshot travels: its sender exports the data of that moment, which may be
// newer than the record says, and its receiver skips entries it then has.
type snapshotStore struct {
	h     *Host
	s     *store
	group uint32
	logs  *logStore

	mu       sync.Mutex
	meta     raft.SnapshotMeta // ID "" = none
	received *received         // a file that waits to be installed
	files    int
	// over: an install has removed a log that reached as far as the snapshot, or further.
	// Raft still takes the end of that log for its own, until it is started again.
	over atomic.Bool
}

// received is a snapshot file from another node and what its sender said of it.
type received struct {
	file string
	meta raft.SnapshotMeta
}

const (
	snapshotVersion = 1
	snapshotKey     = "snapshot"
	restoringKey    = "restoring"
)

func encodeMeta(m raft.SnapshotMeta, file string) []byte {
	b := []byte{snapshotVersion}
	for _, v := range []uint64{m.Index, m.Term, m.ConfigurationIndex} {
		b = binary.AppendUvarint(b, v)
	}
	b = appendBytes(b, raft.EncodeConfiguration(m.Configuration))
	return appendBytes(b, []byte(file))
}

func decodeMeta(b []byte) (m raft.SnapshotMeta, file string, err error) {
	if err := checkVersion("snapshot record", b, snapshotVersion); err != nil {
		return m, "", err
	}
	d := decoder{rest: b[1:]}
	m = newMeta(d.uvarint(), d.uvarint(), raft.Configuration{}, d.uvarint())
	conf := d.bytes()
	file = string(d.bytes())
	if d.bad || len(d.rest) > 0 {
		return m, "", fmt.Errorf("snapshot record is malformed")
	}
	m.Configuration = raft.DecodeConfiguration(conf)
	return m, file, nil
}

func newMeta(index, term uint64, c raft.Configuration, confIndex uint64) raft.SnapshotMeta {
	return raft.SnapshotMeta{
		Version: 1, ID: fmt.Sprintf("%d-%d", term, index), Index: index, Term: term,
		Configuration: c, ConfigurationIndex: confIndex,
	}
}

func (t *snapshotStore) load() error {
	value, ok, err := t.s.get(key(tableMeta, t.group, snapshotKey))
	if err != nil || !ok {
		return err
	}
	t.meta, _, err = decodeMeta(value)
	t.logs.setFloor(t.meta)
	return err
}

// configuration returns the one of the snapshot.
func (t *snapshotStore) configuration() configuration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return configuration{t.meta.ConfigurationIndex, t.meta.Configuration.Servers}
}

// Create begins a snapshot that this node takes or receives; the first Write
// tells.
func (t *snapshotStore) Create(_ raft.SnapshotVersion, index, term uint64, c raft.Configuration, confIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	return &sink{t: t, meta: newMeta(index, term, c, confIndex)}, t.s.err()
}

func (t *snapshotStore) List() ([]*raft.SnapshotMeta, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.meta.ID == "" {
		return nil, t.s.err()
	}
	m := t.meta
	return []*raft.SnapshotMeta{&m}, t.s.err()
}

// Open exports the data into a file, whose size Raft must know beforehand, or
// returns the file that is to be installed.
func (t *snapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	t.mu.Lock()
	if r := t.received; r != nil && r.meta.ID == id {
		t.mu.Unlock()
		return &r.meta, io.NopCloser(strings.NewReader("")), nil
	}
	m := t.meta
	t.mu.Unlock()
	if m.ID != id {
		return nil, nil, fmt.Errorf("snapshot %s is gone", id)
	}
	release, err := t.h.slot(t.h.sending)
	if err != nil {
		return nil, nil, err
	}
	name := t.newFile("export")
	if err := t.export(name); err != nil {
		release()
		return nil, nil, err
	}
	f, err := t.h.cfg.FS.Open(t.path(name))
	if err != nil {
		release()
		return nil, nil, t.s.fail(err)
	}
	info, err := f.Stat()
	if err != nil {
		release()
		return nil, nil, t.s.fail(err)
	}
	m.Size = info.Size()
	return &m, &exported{f, func() { _ = t.h.cfg.FS.Remove(t.path(name)); release() }}, nil
}

// exported is a file that is gone once it has been read.
type exported struct {
	vfs.File
	done func()
}

func (e *exported) Close() error {
	err := e.File.Close()
	e.done()
	return err
}

// newFile returns a name for a file of the group.
func (t *snapshotStore) newFile(kind string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.files++
	return fmt.Sprintf("%d-%d.%s", t.group, t.files, kind)
}

func (t *snapshotStore) path(file string) string { return t.h.cfg.FS.PathJoin(t.h.snapshotDir(), file) }

// record makes a snapshot that this node has taken durable, and with it
// everything that was applied before.
func (t *snapshotStore) record(m raft.SnapshotMeta) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m.Index < t.meta.Index {
		return fmt.Errorf("snapshot at %d is older than the one at %d", m.Index, t.meta.Index)
	}
	b := t.s.db.NewBatch()
	_ = b.Set(key(tableMeta, t.group, snapshotKey), encodeMeta(m, ""), nil)
	if err := t.s.sync(b, t.group, func(*tip) {}); err != nil {
		return err
	}
	t.meta = m
	t.logs.setFloor(m)
	return t.logs.trim(m.Index, t.h.cfg.TrailingBytes)
}

// install replaces the group's data by the received snapshot. A mark says so
// on disk for as long as the data is neither the old nor the new one.
func (t *snapshotStore) install(view sync.Locker) (position, error) {
	t.mu.Lock()
	r := t.received
	t.mu.Unlock()
	if r == nil {
		return position{}, fmt.Errorf("no snapshot to install")
	}
	b := t.s.db.NewBatch()
	_ = b.Set(key(tableMeta, t.group, restoringKey), encodeMeta(r.meta, r.file), nil)
	if err := t.s.sync(b, t.group, func(*tip) {}); err != nil {
		return position{}, err
	}
	view.Lock()
	defer view.Unlock()
	pos, err := t.importFile(r.file)
	if err != nil {
		return pos, t.s.fail(err) // it was verified when it came: the disk is at fault
	}
	last, _ := t.logs.LastIndex()
	if err := t.installed(r, pos); err != nil {
		return pos, err
	}
	t.over.Store(last >= r.meta.Index)
	return pos, nil
}

// installed writes the end of an install: the position, the record of the
// snapshot, no log and no mark, at once.
func (t *snapshotStore) installed(r *received, pos position) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.s.db.NewBatch()
	_ = b.Set(key(tableMeta, t.group, positionKey), pos.encode(), nil)
	_ = b.Set(key(tableMeta, t.group, snapshotKey), encodeMeta(r.meta, ""), nil)
	_ = b.Delete(key(tableMeta, t.group, restoringKey), nil)
	_ = t.logs.removeAll(b)
	if err := t.s.sync(b, t.group, func(at *tip) { at.entry = logID{r.meta.Term, r.meta.Index} }); err != nil {
		return err
	}
	t.logs.forget()
	t.logs.setFloor(r.meta)
	t.meta, t.received = r.meta, nil
	if err := t.h.cfg.FS.Remove(t.path(r.file)); err != nil {
		t.h.cfg.Log.Warn("snapshot file stays", "file", r.file, "error", err)
	}
	return nil
}

// resume finishes an install that a crash has interrupted.
func (t *snapshotStore) resume() error {
	value, ok, err := t.s.get(key(tableMeta, t.group, restoringKey))
	if err != nil || !ok {
		return err
	}
	m, file, err := decodeMeta(value)
	if err != nil {
		return err
	}
	if _, err := t.h.cfg.FS.Stat(t.path(file)); err != nil {
		return fmt.Errorf("%w: group %d: %v", ErrHalfRestored, t.group, err)
	}
	pos, err := t.importFile(file)
	if err != nil {
		return fmt.Errorf("%w: group %d: %v", ErrHalfRestored, t.group, err)
	}
	return t.installed(&received{file, m}, pos)
}

// sink takes one snapshot, from this node's Raft or from another node's.
type sink struct {
	t     *snapshotStore
	meta  raft.SnapshotMeta
	local bool // nothing is written: the record is the snapshot
	name  string
	file  vfs.File
	buf   *bufio.Writer
	done  bool
}

func (s *sink) ID() string { return s.meta.ID }

// errHave says that a received snapshot ends with an entry that the log has.
var errHave = errors.New("consensus: the log has what the snapshot covers")

func (s *sink) Write(p []byte) (int, error) {
	if s.file == nil {
		var e raft.Log
		if s.t.logs.covered(s.meta.Index) || s.t.logs.GetLog(s.meta.Index, &e) == nil && e.Term == s.meta.Term {
			// The log must stay: what follows may be acknowledged already,
			// and Raft would remove it with the rest, and put older data in
			// the place of newer. This is asked on Raft's main loop, so
			// nothing is appended meanwhile.
			return 0, errHave
		}
		s.name = s.t.newFile("received")
		f, err := s.t.h.cfg.FS.Create(s.t.path(s.name), vfs.WriteCategoryUnspecified)
		if err != nil {
			return 0, s.t.s.fail(err)
		}
		s.file, s.buf = f, bufio.NewWriterSize(f, 256<<10)
	}
	n, err := s.buf.Write(p)
	if err != nil {
		return n, s.t.s.fail(err)
	}
	return n, nil
}

// Close makes the snapshot durable. A received one is read through once, so
// that what is damaged is refused while the old data is still there.
func (s *sink) Close() error {
	if s.done {
		return nil
	}
	s.done = true
	if s.local {
		return s.t.record(s.meta)
	}
	if s.file == nil {
		return io.ErrUnexpectedEOF
	}
	if err := s.flush(); err != nil {
		return s.t.s.fail(err)
	}
	if err := s.t.verify(s.name); err != nil {
		_ = s.t.h.cfg.FS.Remove(s.t.path(s.name))
		return err
	}
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	s.t.received = &received{s.name, s.meta}
	return nil
}

func (s *sink) flush() error {
	if err := s.buf.Flush(); err != nil {
		return err
	}
	if err := s.file.Sync(); err != nil {
		return err
	}
	if err := s.file.Close(); err != nil {
		return err
	}
	return syncDir(s.t.h.cfg.FS, s.t.h.snapshotDir())
}

func (s *sink) Cancel() error {
	if s.done || s.file == nil {
		return nil
	}
	s.done = true
	_ = s.file.Close()
	return s.t.h.cfg.FS.Remove(s.t.path(s.name))
}

// syncDir makes the names in a folder durable.
func syncDir(fs vfs.FS, name string) error {
	d, err := fs.OpenDir(name)
	if err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		_ = d.Close()
		return err
	}
	return d.Close()
}

// clearSnapshots removes files of transfers that a crash has ended, save those
// whose install is to be finished.
func clearSnapshots(s *store, fs vfs.FS, dir string) error {
	keep := map[string]bool{}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{tableMeta}, UpperBound: []byte{tableMeta + 1}})
	if err != nil {
		return s.fail(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		if string(it.Key()[5:]) == restoringKey {
			if _, file, err := decodeMeta(it.Value()); err == nil {
				keep[file] = true
			}
		}
	}
	if err := it.Close(); err != nil {
		return s.fail(err)
	}
	names, err := fs.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !keep[name] {
			if err := fs.Remove(fs.PathJoin(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}
