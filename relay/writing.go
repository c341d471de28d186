package relay

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/starling-im/starling/wire"
)

// Sender is a stream to which many can be sent by one goroutine.
type Sender interface {
	// Send writes buf[wire.Headroom:] without waiting for the peer. It may use the room
	// before, and keeps nothing of buf. Done is false if not all is on its way yet: sent
	// is called, once, when it is or cannot be; until then there is no other Send.
	Send(buf []byte, sent func(error)) (done bool, err error)
}

// What a session's writing is doing.
type writing int

const (
	resting writing = iota // nothing is to be written
	queued                 // it is up for its turn, or gathers
	running                // a worker has it
	sending                // what was sent is not yet on its way
)

// enqueue puts c up for sending.
func (s *Session) enqueue(c *cursor) {
	if s.add(c, queued) {
		s.cfg.Hub.pump.write(s)
	}
}

// woken is enqueue by a worker of the pump, who is to call write if it returns true.
func (s *Session) woken(c *cursor) bool { return s.add(c, running) }

// add puts c up, and returns true if the session then enters a state.
func (s *Session) add(c *cursor, state writing) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.ended || s.follows == nil {
		return false
	}
	s.putUp(c)
	return s.turn(state)
}

// putUp adds c to those that are ready; s is locked.
func (s *Session) putUp(c *cursor) {
	if n := len(s.ready); n == cap(s.ready) && s.next > n/2 { // a session may never have sent all
		s.ready = slices.Delete(s.ready, 0, s.next)
		s.next = 0
	}
	s.ready = append(s.ready, c)
}

// turn has a session that rests enter a state, or gather; s is locked.
func (s *Session) turn(state writing) bool {
	if s.writing != resting || s.next == len(s.ready) || s.follows == nil {
		return false
	}
	s.room = s.ready[s.next].topic
	if gather := time.Duration(s.cfg.Hub.pump.gather.Load()); !s.more && time.Since(s.flushed) < gather {
		s.writing = queued
		s.cfg.Hub.pump.later(s, s.flushed.Add(gather))
		return false
	}
	s.writing = state
	return true
}

// begin has a queued session run, unless it has ended.
func (s *Session) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.follows == nil {
		s.rest()
		return false
	}
	s.writing = running
	return true
}

// rest is the end of a write; s is locked.
func (s *Session) rest() {
	s.writing = resting
	if s.quiet != nil {
		close(s.quiet)
		s.quiet = nil
	}
}

// take returns the next cursor to send, with the history that was fetched for it, nil if
// there is none.
func (s *Session) take() (c *cursor, history *block) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.next < len(s.ready) && s.follows != nil {
		c := s.ready[s.next]
		s.ready[s.next] = nil
		s.next++
		switch {
		case c.ended:
		case c == s.fetching && s.fetched == nil: // it was spared
			s.fetchAgain()
		case c == s.fetching:
			return c, s.fetched
		default:
			return c, nil
		}
	}
	clear(s.ready[s.next:])
	s.ready, s.next = s.ready[:0], 0
	return nil, nil
}

// write sends what the session's cursors have, once; a worker calls it, with its buffer.
func (s *Session) write(buf *[]byte) {
	out := (*buf)[:wire.Headroom]
	events := 0
	for len(out) < wire.Headroom+pumpBytes-chunkBytes {
		c, history := s.take()
		if c == nil {
			break
		}
		got, more, err := c.advance(history)
		if got.events > 0 {
			out = s.appendRun(out, c.follow, got.run)
			events += got.events
		}
		if len(got.traced) > 0 {
			s.noteTraced(got.traced)
		}
		switch {
		case err != nil:
			s.fail(c, err)
		case more:
			s.mu.Lock()
			s.putUp(c)
			s.mu.Unlock()
		}
	}
	if cap(out) <= 2*cap(*buf) { // else it was a rare event of a node's
		*buf = out[:0]
	}
	s.mu.Lock()
	if events == 0 {
		s.rest()
		again := s.turn(queued)
		s.mu.Unlock()
		if again {
			s.cfg.Hub.pump.write(s)
		}
		return
	}
	s.writing, s.flushed = sending, time.Now()
	s.more = s.next < len(s.ready)
	s.mu.Unlock()
	if s.cfg.Sent != nil {
		s.cfg.Sent(events, len(out)+s.replies.Len())
	}
	s.cfg.Hub.stats.sent(events, len(out)-wire.Headroom)
	if done, err := s.sender.Send(out, s.onSent); done {
		s.sent(err)
		return
	}
	s.mu.Lock()
	s.spare()
	s.mu.Unlock()
}

// sent is called when a write is on its way.
func (s *Session) sent(err error) {
	if err != nil {
		s.end(stalled(err))
	}
	if len(s.traced) > 0 {
		s.tellTraced(err)
	}
	s.mu.Lock()
	s.rest()
	again := s.turn(queued)
	s.mu.Unlock()
	if again {
		s.cfg.Hub.pump.write(s)
	}
}

// noteTraced keeps the traced events of what is about to be written: the shared list, unless
// there are those of other rooms too.
func (s *Session) noteTraced(events [][]byte) {
	switch {
	case s.cfg.Hub.cfg.Traced == nil:
	case s.traced == nil:
		s.traced = events
	default:
		s.traced = append(s.traced, events...)
	}
}

// tellTraced tells of the traced events of a write, unless that failed.
func (s *Session) tellTraced(err error) {
	for _, e := range s.traced {
		if err == nil {
			s.cfg.Hub.cfg.Traced(e, s.cfg.Peer, s.flushed)
		}
	}
	s.traced = nil
}

// appendRun compresses what goes to a node: bytes between regions cost money.
func (s *Session) appendRun(out []byte, follow uint64, run []byte) []byte {
	if s.cfg.Peer.Node == "" {
		return wire.AppendRun(out, follow, run)
	}
	return wire.AppendCompressedRun(out, follow, run, wire.Dictionary(s.dictionary.Load()))
}

// readAgain is how long a cursor waits after history could not be read.
const readAgain = 100 * time.Millisecond

// fail deals with a cursor that cannot be read now. If that will pass, it is
// tried again; otherwise the follow ends with an error that names it.
func (s *Session) fail(c *cursor, err error) {
	if s.ctx.Err() != nil {
		return
	}
	if e := wire.AsError(err); e.Retryable && e.Code != wire.CodeEpochChanged {
		time.AfterFunc(max(readAgain, time.Duration(e.RetryAfterMs)*time.Millisecond), func() { s.enqueue(c) })
		return
	}
	s.mu.Lock()
	if s.follows[c.follow] == c {
		delete(s.follows, c.follow)
	}
	s.mu.Unlock()
	if s.drop(c) {
		s.replyError(c.follow, err)
	}
}

// drop takes c out of service and gives its topic back; false if that was done before.
func (s *Session) drop(c *cursor) bool {
	s.mu.Lock()
	if c.ended {
		s.mu.Unlock()
		return false
	}
	c.ended = true
	if s.fetching == c {
		s.startFetch()
	}
	listened, t := c.signals, c.topic
	s.mu.Unlock()
	if t == nil {
		return true
	}
	if listened {
		s.unlisten(c)
	}
	t.forget(c)
	t.hub.release(t)
	return true
}

// blocking is a Sender over what waits for the peer, with a goroutine for each write.
type blocking struct {
	write func([]byte) error
}

// writes are the buffers of blocking writes.
var writes = sync.Pool{New: func() any { return new([]byte) }}

func (b blocking) Send(buf []byte, sent func(error)) (bool, error) {
	p := writes.Get().(*[]byte)
	*p = append((*p)[:0], buf[wire.Headroom:]...)
	go func() {
		err := b.write(*p)
		writes.Put(p)
		sent(err)
	}()
	return false, nil
}

// newSender returns where the session's events go.
func (s *Session) newSender() Sender {
	if s.cfg.Events != nil {
		return blocking{s.openEvents}
	}
	if to, ok := s.cfg.Replies.(Sender); ok {
		return to
	}
	return blocking{func(p []byte) error { return s.replies.PushWait(s.ctx, p) }}
}

// openEvents opens the stream of events, for the first write and those to come.
func (s *Session) openEvents(p []byte) error {
	ctx, cancel := context.WithTimeout(s.ctx, s.cfg.Limits.WriteStall)
	defer cancel()
	events, err := s.cfg.Events(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.events = events
	s.mu.Unlock()
	to, ok := events.(Sender)
	if !ok {
		to = blocking{s.writeEvents}
	}
	s.sender = to
	return s.writeEvents(p)
}

// writeEvents writes to the stream of events with a deadline, which the end of the
// session cuts short.
func (s *Session) writeEvents(p []byte) error {
	s.mu.Lock()
	err := s.ctx.Err()
	if err == nil {
		err = s.events.SetWriteDeadline(time.Now().Add(s.cfg.Limits.WriteStall))
	}
	s.mu.Unlock()
	if err == nil {
		_, err = s.events.Write(p)
	}
	return err
}
