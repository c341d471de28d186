package client

import (
	"context"
	"iter"
	"sync"
	"time"

	"github.com/starling-im/starling/wire"
)

// followEvents and followBytes bound what waits in one Follow to be read.
// Above either, the client stops following until a half is read.
const (
	followEvents = 4096
	followBytes  = 1 << 20
	// eventOverhead is what a waiting event takes beside its encoding.
	eventOverhead = 64
)

// Follow yields the events of one room in order, without a gap or a double.
// Its methods may be called by one goroutine at a time, save Head and Close.
type Follow struct {
	c       *Client
	room    string
	signals signals
	woken   chan struct{} // holds a token when queue or err has changed
	asked   chan struct{} // closed when the first Follow was answered

	mu       sync.Mutex
	queue    [][]byte // encoded events up to last
	bytes    int
	fromHead bool   // last is not known yet
	last     uint64 // everything up to here was taken
	head     uint64
	epoch    uint64
	sub      *subscription // how events come now; nil = not
	full     bool          // waits for the reader
	tries    int           // without success between
	timer    *time.Timer
	err      error // what Next returns after the queue
}

// Follow follows a room from after the event with seq after; 0 = from its
// beginning. It returns once a node has answered. The error is a *TooFar, a
// *wire.Error, or that of ctx.
func (c *Client) Follow(ctx context.Context, room string, after uint64, opts ...FollowOption) (*Follow, error) {
	return c.follow(ctx, &Follow{room: room, last: after, head: after}, opts)
}

// FollowFromHead follows a room from its end: only what comes from now on.
func (c *Client) FollowFromHead(ctx context.Context, room string, opts ...FollowOption) (*Follow, error) {
	return c.follow(ctx, &Follow{room: room, fromHead: true}, opts)
}

func (c *Client) follow(ctx context.Context, f *Follow, opts []FollowOption) (*Follow, error) {
	for _, o := range opts {
		o(f)
	}
	f.c, f.woken, f.asked = c, make(chan struct{}, 1), make(chan struct{})
	c.mu.Lock()
	if c.end != nil {
		c.mu.Unlock()
		return nil, c.end
	}
	c.follows[f] = struct{}{}
	l := c.link
	c.mu.Unlock()
	if l != nil {
		f.attach(l)
	}
	select {
	case <-f.asked:
	case <-ctx.Done():
		f.Close()
		return nil, context.Cause(ctx)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	return f, nil
}

// Room returns the room that is followed.
func (f *Follow) Room() string { return f.room }

// Head returns the newest seq of the room that the client has heard of.
func (f *Follow) Head() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return max(f.head, f.last)
}

// Close ends the Follow; what waits to be read may still be.
func (f *Follow) Close() { f.fail(ErrClosed) }

// Next waits for the next event. After the last one that came in it returns
// why no more will: *TooFar, *EpochChanged, a *wire.Error, ErrClosed.
func (f *Follow) Next(ctx context.Context) (Event, error) {
	raw, err := f.take(ctx, 1)
	if err != nil {
		return Event{}, err
	}
	return f.decode(raw[0])
}

// NextBatch waits for an event and returns it with those that have come
// after, at most max of them.
func (f *Follow) NextBatch(ctx context.Context, max int) ([]Event, error) {
	raw, err := f.take(ctx, max)
	if err != nil {
		return nil, err
	}
	events := make([]Event, len(raw))
	for i, r := range raw {
		if events[i], err = f.decode(r); err != nil {
			return events[:i], err
		}
	}
	return events, nil
}

// Events yields the events until ctx ends or Next would fail, and then once
// the error.
func (f *Follow) Events(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for {
			e, err := f.Next(ctx)
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

func (f *Follow) decode(raw []byte) (Event, error) {
	e, err := wire.DecodeEvent(raw)
	if err != nil {
		f.fail(err)
		return Event{}, err
	}
	return eventOf(f.room, e), nil
}

// take waits for events and removes at most max of them from the queue.
func (f *Follow) take(ctx context.Context, max int) ([][]byte, error) {
	for {
		raw, err, resume := f.pop(max)
		if resume {
			if l := f.c.current(); l != nil {
				f.attach(l)
			}
		}
		if len(raw) > 0 || err != nil {
			return raw, err
		}
		select {
		case <-f.woken:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (f *Follow) pop(max int) (raw [][]byte, err error, resume bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.queue) == 0 {
		return nil, f.err, false
	}
	n := min(len(f.queue), max)
	raw = append(raw, f.queue[:n]...)
	clear(f.queue[:n])
	f.queue = f.queue[n:]
	for _, r := range raw {
		f.bytes -= len(r) + eventOverhead
	}
	if f.full && len(f.queue) <= followEvents/2 && f.bytes <= followBytes/2 {
		f.full = false
		resume = true
	}
	return raw, nil, resume
}

// wake tells the reader that queue or err has changed.
func (f *Follow) wake() {
	select {
	case f.woken <- struct{}{}:
	default:
	}
}

// fail ends the Follow, once.
func (f *Follow) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failLocked(err)
}

func (f *Follow) failLocked(err error) {
	if f.err != nil {
		return
	}
	f.err = err
	if f.timer != nil {
		f.timer.Stop()
	}
	f.detach()
	f.started()
	f.wake()
	f.c.forget(f)
}

// started lets who waits for the first answer go on.
func (f *Follow) started() {
	select {
	case <-f.asked:
	default:
		close(f.asked)
	}
}

func (c *Client) forget(f *Follow) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.follows, f)
}
