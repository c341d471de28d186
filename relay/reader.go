package relay

import (
	"context"

	"github.com/starling-im/starling/room"
)

// Reader follows a room within the node, without a session. It is not safe
// for concurrent use.
type Reader struct {
	topic *topic
	after uint64
	life  uint64
	woken chan struct{}
}

// Follow returns a reader of the room's events after a position. Close it.
func (h *Hub) Follow(id room.ID, after uint64) (*Reader, error) {
	t, err := h.acquire(id, 0)
	if err != nil {
		return nil, err
	}
	life, _ := t.meet(0, 0)
	return &Reader{topic: t, after: after, life: life, woken: make(chan struct{}, 1)}, nil
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
		events, version, ok := r.topic.read(r.after, chunkBytes)
		if err := r.topic.outlived(r.life); err != nil {
			return nil, err
		}
		if !ok {
			var err error
			if events, err = r.topic.hub.cfg.Feed.Read(ctx, r.topic.id, r.after, chunkBytes); err != nil {
				return nil, err
			}
			if err := following(r.topic, r.after, events); err != nil {
				return nil, err
			}
		}
		if len(events) > 0 {
			r.after += uint64(len(events))
			return events, nil
		}
		if !r.topic.wait(r, version) {
			continue
		}
		select {
		case <-r.woken:
		case <-ctx.Done():
			r.topic.forget(r)
			return nil, ctx.Err()
		}
	}
}

// Close gives the topic back.
func (r *Reader) Close() {
	r.topic.forget(r)
	r.topic.hub.release(r.topic)
}
