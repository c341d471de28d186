package relay

import (
	"context"
	"slices"
	"sync"

	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// A topic is the tail of one room's events on this node.
//
// The tail is a list of blocks that follow each other. It is trimmed from the front and
// appended to at the end. What is older is read through the feed, see pages. Cursors that
// have read all wait in the topic: the next event hands the whole list to the hub's pump,
// at a cost that does not depend on its length.
type topic struct {
	id   room.ID
	hub  *Hub
	stop context.CancelFunc // ends the feed; guarded by hub.mu

	mu     sync.Mutex
	blocks []*block
	next   uint64 // the seq that comes next; 0 = it is not known where the tail starts
	bytes  int
	epoch  uint64 // of the room that the tail is of; 0 = not known
	born   uint64 // the epoch of a room whose first event comes now
	life   uint64 // counts the changes of a known epoch
	gone   bool   // given back by its last follower: takes nothing any more

	waiting []*cursor
	spare   []*cursor // an empty list, used again
	readers []*Reader // that wait
	older   pages
	heads   heads

	turn turn // guarded by the pump's lock

	// Guarded by hub.mu.
	refs int
	duty Duty
}

// append adds the event with the number seq. One that the tail has already is
// dropped; one beyond the next number starts the tail anew, and followers read
// what is between as history.
func (t *topic) append(seq uint64, event []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if seq < t.next || t.gone {
		return
	}
	if t.epoch == 0 {
		t.epoch = t.born
	}
	if seq > t.next {
		t.restart(seq)
	}
	t.add(event)
	t.trim(t.hub.cfg.TailBytes, 1)
	t.changed()
}

// tailBlocks is how many blocks a full tail has at least: it is trimmed by whole ones.
const tailBlocks = 4

// add puts an event at the end; t is locked.
func (t *topic) add(event []byte) {
	var last *block
	if len(t.blocks) > 0 {
		last = t.blocks[len(t.blocks)-1]
	}
	before := 0
	if last == nil || !last.fits(event) {
		size := 0
		if last != nil {
			size = cap(last.run)
		}
		last = newBlock(t.next, event, size, t.hub.cfg.TailBytes/tailBlocks)
		t.blocks = append(t.blocks, last)
	} else {
		before = last.bytes()
	}
	last.add(event)
	t.next++
	t.account(last.bytes() - before)
}

// account notes n more bytes; t is locked.
func (t *topic) account(n int) {
	t.bytes += n
	t.hub.bytes.Add(int64(n))
}

// restart has the tail begin at a seq; t is locked.
func (t *topic) restart(seq uint64) {
	t.account(-t.bytes)
	t.blocks, t.next = nil, seq
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
		t.older.forget()
	}
	if t.gone || !renewed && t.next > 0 && head < t.next {
		return
	}
	t.restart(head + 1)
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
	return t.ended(life)
}

// ended is outlived; t is locked.
func (t *topic) ended(life uint64) error {
	if life == t.life {
		return nil
	}
	return wire.Errorf(wire.CodeEpochChanged, "room %q was recovered with loss and has another epoch: follow it again", t.id.Room)
}

// changed wakes all who wait; t is locked.
func (t *topic) changed() {
	if len(t.waiting) > 0 {
		t.hub.pump.wake(t, t.waiting)
		t.waiting, t.spare = t.spare, nil
	}
	for i, r := range t.readers {
		r.wake()
		t.readers[i] = nil
	}
	t.readers = t.readers[:0]
}

// reuse takes back a list of cursors that were woken.
func (t *topic) reuse(woken []*cursor) {
	clear(woken)
	t.mu.Lock()
	defer t.mu.Unlock()
	if cap(woken) > cap(t.spare) {
		t.spare = woken[:0]
	}
}

// trim drops the oldest blocks until the tail has at most so many bytes, or just as many
// blocks; t is locked.
func (t *topic) trim(bytes, blocks int) {
	n, size := 0, t.bytes
	for ; size > bytes && len(t.blocks)-n > blocks; n++ {
		size -= t.blocks[n].bytes()
	}
	if n > 0 {
		t.blocks = slices.Delete(t.blocks, 0, n)
		t.account(size - t.bytes)
	}
}

// halve makes the tail half as large, for the sake of the node.
func (t *topic) halve() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.older.forget()
	t.trim(t.bytes/2, 0)
}

// last returns the seq up to which the topic needs nothing more; known is
// false if it has no beginning yet.
func (t *topic) last() (seq uint64, known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return max(t.next, 1) - 1, t.next > 0
}

// reached reports whether a position, which may be any number, is where the tail ends or
// beyond; t is locked.
func (t *topic) reached(after uint64) bool { return t.next > 0 && after >= t.next-1 }

// find returns the block with the event after a position. If there is none, reached says
// that there is none yet; else ask the feed. t is locked.
func (t *topic) find(after uint64) (b *block, reached bool) {
	if t.reached(after) {
		return nil, true
	}
	for i := len(t.blocks) - 1; i >= 0 && after+1 < t.blocks[i].next(); i-- {
		if t.blocks[i].has(after) {
			return t.blocks[i], false
		}
	}
	return nil, false
}

// take moves a position on by events, as many as fit into max bytes and at least one. All
// says that there are no more; older that the tail does not reach back so far, and the
// position is where it was. t is locked.
func (t *topic) take(p *position, max int) (got chunk, all, older bool, err error) {
	if err := t.ended(p.life); err != nil {
		return chunk{}, false, false, err
	}
	b, reached := t.find(p.after)
	switch {
	case b != nil:
		got = b.after(p.after, max)
		p.after += uint64(got.events)
		t.hub.stats.hits.Add(1)
	case !reached:
		t.hub.stats.misses.Add(1)
		return chunk{}, false, true, nil
	}
	return got, t.reached(p.after), false, nil
}

// read is take for a cursor. If it then has all that there are, it waits: its next wake may
// come at any time.
func (t *topic) read(c *cursor, max int) (got chunk, waits, older bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	got, waits, older, err = t.take(&c.position, max)
	if waits {
		t.wait(c)
	}
	return got, waits, older, err
}

// await has c wait if it has all that there are, as far as is known.
func (t *topic) await(c *cursor) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.drained(c.position) {
		return false
	}
	t.wait(c)
	return true
}

// drained reports whether a position has all that there are, as far as is known; t is locked.
func (t *topic) drained(p position) bool {
	return p.life == t.life && (t.next == 0 || t.reached(p.after))
}

// wait has c wait, unless it was forgotten; t is locked.
func (t *topic) wait(c *cursor) {
	if !c.gone {
		t.waiting = append(t.waiting, c)
	}
}

// lags reports whether a position is before what the topic knows to exist.
func (t *topic) lags(after uint64) bool {
	last, known := t.last()
	return known && after < last
}

// forget has c wait neither now nor later.
func (t *topic) forget(c *cursor) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.gone = true
	if i := slices.Index(t.waiting, c); i >= 0 {
		last := len(t.waiting) - 1
		t.waiting[i], t.waiting[last] = t.waiting[last], nil
		t.waiting = t.waiting[:last]
	}
}

// following checks that events are what comes after a position. A feed that
// lags behind the topic is to be asked again; one that skips is a fault.
func following(t *topic, after uint64, events [][]byte) error {
	if len(events) == 0 && t.lags(after) {
		return wire.Errorf(wire.CodeUnavailable, "history of %q does not reach back to %d yet", t.id.Room, after)
	}
	for i, e := range events {
		if want := after + 1 + uint64(i); wire.EventSeq(e) != want {
			return wire.Errorf(wire.CodeInternal, "history of %q has seq %d where %d belongs", t.id.Room, wire.EventSeq(e), want)
		}
	}
	return nil
}
