package relay

import (
	"context"
	"sync"

	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// A topic is the tail of one room's events on this node.
//
// The tail holds consecutive events: tail[i] has seq first+i. It is trimmed
// from the front and appended to at the end; the bytes of an event never
// change, so readers keep them without a copy. What is older than the tail is
// read through the feed. first is 0 until it is known where the tail starts.
type topic struct {
	id   room.ID
	hub  *Hub
	stop context.CancelFunc // ends the feed; guarded by hub.mu

	mu      sync.Mutex
	first   uint64
	tail    [][]byte
	bytes   int
	version uint64 // counts changes of the tail; see wait
	epoch   uint64 // of the room that the tail is of; 0 = not known
	born    uint64 // the epoch of a room whose first event comes now
	life    uint64 // counts the changes of a known epoch
	gone    bool   // given back by its last follower: takes nothing any more
	waiting []waiter

	// Guarded by hub.mu.
	refs int
	duty Duty
}

// A waiter wants to know when its topic has something new. wake is called
// once, with the topic locked, and must not block.
type waiter interface{ wake() }

// append adds the event with the number seq. One that the tail has already is
// dropped; one beyond the next number starts the tail anew, and followers read
// what is between as history.
func (t *topic) append(seq uint64, event []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := t.first + uint64(len(t.tail))
	if seq < next || t.gone {
		return
	}
	if t.epoch == 0 {
		t.epoch = t.born
	}
	if seq > next {
		t.hub.account(-t.bytes)
		t.first, t.tail, t.bytes = seq, nil, 0
	}
	t.tail = append(t.tail, event)
	t.grow(len(event))
	t.changed()
}

// begin says that every event after head will be appended. If that is news,
// the tail starts anew there, and who waits reads what is between as history. With
// a later epoch it starts anew in any case: what the tail has may be no more, and
// who reads it must follow again.
func (t *topic) begin(head, epoch uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	renewed := t.epoch != 0 && epoch > t.epoch
	t.born = epoch
	if head > 0 || renewed { // a room that does not exist may be made elsewhere
		t.epoch = max(t.epoch, epoch)
	}
	if renewed {
		t.life++
	}
	if t.gone || !renewed && t.first > 0 && head+1 <= t.first+uint64(len(t.tail)) {
		return
	}
	t.hub.account(-t.bytes)
	t.first, t.tail, t.bytes = head+1, nil, 0
	t.changed()
}

// meet compares the epoch of a room as it was just read with that of the topic,
// and returns the life for which a reader of the topic reads. It reports false if
// one of the two has yet to hear of the other's epoch.
func (t *topic) meet(head, epoch uint64) (life uint64, current bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.epoch == 0 && head > 0 {
		t.epoch = epoch
	}
	return t.life, t.epoch == 0 || epoch == t.epoch
}

// outlived says that what was read in a life may not be what the room holds.
func (t *topic) outlived(life uint64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if life == t.life {
		return nil
	}
	return wire.Errorf(wire.CodeEpochChanged, "room %q was recovered with loss and has another epoch: follow it again", t.id.Room)
}

// changed wakes all who wait; t is locked.
func (t *topic) changed() {
	t.version++
	for _, w := range t.waiting {
		w.wake()
	}
	clear(t.waiting)
	t.waiting = t.waiting[:0]
}

// grow accounts n more bytes and trims the tail to its bound. The newest event
// always stays.
func (t *topic) grow(n int) {
	t.bytes += n
	t.hub.account(n)
	if t.bytes > t.hub.cfg.TailBytes {
		t.drop(t.bytes-t.hub.cfg.TailBytes, len(t.tail)-1)
	}
}

// trim makes the tail half as large, for the sake of the node.
func (t *topic) trim() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop((t.bytes+1)/2, len(t.tail))
}

// drop removes the oldest events, at least so many bytes of them and at most so
// many events.
func (t *topic) drop(bytes, most int) {
	n, size := 0, 0
	for ; n < most && size < bytes; n++ {
		size += len(t.tail[n])
		t.tail[n] = nil
	}
	t.bytes -= size
	t.hub.account(-size)
	t.first += uint64(n)
	t.tail = t.tail[n:]
}

// last returns the seq up to which the topic needs nothing more; known is
// false if it has no beginning yet.
func (t *topic) last() (seq uint64, known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.first == 0 {
		return 0, false
	}
	return t.first + uint64(len(t.tail)) - 1, true
}

// read returns events after a position, as many as fit into max bytes of
// frame and at least one if there is one. ok is false if the tail does not
// reach back so far: ask the feed. version goes to wait.
func (t *topic) read(after uint64, max int) (events [][]byte, version uint64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.first == 0 || after+1 < t.first {
		return nil, t.version, false
	}
	from := after + 1 - t.first
	if from >= uint64(len(t.tail)) {
		return nil, t.version, true
	}
	n, size := 0, 0
	for _, e := range t.tail[from:] {
		size += len(e) + wire.EventOverhead
		if n > 0 && size > max {
			break
		}
		n++
	}
	// A copy of the slice, not of the events: grow forgets what it trims.
	events = append(make([][]byte, 0, n), t.tail[from:from+uint64(n)]...)
	return events, t.version, true
}

// lags reports whether a position is before what the topic knows to exist.
func (t *topic) lags(after uint64) bool {
	last, known := t.last()
	return known && after < last
}

// wait registers w for the next event. It returns false, and does nothing, if
// the tail has changed since version: read again.
func (t *topic) wait(w waiter, version uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.version != version {
		return false
	}
	t.waiting = append(t.waiting, w)
	return true
}

// forget removes w if it is waiting.
func (t *topic) forget(w waiter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, x := range t.waiting {
		if x == w {
			last := len(t.waiting) - 1
			t.waiting[i], t.waiting[last] = t.waiting[last], nil
			t.waiting = t.waiting[:last]
			return
		}
	}
}
