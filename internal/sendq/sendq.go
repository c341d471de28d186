// Package sendq gathers the frames of one stream and writes them together.
//
// Push promises: it does not block, keeps order, holds at most Max bytes, and
// costs a goroutine only while there is something to write. The first frame
// leaves at once; what is pushed while a write is under way leaves with the
// next one.
package sendq

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

// ErrFull says that the queue holds its maximum; nothing was taken.
var ErrFull = errors.New("sendq: queue is full")

// Writer is the stream that a Queue writes to.
type Writer interface {
	io.Writer
	SetWriteDeadline(time.Time) error
}

// Config says how a Queue behaves.
type Config struct {
	// Max bounds the bytes that wait, without those of the write under way.
	Max int
	// Stall is how long one write may take; 0 = for ever.
	Stall time.Duration
	// Failed is called once, with the first error of a write, from the
	// writing goroutine. Every later Push returns that error.
	Failed func(error)
}

// Queue is the sending side of one stream. Use New.
type Queue struct {
	w   Writer
	cfg Config

	mu      sync.Mutex
	waiting []byte // to be written next
	spare   []byte // the buffer of the last write, used again
	busy    bool   // a writer goroutine runs
	writing bool   // it has taken what is to be written
	writes  uint64 // that are over
	err     error  // the first failure
	space   chan struct{}
	wrote   chan struct{} // closed with the end of a write
}

// New returns a queue that writes to w.
func New(w Writer, cfg Config) *Queue {
	return &Queue{w: w, cfg: cfg}
}

// Push queues the bytes of one or more whole frames; it keeps no reference to
// them. It returns ErrFull, or the error that ended the queue.
func (q *Queue) Push(frame []byte) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.push(frame, q.cfg.Max)
}

func (q *Queue) push(frame []byte, max int) error {
	if q.err != nil {
		return q.err
	}
	if len(q.waiting) > 0 && len(q.waiting)+len(frame) > max {
		return ErrFull
	}
	q.waiting = append(q.waiting, frame...)
	if !q.busy {
		q.busy = true
		go q.write()
	}
	return nil
}

// PushWait is for bulk: it waits for space instead of returning ErrFull, and
// leaves half of the queue to those who cannot wait.
func (q *Queue) PushWait(ctx context.Context, frame []byte) error {
	for {
		q.mu.Lock()
		err := q.push(frame, q.cfg.Max/2)
		if !errors.Is(err, ErrFull) {
			q.mu.Unlock()
			return err
		}
		if q.space == nil {
			q.space = make(chan struct{})
		}
		space := q.space
		q.mu.Unlock()
		select {
		case <-space:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Flush waits until all that was pushed before is written, or the queue has failed.
func (q *Queue) Flush(ctx context.Context) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	last := q.writes
	if q.writing {
		last++
	}
	if len(q.waiting) > 0 {
		last++
	}
	for q.writes < last && q.err == nil {
		if q.wrote == nil {
			q.wrote = make(chan struct{})
		}
		wrote := q.wrote
		q.mu.Unlock()
		select {
		case <-wrote:
		case <-ctx.Done():
		}
		q.mu.Lock()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return q.err
}

// Len returns the bytes that wait, without those of the write under way.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting)
}

// write runs while there is something to write.
func (q *Queue) write() {
	for {
		q.mu.Lock()
		if len(q.waiting) == 0 || q.err != nil {
			q.rest()
			q.mu.Unlock()
			return
		}
		out := q.waiting
		q.waiting, q.spare, q.writing = q.spare[:0], nil, true
		q.wake(&q.space)
		q.mu.Unlock()

		err := q.send(out)

		q.mu.Lock()
		q.writing = false
		q.writes++
		if cap(out) <= keepBuffer {
			q.spare = out
		}
		if err != nil && q.err == nil {
			q.err = err
		}
		q.wake(&q.wrote)
		q.mu.Unlock()
		if err != nil && q.cfg.Failed != nil {
			q.cfg.Failed(err)
		}
	}
}

// rest is called with mu held when the writer goroutine is about to end.
func (q *Queue) rest() {
	q.busy = false
	q.wake(&q.space)
	if q.err != nil {
		q.waiting, q.spare = nil, nil
	}
}

func (q *Queue) send(out []byte) error {
	if q.cfg.Stall > 0 {
		if err := q.w.SetWriteDeadline(time.Now().Add(q.cfg.Stall)); err != nil {
			return err
		}
	}
	_, err := q.w.Write(out)
	return err
}

func (q *Queue) wake(ch *chan struct{}) {
	if *ch != nil {
		close(*ch)
		*ch = nil
	}
}

// keepBuffer is the largest buffer that is kept between writes, in bytes, so
// that an idle stream holds little.
const keepBuffer = 64 << 10
