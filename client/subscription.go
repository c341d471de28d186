package client

import (
	"time"

	"github.com/starling-im/starling/wire"
)

// A subscription is one Follow frame of a Follow: how its events come over one
// link. The Follow's lock guards it. It is out of use once the Follow has
// another or none; what still comes for it is dropped.
type subscription struct {
	f    *Follow
	link *link
	id   uint64

	live       bool     // Followed has come
	early      [][]byte // events that came before it
	earlyBytes int
	dropped    uint64 // the highest that found early full
	edition    uint64 // of the last signals; guarded by their lock, as said is
	said       uint64 // how many lines were said live
	hole       uint64 // while history is fetched: up to where, at least; else 0
}

// attach follows over l, unless that is done or not wanted.
func (f *Follow) attach(l *link) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil || f.full || f.sub != nil && f.sub.link == l {
		return
	}
	f.sub = &subscription{f: f, link: l}
	l.follow(f.sub, &wire.Follow{Room: f.room, AfterSeq: f.last, Epoch: f.known(), FromHead: f.fromHead, Signals: f.signals.wanted()})
}

// known is the epoch of what was taken; nothing has none.
func (f *Follow) known() uint64 {
	if f.last == 0 {
		return 0
	}
	return f.epoch
}

// detach puts the subscription out of use.
func (f *Follow) detach() {
	s := f.sub
	f.sub = nil
	if s != nil && s.live {
		s.unfollow()
	}
	// One that is not live may not be known to the node yet: see answered.
}

// unfollow tells the node. If that cannot be sent now it is tried again when
// the next events come.
func (s *subscription) unfollow() {
	err := s.link.session.call(&wire.Frame{Body: &wire.Frame_Unfollow{Unfollow: &wire.Unfollow{Follow: s.id}}}, nil)
	if err == nil {
		s.link.forget(s.id)
	}
}

// answered takes the answer to Follow.
func (s *subscription) answered(frame *wire.Frame, err error) {
	s.link.followed()
	if err == nil && frame.GetFollowed() == nil {
		err = wire.Errorf(wire.CodeProtocol, "Follow was answered with a %T", frame.Body)
	}
	if err != nil {
		s.ended(wire.AsError(err))
		return
	}
	f, d := s.f, frame.GetFollowed()
	f.mu.Lock()
	current := f.sub == s
	f.mu.Unlock()
	if current && d.NoSignals {
		f.signals.unheard() // not with f locked: it calls the user
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s.live = true
	if f.sub != s {
		s.unfollow()
		return
	}
	switch {
	case d.Epoch == 0: // the node has not seen the room yet
	case f.known() != 0 && d.Epoch != f.epoch:
		f.failLocked(&EpochChanged{Room: f.room, Old: f.epoch, New: d.Epoch, Head: d.HeadSeq})
		return
	case !d.Recovered:
		f.failLocked(&TooFar{Room: f.room, Head: d.HeadSeq})
		return
	default:
		f.epoch = d.Epoch
	}
	if f.fromHead {
		f.fromHead, f.last = false, d.HeadSeq
	}
	f.head = max(f.head, d.HeadSeq)
	f.tries = 0
	early := s.early
	s.early = nil
	s.accept(early)
	if f.sub == s && s.hole == 0 && s.dropped > f.last {
		s.hole = s.dropped
		f.c.spawn(s.fill)
	}
	f.started()
}

// ended is the end of the subscription by the node or with its link.
func (s *subscription) ended(e *wire.Error) {
	f := s.f
	f.mu.Lock()
	defer f.mu.Unlock()
	s.link.forget(s.id)
	if f.sub != s {
		return
	}
	f.sub = nil
	if !e.Retryable {
		f.failLocked(f.lasting(e))
		return
	}
	wait := max(halfJitter(f.tries, retryMin, retryMax), time.Duration(e.RetryAfterMs)*time.Millisecond)
	f.tries++
	f.timer = time.AfterFunc(wait, func() {
		if l := f.c.current(); l != nil {
			f.attach(l)
		}
	})
}

// lasting turns what a node said into what the reader gets.
func (f *Follow) lasting(e *wire.Error) error {
	if e.Code == wire.CodeTooFar {
		return &TooFar{Room: f.room, Head: e.HeadSeq}
	}
	return e
}

// events takes what the link has read. It never waits for the reader.
func (s *subscription) events(events [][]byte) {
	f := s.f
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.sub != s:
		s.unfollow()
	case s.live:
		s.accept(events)
	default:
		s.keep(events)
	}
}

// keep holds events for which Followed has not come yet.
func (s *subscription) keep(events [][]byte) {
	for _, e := range events {
		s.earlyBytes += len(e) + eventOverhead
		if s.dropped > 0 || len(s.early) >= followEvents || s.earlyBytes > followBytes {
			s.dropped = max(s.dropped, wire.EventSeq(e)) // history will bring it
			continue
		}
		s.early = append(s.early, e)
	}
}

// accept takes events that the node has pushed.
func (s *subscription) accept(events [][]byte) {
	for _, e := range events {
		switch seq := wire.EventSeq(e); {
		case s.f.sub != s:
			return
		case seq <= s.f.last: // a double
		case s.hole > 0:
			s.hole = max(s.hole, seq) // history will bring it
		case seq == s.f.last+1:
			s.append(seq, e)
		default:
			s.hole = seq
			s.f.c.spawn(s.fill)
		}
	}
}

// append takes the event that comes next, and stops if the reader lags.
func (s *subscription) append(seq uint64, event []byte) {
	f := s.f
	f.last = seq
	f.queue = append(f.queue, event)
	f.bytes += len(event) + eventOverhead
	f.wake()
	if len(f.queue) >= followEvents || f.bytes >= followBytes {
		s.stop()
	}
}

// stop puts the subscription out of use until the reader has caught up.
func (s *subscription) stop() {
	s.f.full = true
	s.f.detach()
}

// fill fetches history until the hole is closed or the subscription is out of
// use. A node whose own copy lags is asked again.
func (s *subscription) fill() {
	for tries := 0; ; tries++ {
		s.f.mu.Lock()
		after, over := s.f.last, s.f.sub != s
		s.f.mu.Unlock()
		if over || s.link.ctx.Err() != nil {
			return
		}
		frame, err := s.link.session.Ask(s.link.ctx, &wire.Frame{Body: &wire.Frame_History{History: &wire.History{
			Room: s.f.room, AfterSeq: after, Limit: wire.PageEvents,
		}}})
		switch closed, more := s.filled(frame, err); {
		case closed:
			return
		case more:
			tries = 0
		default:
			pause(s.link.ctx, halfJitter(tries, retryMin, retryMax))
		}
	}
}

// filled takes a page of history. closed ends the filling; more says that it
// got on.
func (s *subscription) filled(frame *wire.Frame, err error) (closed, more bool) {
	f := s.f
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.sub != s || s.link.ctx.Err() != nil:
		return true, false
	case err != nil && wire.AsError(err).Retryable:
		return false, false
	case err != nil:
		f.failLocked(f.lasting(wire.AsError(err)))
		return true, false
	}
	for _, e := range frame.GetPage().GetEvents() {
		if f.sub == s && e.Seq == f.last+1 {
			s.append(e.Seq, wire.EncodeEvent(e))
			more = true
		}
	}
	if f.sub != s {
		return true, more
	}
	if f.last >= s.hole {
		s.hole = 0
		return true, more
	}
	return false, more
}
