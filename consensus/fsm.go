package consensus

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"
)

// position is the last entry whose effects are in the data, written with them
// in one batch. It makes applying idempotent, so that applies need no sync.
type position struct {
	index, term   uint64
	epoch, number uint64 // of the last entry of commands that was not void
}

const (
	positionVersion = 1
	positionKey     = "applied"
)

func (p position) encode() []byte {
	b := []byte{positionVersion}
	for _, v := range []uint64{p.index, p.term, p.epoch, p.number} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b
}

func decodePosition(b []byte) (p position, err error) {
	if err := checkVersion("applied position", b, positionVersion); err != nil {
		return p, err
	}
	d := decoder{rest: b[1:]}
	p = position{d.uint64(), d.uint64(), d.uint64(), d.uint64()}
	if d.bad || len(d.rest) > 0 {
		return p, fmt.Errorf("applied position is malformed")
	}
	return p, nil
}

// outcome is what became of one entry of commands.
type outcome struct {
	index, term uint64
	results     []any
	void        bool // the entry before it in its chain did not take effect
}

// fsm applies the entries of one group to its part of the store.
type fsm struct {
	s     *store
	group uint32
	m     Machine
	snaps *snapshotStore

	mu   sync.Mutex
	pos  position
	conf configuration // the newest one committed
	wake chan struct{} // closed when pos moves; nil if nobody waits

	// view is held for reading by readers, for writing while a snapshot
	// replaces the data and to set closed.
	view   sync.RWMutex
	closed bool // the store is closed, or about to be
}

var _ raft.BatchingFSM = (*fsm)(nil)

// Apply is not called: Raft prefers ApplyBatch.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch applies committed entries in one batch. The answers are *outcome,
// nil for entries without commands and after a storage error.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	answers := make([]any, len(logs))
	if f.s.err() != nil {
		return answers
	}
	f.reconfigure(logs)
	pos := f.position()
	if logs[len(logs)-1].Index <= pos.index {
		return answers // applied before a restart
	}
	size := 0
	for _, l := range logs {
		size += len(l.Data)
	}
	b := f.s.db.NewIndexedBatchWithSize(3*size + 4096)
	t := &tx{newView(f.s, b, f.group), b}
	applied := false
	err := t.guard(func() {
		for i, l := range logs {
			if l.Index <= pos.index {
				continue
			}
			pos.index, pos.term = l.Index, l.Term
			if l.Type == raft.LogCommand {
				o := f.apply(t, l, &pos)
				applied = applied || !o.void
				answers[i] = o
			}
		}
		t.release()
		_ = b.Set(key(tableMeta, f.group, positionKey), pos.encode(), nil)
	})
	if err == nil {
		err = f.s.commit(b, pebble.NoSync)
	}
	if err != nil {
		return make([]any, len(logs))
	}
	if applied {
		f.m.Committed()
	}
	f.moved(pos)
	return answers
}

func (f *fsm) apply(t *tx, l *raft.Log, pos *position) *outcome {
	e, err := decodeEntry(l.Data)
	if err != nil {
		// Other replicas apply what this one cannot read: it must not go on.
		t.stop(fmt.Errorf("entry %d of group %d: %w", l.Index, f.group, err))
	}
	if e.number > 0 && (e.epoch != pos.epoch || e.number != pos.number+1) {
		return &outcome{index: l.Index, term: l.Term, void: true}
	}
	pos.epoch, pos.number = e.epoch, e.number
	return &outcome{index: l.Index, term: l.Term, results: f.m.Apply(t, e.stamp, e.commands)}
}

// reconfigure notes the newest configuration, also where it was applied before
// a restart.
func (f *fsm) reconfigure(logs []*raft.Log) {
	for _, l := range logs {
		if l.Type == raft.LogConfiguration {
			c := configuration{l.Index, raft.DecodeConfiguration(l.Data).Servers}
			f.mu.Lock()
			f.conf = c
			f.mu.Unlock()
		}
	}
}

func (f *fsm) configured() configuration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.conf
}

func (f *fsm) position() position {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pos
}

func (f *fsm) moved(pos position) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pos = pos
	if f.wake != nil {
		close(f.wake)
		f.wake = nil
	}
}

// wait returns when the entry of that index is in the data.
func (f *fsm) wait(ctx context.Context, index uint64) error {
	for {
		f.mu.Lock()
		if f.pos.index >= index {
			f.mu.Unlock()
			return nil
		}
		if f.wake == nil {
			f.wake = make(chan struct{})
		}
		wake := f.wake
		f.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// read calls fn with a consistent view of the data.
func (f *fsm) read(fn func(Reader)) error {
	f.view.RLock()
	defer f.view.RUnlock()
	if err := f.s.err(); err != nil {
		return err
	}
	if f.closed {
		return errClosed
	}
	snap := f.s.db.NewSnapshot()
	defer snap.Close()
	v := newView(f.s, snap, f.group)
	return v.guard(func() {
		fn(v)
		v.release()
	})
}

// close waits for the reads under way and refuses later ones: Pebble panics
// when a closed store is read, and does not close one with open snapshots.
func (f *fsm) close() {
	f.view.Lock()
	defer f.view.Unlock()
	f.closed = true
}

// Snapshot takes nothing: the data is in the store already, and the record of
// the snapshot follows it in the same write-ahead log.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) { return snapshotRecord{}, f.s.err() }

type snapshotRecord struct{}

func (snapshotRecord) Persist(s raft.SnapshotSink) error {
	s.(*sink).local = true
	return s.Close()
}
func (snapshotRecord) Release() {}

// Restore replaces the data by the snapshot that was received last. The reader
// is not used: a restore that was interrupted starts again from the file.
func (f *fsm) Restore(io.ReadCloser) error {
	pos, err := f.snaps.install(&f.view)
	if err != nil {
		return err
	}
	f.moved(pos)
	f.mu.Lock()
	f.conf = f.snaps.configuration()
	f.mu.Unlock()
	f.m.Restored()
	return nil
}
