package relay

import (
	"context"
	"slices"

	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// Reader follows a room within the node, without a session. It is not safe
// for concurrent use.
type Reader struct {
	position
	topic *topic
	woken chan struct{}
}

// Follow returns a reader of the room's events after a position. Close it.
func (h *Hub) Follow(id room.ID, after uint64) (*Reader, error) {
	t, err := h.acquire(id, 0, false)
	if err != nil {
		return nil, err
	}
	life, _ := t.meet(0, 0)
	return &Reader{position: position{after, life}, topic: t, woken: make(chan struct{}, 1)}, nil
}

// Meet tells the reader the head and the epoch of the room as they were read after
// it began. It reports false if they and the topic are of two epochs: one of them
// will change.
func (r *Reader) Meet(head, epoch uint64) bool {
	_, current := r.topic.meet(head, epoch)
	return current
}

func (r *Reader) wake() {
	select {
	case r.woken <- struct{}{}:
	default:
	}
}

// Next waits for events and returns them encoded, in order, without a gap. An
// error of the feed is returned; Next may then be called again, unless it is
// epoch_changed.
func (r *Reader) Next(ctx context.Context) ([][]byte, error) {
	for {
		got, waits, err := r.read(ctx)
		switch {
		case err != nil:
			return nil, err
		case got.events > 0:
			return wire.SplitRun(got.run), nil
		case !waits:
			continue
		}
		select {
		case <-r.woken:
		case <-ctx.Done():
			r.forget()
			return nil, ctx.Err()
		}
	}
}

// read returns the next events. If there are none yet, the reader waits for them.
func (r *Reader) read(ctx context.Context) (got chunk, waits bool, err error) {
	t := r.topic
	t.mu.Lock()
	got, all, older, err := t.take(&r.position, chunkBytes)
	waits = all && got.events == 0 && err == nil
	if waits {
		t.readers = append(t.readers, r)
	}
	t.mu.Unlock()
	if !older {
		return got, waits, err
	}
	b, err := t.older.get(ctx, t, r.after, r.life)
	if err == nil {
		err = t.outlived(r.life)
	}
	if err != nil {
		return chunk{}, false, err
	}
	if b != nil {
		got = b.after(r.after, chunkBytes)
		r.after += uint64(got.events)
		return got, false, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if waits = t.drained(r.position); waits {
		t.readers = append(t.readers, r)
	}
	return chunk{}, waits, nil
}

func (r *Reader) forget() {
	r.topic.mu.Lock()
	defer r.topic.mu.Unlock()
	r.topic.readers = slices.DeleteFunc(r.topic.readers, func(x *Reader) bool { return x == r })
}

// Close gives the topic back.
func (r *Reader) Close() {
	r.forget()
	r.topic.hub.release(r.topic)
}
