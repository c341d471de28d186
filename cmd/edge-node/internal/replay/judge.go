package replay

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"maps"
	"slices"
	"sync"
	"time"
)

// An Event is what a follower received.
type Event struct {
	Seq  uint64
	User string
	Kind string
	Text string
	ID   string // client_msg_id
}

// A Judge compares what the followers of all regions received with what was
// sent and acked. It is safe for concurrent use.
type Judge struct {
	*ledger
	start   time.Time
	regions []string

	mu    sync.Mutex
	views []*view
	moved chan struct{} // has an element after something was delivered
}

// NewJudge judges a run over these regions.
func NewJudge(run string, regions []string) *Judge {
	return &Judge{ledger: newLedger(run), start: time.Now(), regions: regions, moved: make(chan struct{}, 1)}
}

// view is what one follower saw.
type view struct {
	judge  *Judge
	region int
	micros []uint32 // by line: from sending to delivery; kept for a region's first follower
	timed  bool

	mu      sync.Mutex
	watches map[string]*Watch
}

// follower adds a follower in a region, given by its index.
func (j *Judge) follower(region int) *view {
	j.mu.Lock()
	defer j.mu.Unlock()
	first := !slices.ContainsFunc(j.views, func(v *view) bool { return v.region == region })
	v := &view{judge: j, region: region, timed: first, watches: make(map[string]*Watch)}
	j.views = append(j.views, v)
	return v
}

// A Watch is one follower's sight of one room.
type Watch struct {
	view *view
	room string

	mu        sync.Mutex
	last      uint64
	missing   map[uint64]bool
	sum       hash.Hash
	buf       []byte
	delivered int
	wrong     wrongs
}

// wrongs count how the order of one room broke at one follower.
type wrongs struct{ gaps, duplicates, disorder int }

// maxMissing bounds the gaps that are told from duplicates when they fill.
const maxMissing = 1 << 16

// watch starts the sight of a room after a seq.
func (v *view) watch(room string, after uint64) *Watch {
	w := &Watch{view: v, room: room, last: after, missing: make(map[uint64]bool), sum: sha256.New()}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.watches[room] = w
	return w
}

// Take judges events in the order in which they were delivered.
func (w *Watch) Take(events []Event) {
	at := time.Since(w.view.judge.start)
	w.mu.Lock()
	for i := range events {
		w.take(&events[i], at)
	}
	w.mu.Unlock()
	select {
	case w.view.judge.moved <- struct{}{}:
	default:
	}
}

func (w *Watch) take(e *Event, at time.Duration) {
	switch {
	case e.Seq == w.last+1:
		w.last = e.Seq
	case e.Seq > w.last:
		w.wrong.gaps += int(e.Seq - w.last - 1)
		for s := w.last + 1; s < e.Seq && len(w.missing) < maxMissing; s++ {
			w.missing[s] = true
		}
		w.last = e.Seq
	case w.missing[e.Seq]:
		delete(w.missing, e.Seq)
		w.wrong.gaps--
		w.wrong.disorder++
	default:
		w.wrong.duplicates++
		return
	}
	j := w.view.judge
	line, ours := j.line(e.ID)
	if !ours {
		return
	}
	w.delivered++
	w.add(e)
	content := j.hash(w.room, e.User, e.Kind, e.Text)
	j.ledger.mu.Lock()
	defer j.ledger.mu.Unlock()
	if sent := j.see(line, e.Seq, content); sent != 0 && w.view.timed {
		w.view.time(line, micros(at-sent))
	}
}

// time keeps how long a line took. The caller holds the ledger's lock.
func (v *view) time(line int, us uint32) {
	for len(v.micros) <= line {
		v.micros = append(v.micros, make([]uint32, max(1024, len(v.micros)/2))...)
	}
	v.micros[line] = us
}

// add puts an event into the room's hash, each field with its length.
func (w *Watch) add(e *Event) {
	b := binary.AppendUvarint(w.buf[:0], e.Seq)
	for _, s := range [...]string{e.User, e.Kind, e.Text, e.ID} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	_, _ = w.sum.Write(b)
	w.buf = b
}

// Behind says what the followers have not received of what was acked; nothing
// if they are through.
func (j *Judge) Behind() (behind []string) {
	j.ledger.mu.Lock()
	rooms, top := slices.Clone(j.rooms), slices.Clone(j.top)
	j.ledger.mu.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, v := range j.views {
		for i, room := range rooms {
			if at := v.at(room); at < top[i] {
				behind = append(behind, fmt.Sprintf("%s is at %d of %d of %s", j.regions[v.region], at, top[i], room))
			}
		}
	}
	return behind
}

func (v *view) at(room string) uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	w := v.watches[room]
	if w == nil {
		return 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// sight is the sum of what one follower saw.
type sight struct {
	delivered int
	wrong     wrongs
	rooms     map[string]string // sha256 of each
	sha256    string            // over the rooms' hashes in order of their names
}

func (v *view) close() sight {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := sight{rooms: make(map[string]string)}
	all := sha256.New()
	for _, room := range slices.Sorted(maps.Keys(v.watches)) {
		w := v.watches[room]
		w.mu.Lock()
		s.delivered += w.delivered
		s.wrong.gaps += w.wrong.gaps
		s.wrong.duplicates += w.wrong.duplicates
		s.wrong.disorder += w.wrong.disorder
		sum := w.sum.Sum(nil)
		w.mu.Unlock()
		s.rooms[room] = hex.EncodeToString(sum)
		_, _ = all.Write(sum)
	}
	s.sha256 = hex.EncodeToString(all.Sum(nil))
	return s
}

// RoomEvents returns how many events of this run each room got.
func (j *Judge) RoomEvents() map[string]int {
	j.ledger.mu.Lock()
	defer j.ledger.mu.Unlock()
	events := make(map[string]int)
	for i := range j.entries {
		if e := &j.entries[i]; e.seen != 0 && e.content != 0 {
			events[j.rooms[e.room]]++
		}
	}
	return events
}
