package client

import (
	"bytes"
	"context"

	"github.com/starling-im/starling/wire"
)

// Publish sends a message and waits for its end: nil, *Rejected or *Unknown.
// It tries until ctx ends, over as many sessions as that takes.
func (c *Client) Publish(ctx context.Context, m Message) (Ack, error) {
	return waitFor(func(done func(Ack, error)) { c.Send(ctx, m, done) })
}

// Create makes a room, and waits for the end of that as Publish does. A room
// that exists is *Rejected with ErrExists; after an *Unknown of the same room
// that may be one's own doing.
func (c *Client) Create(ctx context.Context, room string, access Access) (Ack, error) {
	id := newID()
	return waitFor(func(done func(Ack, error)) {
		c.send(ctx, room, id, done, func(attempt uint32) *wire.Frame {
			return &wire.Frame{Body: &wire.Frame_Create{Create: &wire.Create{
				Room: room, ClientMsgId: id, Access: wire.Access(access), Attempt: attempt,
			}}}
		})
	})
}

func waitFor(send func(done func(Ack, error))) (Ack, error) {
	type result struct {
		ack Ack
		err error
	}
	results := make(chan result, 1)
	send(func(a Ack, err error) { results <- result{a, err} })
	r := <-results
	return r.ack, r.err
}

// Send is Publish that does not wait: done is called once with the outcome,
// which must not block; perhaps before Send returns. Sends to one room keep
// their order. Send blocks only while as many sends are open as may be.
func (c *Client) Send(ctx context.Context, m Message, done func(Ack, error)) {
	if m.ID == "" {
		m.ID = newID()
	}
	if m.Kind == 0 {
		m.Kind = KindMessage
	}
	if len(m.Content) > c.maxContent() {
		done(Ack{}, &Rejected{m.ID, wire.TooLarge("content", uint64(len(m.Content)), uint64(c.maxContent()))})
		return
	}
	var trace []byte
	if m.Trace != [16]byte{} {
		trace = bytes.Clone(m.Trace[:])
	}
	c.send(ctx, m.Room, m.ID, done, func(attempt uint32) *wire.Frame {
		return &wire.Frame{Body: &wire.Frame_Publish{Publish: &wire.Publish{
			Room: m.Room, ClientMsgId: m.ID, Kind: wire.Kind(m.Kind), Type: m.Type, Content: m.Content,
			ActAs: m.ActAs, Attempt: attempt, Trace: trace,
		}}}
	})
}

// maxContent is what the node takes as content, in bytes.
func (c *Client) maxContent() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.welcome.GetLimits().GetContentBytes(); n > 0 {
		return int(n)
	}
	return wire.Content
}

// send takes a place among the open sends, and gives it back before done.
func (c *Client) send(ctx context.Context, room, id string, done func(Ack, error), frame func(uint32) *wire.Frame) {
	s := &send{id: id, frame: frame}
	// A frame above the limit would end the session, not just the send. The
	// id and the attempt that come with it take no more than this.
	const more = 32
	if size := frame(0).SizeVT() + more; size > wire.ClientFrame {
		done(Ack{}, &Rejected{id, wire.TooLarge("message", uint64(size), wire.ClientFrame)})
		return
	}
	if ctx.Err() != nil {
		done(Ack{}, s.givenUp(context.Cause(ctx)))
		return
	}
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		done(Ack{}, s.givenUp(context.Cause(ctx)))
		return
	case <-c.ctx.Done():
		done(Ack{}, s.givenUp(context.Cause(c.ctx)))
		return
	}
	s.done = func(a Ack, err error) {
		<-c.slots
		done(a, err)
	}
	c.out.add(ctx, room, s)
}
