package consensus

import (
	"encoding/binary"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"
)

// ahead are entries that were read before Raft has asked for them. Raft reads its
// log one entry after the other, twice at each start; a look-up of each in all
// tables of the store took most of the time from start to serving.
type ahead struct {
	mu      sync.Mutex
	entries []raft.Log // consecutive; nil once all were asked for
	next    uint64     // the index that is asked for next, if entries are asked for in order
	changes uint64     // of the log other than at its end
}

const (
	// aheadBytes and aheadEntries bound what is read ahead in a group. It is kept
	// until Raft has asked for it or the log is cut.
	aheadBytes   = 256 << 10
	aheadEntries = 256
)

// take gives out an entry that was read ahead. If it was not, inOrder says
// whether the one before it was asked for last, and as of which change.
func (a *ahead) take(index uint64, to *raft.Log) (ok, inOrder bool, changes uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	inOrder, changes = index == a.next, a.changes
	a.next = index + 1
	n := len(a.entries)
	if n == 0 || index < a.entries[0].Index || index > a.entries[n-1].Index {
		return false, inOrder, changes
	}
	at := index - a.entries[0].Index
	*to = a.entries[at]
	if a.entries = a.entries[at+1:]; len(a.entries) == 0 {
		a.entries = nil
	}
	return true, inOrder, changes
}

// give takes what was read as of a change.
func (a *ahead) give(entries []raft.Log, changes uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if changes == a.changes {
		a.entries = entries
	}
}

// drop forgets what was read, because the log has changed.
func (a *ahead) drop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.entries, a.next = nil, 0
	a.changes++
}

// readAhead reads the entry and some of those after it, and keeps these.
func (l *logStore) readAhead(index uint64, to *raft.Log, changes uint64) (found bool, err error) {
	if err := l.s.err(); err != nil {
		return false, err
	}
	end := tableEnd(tableLog, l.group)
	l.mu.RLock()
	if len(l.recent) > 0 && index < l.recent[0].Index {
		end = l.key(l.recent[0].Index) // these are in memory already
	}
	l.mu.RUnlock()
	it, err := l.s.db.NewIter(&pebble.IterOptions{LowerBound: l.key(index), UpperBound: end})
	if err != nil {
		return false, l.s.fail(err)
	}
	var entries []raft.Log
	size := 0
	for ok := it.First(); ok && size < aheadBytes && len(entries) < aheadEntries; ok = it.Next() {
		e := raft.Log{Index: binary.BigEndian.Uint64(it.Key()[5:])}
		if e.Index != index+uint64(len(entries)) {
			break
		}
		value, err := it.ValueAndErr()
		if err == nil {
			size += len(value)
			err = decodeLog(append([]byte{}, value...), &e)
		}
		if err != nil {
			_ = it.Close()
			return false, l.s.fail(err)
		}
		entries = append(entries, e)
	}
	if err := it.Close(); err != nil {
		return false, l.s.fail(err)
	}
	if len(entries) == 0 {
		return false, nil
	}
	*to = entries[0]
	l.ahead.give(entries[1:], changes)
	return true, nil
}
