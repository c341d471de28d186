package relay

import (
	"context"
	"sync"
	"time"

	"github.com/starling-im/starling/wire"
)

// heads are the questions for a room's newest seq, which may go to another region: a crowd
// that follows at once asks twice. Who asks while a question is under way shares the next
// one, so that no answer is older than the question of who gets it.
type heads struct {
	mu    sync.Mutex
	under *headQuestion // the last that was sent; nil: it has its answer
	next  *headQuestion
}

type headQuestion struct {
	done        chan struct{}
	head, epoch uint64
	err         error
}

// headPatience is how long a question waits for the one before: that may have gone to a
// node that has just died.
const headPatience = 250 * time.Millisecond

// ask returns the head and the epoch of the topic's room as they are now.
func (h *heads) ask(ctx context.Context, t *topic) (head, epoch uint64, err error) {
	q := h.join(t)
	select {
	case <-q.done:
		return q.head, q.epoch, q.err
	case <-ctx.Done():
		return 0, 0, wire.Errorf(wire.CodeUnavailable, "the newest seq of room %q is not known yet", t.id.Room).After(readAgain)
	}
}

// join returns a question that was not sent before.
func (h *heads) join(t *topic) *headQuestion {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.next != nil {
		return h.next
	}
	q := &headQuestion{done: make(chan struct{})}
	h.next = q
	if h.under == nil {
		h.send(t)
		return q
	}
	time.AfterFunc(headPatience, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.next == q {
			h.send(t)
		}
	})
	return q
}

// send sends the next question; mu is held.
func (h *heads) send(t *topic) {
	q := h.next
	h.under, h.next = q, nil
	if !t.hub.running(func() { h.answer(t, q) }) {
		q.err = errGone
		close(q.done)
	}
}

func (h *heads) answer(t *topic, q *headQuestion) {
	ctx, cancel := context.WithTimeout(t.hub.ctx, askWithin)
	defer cancel()
	q.head, q.epoch, q.err = t.hub.cfg.Feed.Head(ctx, t.id)
	close(q.done)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.under != q {
		return
	}
	if h.under = nil; h.next != nil {
		h.send(t)
	}
}
