package replay

import (
	"fmt"
	"hash/maphash"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ledger is what is known of each record: what was sent, how it ended, and
// what was seen of it first. It costs about 60 bytes a record.
type ledger struct {
	prefix string // of the ids of this run
	seed   maphash.Seed

	mu      sync.Mutex
	entries []entry // by line
	rooms   []string
	index   map[string]uint32 // of rooms
	top     []uint64          // by room: the highest acked seq
	tally   tally
}

// tally counts records, and what is wrong with them.
type tally struct {
	read, sent, acked, before, rejected, events int
	changed, doubled                            int
}

type entry struct {
	content  uint64 // hash of what was sent; 0 = nothing yet
	seen     uint64 // hash of the event that was seen first; 0 = none yet
	seq      uint64 // of that event
	acked    uint64 // the seq that was acked; 0 = none
	at       time.Duration
	ack      uint32 // µs from sending to the ack
	room     uint32
	from     uint8 // region of the sender
	rejected bool
}

// maxLines bounds the lines of a file.
const maxLines = 1 << 26

func newLedger(run string) *ledger {
	return &ledger{prefix: run + "/", seed: maphash.MakeSeed(), index: make(map[string]uint32)}
}

// id is the client_msg_id of a line. Ids sort as their lines do, as those of
// most clients sort by time: that is what nodes are made for.
func (l *ledger) id(line int) string { return fmt.Sprintf("%s%08d", l.prefix, line) }

// line is the line that an id stands for; ours is false for other runs' ids.
func (l *ledger) line(id string) (line int, ours bool) {
	digits, ours := strings.CutPrefix(id, l.prefix)
	if !ours {
		return 0, false
	}
	line, err := strconv.Atoi(digits)
	return line, err == nil && line > 0 && line <= maxLines
}

// hash identifies what a record says.
func (l *ledger) hash(room, user, kind, text string) uint64 {
	var h maphash.Hash
	h.SetSeed(l.seed)
	for _, s := range [...]string{room, user, kind, text} {
		_, _ = h.WriteString(s)
		_ = h.WriteByte(0xff) // no part of any UTF-8
	}
	return max(h.Sum64(), 1)
}

// entry returns the entry of a line. The caller holds the lock.
func (l *ledger) entry(line int) *entry {
	for len(l.entries) <= line {
		l.entries = append(l.entries, make([]entry, max(1024, len(l.entries)/2))...)
	}
	return &l.entries[line]
}

// roomIndex numbers the rooms. The caller holds the lock.
func (l *ledger) roomIndex(room string) uint32 {
	i, ok := l.index[room]
	if !ok {
		i = uint32(len(l.rooms))
		l.index[room] = i
		l.rooms = append(l.rooms, room)
		l.top = append(l.top, 0)
	}
	return i
}

func (l *ledger) sent(r Record, from int, at time.Duration) {
	content := l.hash(r.Room, r.User, r.Kind, r.Text)
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entry(r.Line)
	e.content, e.room, e.from, e.at = content, l.roomIndex(r.Room), uint8(from), at
	l.tally.sent++
	if e.seen != 0 && e.seen != content {
		l.tally.changed++
	}
}

// ack notes an ack; before says that the record had its event already.
func (l *ledger) ack(line int, seq uint64, before bool, at time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entry(line)
	e.acked, e.ack = seq, micros(at-e.at)
	l.top[e.room] = max(l.top[e.room], seq)
	l.tally.acked++
	if before {
		l.tally.before++
	}
}

func (l *ledger) reject(line int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entry(line).rejected = true
	l.tally.rejected++
}

// took notes that a record was read.
func (l *ledger) took() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tally.read++
}

// counts returns how many records were read, sent, acked and rejected so far.
func (l *ledger) counts() tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tally
}

// see notes that an event of this run was delivered and returns when it was
// sent, 0 if this invocation did not send it. The caller holds the lock.
func (l *ledger) see(line int, seq, content uint64) time.Duration {
	e := l.entry(line)
	switch {
	case e.seen == 0:
		e.seen, e.seq = content, seq
		l.tally.events++
		if e.content != 0 && e.content != content {
			l.tally.changed++
		}
	case e.seq != seq:
		l.tally.doubled++
	case e.seen != content:
		l.tally.changed++
	}
	if e.content == 0 {
		return 0
	}
	return e.at
}

// close counts what only the end can tell: how many acked records are not
// where the ack said, and how many rejected ones took effect.
func (l *ledger) close() (lost, unwanted int) {
	for i := range l.entries {
		e := &l.entries[i]
		if e.acked != 0 && (e.seen == 0 || e.seq != e.acked) {
			lost++
		}
		if e.rejected && e.seen != 0 {
			unwanted++
		}
	}
	return lost, unwanted
}

// micros is a duration as it is kept: at least 1 µs, since 0 means none.
func micros(d time.Duration) uint32 {
	return uint32(min(max(d.Microseconds(), 1), math.MaxUint32))
}
