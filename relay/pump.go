package relay

import (
	"context"
	"time"

	"github.com/starling-im/starling/wire"
)

// The pump writes events. It runs only while a cursor has something to send,
// and holds one buffer of at most pumpBytes: that and the write under way are
// all that waits for a peer that does not read.
const (
	// pumpBytes bounds the frames of one write.
	pumpBytes = 64 << 10
	// chunkBytes bounds what one cursor adds to a write, so that busy rooms
	// take turns; with one event above it, the frame is still a client's.
	chunkBytes = 16 << 10
)

// gatherFor is how long events wait for company after a write. The first one
// after a pause leaves at once. A write of one event costs about as much CPU
// as one of thirty.
const gatherFor = 3 * time.Millisecond

// readAgain is how long a cursor waits after history could not be read.
const readAgain = 100 * time.Millisecond

// enqueue puts c up for sending and starts the pump if it rests.
func (s *Session) enqueue(c *cursor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.queued || c.ended || s.ctx.Err() != nil {
		return
	}
	c.queued = true
	s.ready = append(s.ready, c)
	if !s.pumping {
		s.pumping = true
		s.work.Go(s.pump)
	}
}

// park and unpark bracket a cursor's wait: while it is parked, a wake queues
// it. unpark returns false if that has happened already.
func (s *Session) park(c *cursor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.queued = false
}

func (s *Session) unpark(c *cursor) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.queued || c.ended {
		return false
	}
	c.queued = true
	return true
}

// take returns the next cursor to send, nil if none is ready. Unless something
// is gathered that has yet to be written, the pump then ends.
func (s *Session) take(gathered bool) *cursor {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.ready) > 0 && s.ctx.Err() == nil {
		c := s.ready[0]
		s.ready = s.ready[1:]
		if !c.ended {
			return c
		}
	}
	s.ready = nil
	s.pumping = gathered
	return nil
}

// again puts a cursor that has more to send at the end of the line.
func (s *Session) again(c *cursor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready = append(s.ready, c)
}

// more reports whether a cursor is ready.
func (s *Session) more() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.ready) > 0
}

func (s *Session) pump() {
	s.pause()
	var out []byte
	events := 0
	for {
		c := s.take(len(out) > 0)
		if c != nil {
			out, events = s.gather(c, out, events)
		} else if len(out) == 0 {
			return
		}
		full := len(out) >= pumpBytes-chunkBytes
		if len(out) == 0 || !full && s.more() {
			continue
		}
		if s.cfg.Sent != nil {
			s.cfg.Sent(events, len(out)+s.replies.Len())
		}
		err := s.write(out)
		out, events = out[:0], 0
		switch {
		case err != nil:
			s.end(err) // take ends the pump
		case !full:
			s.pause()
		}
	}
}

// gather adds what a cursor has to send to what was gathered before.
func (s *Session) gather(c *cursor, out []byte, events int) ([]byte, int) {
	chunk, parked, err := c.next(s.ctx, chunkBytes)
	switch {
	case err != nil && s.ctx.Err() == nil:
		s.fail(c, err)
	case err == nil && !parked:
		out = s.appendEvents(out, c.follow, chunk)
		events += len(chunk)
		c.after += uint64(len(chunk))
		s.again(c)
	}
	return out, events
}

// appendEvents compresses what goes to a node: bytes between regions cost money.
func (s *Session) appendEvents(out []byte, follow uint64, events [][]byte) []byte {
	if s.cfg.Peer.Node == "" {
		return wire.AppendEvents(out, follow, events)
	}
	return wire.AppendCompressedEvents(out, follow, events, wire.Dictionary(s.dictionary.Load()))
}

// pause gathers events if the last write was a moment ago.
func (s *Session) pause() {
	wait := gatherFor - time.Since(s.flushed)
	if wait <= 0 {
		return
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.ctx.Done():
	}
}

func (s *Session) write(out []byte) error {
	s.flushed = time.Now()
	if s.cfg.Events == nil {
		return s.replies.PushWait(s.ctx, out)
	}
	events, err := s.eventStream()
	if err != nil {
		return stalled(err)
	}
	if _, err := events.Write(out); err != nil {
		return stalled(err)
	}
	return nil
}

// eventStream returns the stream of events with a deadline for the next write,
// which the end of the session cuts short.
func (s *Session) eventStream() (Stream, error) {
	if s.events == nil {
		ctx, cancel := context.WithTimeout(s.ctx, s.cfg.Limits.WriteStall)
		defer cancel()
		events, err := s.cfg.Events(ctx)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		s.events = events
		s.mu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.ctx.Err(); err != nil {
		return nil, err
	}
	return s.events, s.events.SetWriteDeadline(time.Now().Add(s.cfg.Limits.WriteStall))
}

// fail deals with a cursor that cannot be read now. If that will pass, it is
// tried again; otherwise the follow ends with an error that names it.
func (s *Session) fail(c *cursor, err error) {
	if e := wire.AsError(err); e.Retryable && e.Code != wire.CodeEpochChanged {
		s.park(c)
		time.AfterFunc(max(readAgain, time.Duration(e.RetryAfterMs)*time.Millisecond), c.wake)
		return
	}
	s.mu.Lock()
	if s.follows[c.follow] == c {
		delete(s.follows, c.follow)
	}
	s.mu.Unlock()
	s.drop(c)
	s.replyError(c.follow, err)
}

// drop takes c out of service and gives its topic back.
func (s *Session) drop(c *cursor) {
	s.mu.Lock()
	if c.ended {
		s.mu.Unlock()
		return
	}
	c.ended = true
	s.unlisten(c)
	s.mu.Unlock()
	c.topic.forget(c)
	c.topic.hub.release(c.topic)
}
