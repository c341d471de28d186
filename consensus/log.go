package consensus

import (
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"
)

// logStore is the Raft log of one group. It remembers its newest entries
// itself rather than by raft.LogCache, which is bounded in entries but not in
// bytes and goes stale when a snapshot removes the log in its own batch.
type logStore struct {
	s     *store
	group uint32

	mu          sync.RWMutex
	first, last uint64      // 0 = empty
	sizes       sizes       // of all entries
	recent      []*raft.Log // consecutive, ending with last; may be shorter than the log
	bytes       int         // of recent
	// floor is the last entry that the snapshot covers, without its data.
	floor raft.Log

	ahead ahead
}

var _ raft.MonotonicLogStore = (*logStore)(nil)

const logVersion = 1

// standIn is the type of an entry that stands in for one that was cut off: it tells
// a term, and must not be sent.
const standIn = raft.LogType(255)

func openLog(s *store, group uint32) (*logStore, error) {
	l := &logStore{s: s, group: group}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: key(tableLog, group, ""), UpperBound: tableEnd(tableLog, group)})
	if err != nil {
		return nil, s.fail(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		l.last = binary.BigEndian.Uint64(it.Key()[5:])
		if l.first == 0 {
			l.first = l.last
		}
		v := it.LazyValue()
		l.sizes.add(v.Len())
	}
	if err := it.Close(); err != nil {
		return nil, s.fail(err)
	}
	return l, nil
}

// IsMonotonic tells Raft to remove the log before it leaves a hole in it.
func (l *logStore) IsMonotonic() bool { return true }

func (l *logStore) FirstIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.first, l.s.err()
}

func (l *logStore) LastIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.last, l.s.err()
}

func (l *logStore) GetLog(index uint64, to *raft.Log) error {
	l.mu.RLock()
	if n := len(l.recent); n > 0 && index >= l.recent[0].Index && index <= l.last {
		*to = *l.recent[index-l.recent[0].Index]
		l.mu.RUnlock()
		return nil
	}
	l.mu.RUnlock()
	ok, inOrder, changes := l.ahead.take(index, to)
	if ok {
		return nil
	}
	var err error
	if inOrder {
		ok, err = l.readAhead(index, to, changes)
	} else {
		ok, err = l.readOne(index, to)
	}
	if err == nil && !ok {
		return l.atFloor(index, to)
	}
	return err
}

func (l *logStore) readOne(index uint64, to *raft.Log) (found bool, err error) {
	value, ok, err := l.s.get(l.key(index))
	if err != nil || !ok {
		return false, err
	}
	if err := decodeLog(value, to); err != nil {
		return false, l.s.fail(err)
	}
	to.Index = index
	return true, nil
}

// atFloor stands in for the entry at which a snapshot ends, where an install
// has removed it. Raft asks for its term when a leader sends what follows, and
// knows it by itself only as long as nothing follows.
func (l *logStore) atFloor(index uint64, to *raft.Log) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if index == 0 || index != l.floor.Index {
		return raft.ErrLogNotFound
	}
	*to = l.floor
	return nil
}

// rebase drops from a leader's request what the snapshot covers, where the log
// begins behind it. A leader has all that is committed, so both agree on it;
// Raft would refuse the request, and the leader go back further and further.
func (l *logStore) rebase(r *raft.AppendEntriesRequest) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if r.PrevLogEntry >= l.floor.Index || l.first != 0 && l.first <= max(1, r.PrevLogEntry) {
		return
	}
	if r.PrevLogEntry == 0 && len(r.Entries) == 0 {
		return // a heartbeat
	}
	r.PrevLogEntry, r.PrevLogTerm = l.floor.Index, l.floor.Term
	for len(r.Entries) > 0 && r.Entries[0].Index <= l.floor.Index {
		r.Entries = r.Entries[1:]
	}
}

func (l *logStore) setFloor(m raft.SnapshotMeta) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.floor = raft.Log{Index: m.Index, Term: m.Term, Type: standIn}
}

func (l *logStore) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

// StoreLogs appends entries with one synced write.
func (l *logStore) StoreLogs(entries []*raft.Log) error {
	size := 0
	for _, e := range entries {
		size += logSize(e) + 32
	}
	b := l.s.db.NewBatchWithSize(size)
	l.put(b, entries)
	return l.append(b, entries)
}

// append writes a batch that has entries.
func (l *logStore) append(b *pebble.Batch, entries []*raft.Log) error {
	last := entries[len(entries)-1]
	if err := l.s.sync(b, l.group, func(at *tip) { at.entry = logID{last.Term, last.Index} }); err != nil {
		return err
	}
	l.added(entries)
	return nil
}

// put adds entries to a batch.
func (l *logStore) put(b *pebble.Batch, entries []*raft.Log) {
	for _, e := range entries {
		op := b.SetDeferred(5+8, logSize(e))
		copy(op.Key, l.key(e.Index))
		encodeLog(op.Value, e)
		if err := op.Finish(); err != nil {
			panic(err) // only an indexed batch can refuse
		}
	}
}

// added notes that entries were written.
func (l *logStore) added(entries []*raft.Log) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range entries {
		if l.last != 0 && e.Index != l.last+1 {
			// Raft removes what conflicts first; a hole would be lost data.
			_ = l.s.fail(fmt.Errorf("raft log of group %d: entry %d after %d", l.group, e.Index, l.last))
			return
		}
		if l.first == 0 {
			l.first = e.Index
		}
		l.last = e.Index
		l.sizes.add(logSize(e))
		l.recent = append(l.recent, e)
		l.bytes += len(e.Data)
	}
	drop := 0
	for len(l.recent)-drop > recentEntries || l.bytes > recentBytes && drop < len(l.recent)-1 {
		l.bytes -= len(l.recent[drop].Data)
		l.recent[drop] = nil
		drop++
	}
	l.recent = l.recent[drop:]
}

// DeleteRange removes entries at either end. It need not be synced: what makes
// them superfluous was written to the same write-ahead log before.
func (l *logStore) DeleteRange(min, max uint64) error {
	b := l.s.db.NewBatch()
	if err := b.DeleteRange(l.key(min), l.key(max+1), nil); err != nil {
		return l.s.fail(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.s.commit(b, pebble.NoSync); err != nil {
		return err
	}
	l.ahead.drop()
	switch {
	case min <= l.first && max >= l.last:
		l.clear()
	case min <= l.first:
		l.sizes.dropFirst(int(max + 1 - l.first))
		l.first = max + 1
		for len(l.recent) > 0 && l.recent[0].Index <= max {
			l.bytes -= len(l.recent[0].Data)
			l.recent[0] = nil
			l.recent = l.recent[1:]
		}
	default: // a suffix that conflicts with the leader's
		l.sizes.dropLast(int(l.last + 1 - min))
		l.last = min - 1
		for n := len(l.recent); n > 0 && l.recent[n-1].Index >= min; n-- {
			l.bytes -= len(l.recent[n-1].Data)
			l.recent[n-1] = nil
			l.recent = l.recent[:n-1]
		}
	}
	return nil
}

// removeAll adds the removal of the whole log to a batch; forget must follow
// its commit.
func (l *logStore) removeAll(b *pebble.Batch) error {
	return b.DeleteRange(key(tableLog, l.group, ""), tableEnd(tableLog, l.group), nil)
}

func (l *logStore) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clear()
}

// clear is called with mu held.
func (l *logStore) clear() {
	l.ahead.drop()
	l.first, l.last, l.recent, l.bytes, l.sizes = 0, 0, nil, 0, sizes{}
}

func (l *logStore) key(index uint64) []byte {
	k := make([]byte, 0, 5+8)
	k = append(k, tableLog)
	k = binary.BigEndian.AppendUint32(k, l.group)
	return binary.BigEndian.AppendUint64(k, index)
}

// logSize is the size of an encoded entry: version, type, term, time (0 =
// none), the length of the extensions, these, and the data.
func logSize(e *raft.Log) int { return 1 + 1 + 8 + 8 + 4 + len(e.Extensions) + len(e.Data) }

func encodeLog(b []byte, e *raft.Log) {
	b[0] = logVersion
	b[1] = byte(e.Type)
	binary.BigEndian.PutUint64(b[2:], e.Term)
	binary.BigEndian.PutUint64(b[10:], uint64(unixNano(e.AppendedAt)))
	binary.BigEndian.PutUint32(b[18:], uint32(len(e.Extensions)))
	copy(b[22+copy(b[22:], e.Extensions):], e.Data)
}

func decodeLog(b []byte, e *raft.Log) error {
	if err := checkVersion("raft log entry", b, logVersion); err != nil {
		return err
	}
	if len(b) < 22 {
		return fmt.Errorf("raft log entry of %d bytes", len(b))
	}
	n := uint64(binary.BigEndian.Uint32(b[18:]))
	if n > uint64(len(b)-22) {
		return fmt.Errorf("raft log entry with extensions of %d bytes", n)
	}
	e.Type = raft.LogType(b[1])
	e.Term = binary.BigEndian.Uint64(b[2:])
	e.AppendedAt = fromUnixNano(int64(binary.BigEndian.Uint64(b[10:])))
	e.Extensions = nil
	if n > 0 {
		e.Extensions = b[22 : 22+n]
	}
	e.Data = b[22+n:]
	return nil
}

// unixNano is t.UnixNano with 0 for the zero time, whose UnixNano is undefined.
func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromUnixNano(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}
