package client

import (
	"context"
	"sync"
	"time"

	"github.com/starling-im/starling/wire"
)

// An outbox holds the open sends: each is tried, over as many sessions as it
// takes, until it is acknowledged, rejected or given up.
//
// Sends to one room form a lane. A lane keeps order this way: a send has at
// most one call under way; when one fails and shall be retried the lane is
// held until all its calls are answered, and then starts again from its first
// open send with a higher attempt, by which the node knows the old calls.
type outbox struct {
	silent func(*Session) // a send has been unanswered for probeAfter

	mu      sync.Mutex
	session *Session // nil while there is none
	lanes   map[string]*lane
	attempt uint32
	watch   *time.Timer // armed while calls are under way
	closed  error
}

// A lane is the sends to one room.
type lane struct {
	room     string
	attempt  uint32
	open     []*send
	next     int // open[next:] have no call under way
	calls    int // under way, those of given-up sends included
	held     bool
	delay    time.Duration // to wait once calls is 0
	failures int           // without an ack between
	timer    *time.Timer   // runs out the delay
}

// A send is one message on its way.
type send struct {
	lane  *lane
	id    string
	frame func(attempt uint32) *wire.Frame
	done  func(Ack, error)

	at       time.Time   // of the call under way; zero = none
	maybe    bool        // a call ended so that it may have taken effect
	refusal  *wire.Error // the last that said it has not
	settled  bool        // done was called, or is about to be
	unlisten func() bool // stops listening to the context
}

// add takes a message to a room in.
func (o *outbox) add(ctx context.Context, room string, s *send) {
	o.mu.Lock()
	if o.closed != nil {
		err := o.closed
		o.mu.Unlock()
		s.done(Ack{}, s.givenUp(err))
		return
	}
	l := o.lanes[room]
	if l == nil {
		l = &lane{room: room, attempt: o.attempt}
		o.lanes[room] = l
	}
	s.lane = l
	l.open = append(l.open, s)
	if ctx.Done() != nil {
		s.unlisten = context.AfterFunc(ctx, func() { o.giveUp(s, context.Cause(ctx)) })
	}
	o.pump(l)
	o.mu.Unlock()
}

// pump calls for every send that waits, unless the lane is held.
func (o *outbox) pump(l *lane) {
	for o.session != nil && !l.held && l.next < len(l.open) {
		s := l.open[l.next]
		err := o.session.call(s.frame(l.attempt), func(f *wire.Frame, err error) { o.answered(s, f, err) })
		if err != nil {
			e := wire.AsError(err)
			if e.Unknown() {
				return // the session is over, and the next one starts the lane again
			}
			s.refusal = e
			l.hold(e)
			o.rest(l)
			return
		}
		s.at = time.Now()
		l.next++
		l.calls++
		if o.watch == nil {
			o.watch = time.AfterFunc(probeAfter, o.look)
		}
	}
}

// answered takes the end of a call.
func (o *outbox) answered(s *send, f *wire.Frame, err error) {
	o.mu.Lock()
	l := s.lane
	l.calls--
	s.at = time.Time{}
	ack, end := Ack{}, error(nil)
	settles := true
	switch {
	case err == nil && f.GetAck() != nil:
		ack = ackOf(f.GetAck())
		l.failures = 0
	case err == nil:
		end = &Unknown{s.id, wire.Errorf(wire.CodeProtocol, "a send was answered with a %T", f.Body)}
	default:
		end, settles = s.fails(l, wire.AsError(err))
	}
	settles = settles && o.settle(s)
	o.rest(l)
	o.mu.Unlock()
	if settles {
		s.done(ack, end)
	}
}

// fails sorts out a call that ended with e: it settles the send, or holds the
// lane for another try.
func (s *send) fails(l *lane, e *wire.Error) (end error, settles bool) {
	switch {
	case e.Unknown():
		s.maybe = true
	case e.Code != wire.CodeOutOfOrder || s.refusal == nil:
		s.refusal = e
	}
	switch {
	case e.Retryable:
		l.hold(e)
		return nil, false
	case !e.Unknown() && (!s.maybe || forever[e.Code]):
		return &Rejected{s.id, e}, true
	}
	return &Unknown{s.id, e}, true
}

// forever are the refusals that hold for earlier calls with the same message
// too, even if their own outcome is not known.
var forever = map[string]bool{
	wire.CodeBadRequest: true, wire.CodeTooLarge: true, wire.CodeConflict: true, wire.CodeExists: true,
}

// hold stops a lane until what is under way is answered and a time has passed.
func (l *lane) hold(e *wire.Error) {
	if !l.held {
		l.held = true
		l.delay = halfJitter(l.failures, retryMin, retryMax)
		l.failures++
	}
	l.delay = max(l.delay, time.Duration(e.RetryAfterMs)*time.Millisecond)
}

// rest looks after a lane when a call has ended or a send was given up.
func (o *outbox) rest(l *lane) {
	switch {
	case l.calls > 0:
	case len(l.open) == 0:
		l.stopTimer()
		if o.lanes[l.room] == l {
			delete(o.lanes, l.room)
		}
	case l.held && l.timer == nil:
		l.timer = time.AfterFunc(l.delay, func() {
			o.mu.Lock()
			defer o.mu.Unlock()
			if l.timer != nil {
				o.restart(l)
			}
		})
	}
}

// restart begins a lane again from its first open send.
func (o *outbox) restart(l *lane) {
	l.stopTimer()
	o.attempt++
	l.held, l.next, l.attempt = false, 0, o.attempt
	o.pump(l)
}

func (l *lane) stopTimer() {
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
}

// settle takes a send out. It returns false if that was done before.
func (o *outbox) settle(s *send) bool {
	if s.settled {
		return false
	}
	s.settled = true
	if s.unlisten != nil {
		s.unlisten()
	}
	l := s.lane
	for i, x := range l.open {
		if x == s {
			copy(l.open[i:], l.open[i+1:])
			l.open[len(l.open)-1] = nil
			l.open = l.open[:len(l.open)-1]
			if i < l.next {
				l.next--
			}
			break
		}
	}
	return true
}

// giveUp settles a send whose time is up.
func (o *outbox) giveUp(s *send, cause error) {
	o.mu.Lock()
	settles := o.settle(s)
	end := s.givenUp(cause)
	o.rest(s.lane)
	o.mu.Unlock()
	if settles {
		s.done(Ack{}, end)
	}
}

// givenUp says how a send ends that is not tried any more: it is rejected if
// every call was certainly refused, or none was made.
func (s *send) givenUp(cause error) error {
	switch {
	case s.maybe || !s.at.IsZero():
		return &Unknown{s.id, cause}
	case s.refusal != nil:
		return &Rejected{s.id, s.refusal}
	}
	return &Rejected{s.id, wire.Errorf(wire.CodeUnavailable, "no node was reached: %v", cause)}
}

// up gives the outbox a session, nil takes it away. A session is taken away
// once it has ended, so that no call is under way when the next one comes.
func (o *outbox) up(s *Session) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.session = s
	if s == nil {
		return
	}
	for _, l := range o.lanes {
		o.restart(l)
	}
}

// close gives all sends up.
func (o *outbox) close(cause error) {
	o.mu.Lock()
	o.closed = cause
	o.session = nil
	if o.watch != nil {
		o.watch.Stop()
	}
	var open []*send
	for _, l := range o.lanes {
		l.stopTimer()
		l.held = true
		open = append(open, l.open...)
	}
	o.mu.Unlock()
	for _, s := range open {
		o.giveUp(s, cause)
	}
}

// look asks whether the oldest call has been unanswered for too long.
func (o *outbox) look() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.watch = nil
	if o.session == nil {
		return // the first call of the next session arms it
	}
	oldest := time.Time{}
	for _, l := range o.lanes {
		for _, s := range l.open {
			if !s.at.IsZero() && (oldest.IsZero() || s.at.Before(oldest)) {
				oldest = s.at
			}
		}
	}
	if oldest.IsZero() {
		return
	}
	wait := probeAfter - time.Since(oldest)
	if wait <= 0 {
		o.silent(o.session)
		wait = probeAfter
	}
	o.watch = time.AfterFunc(wait, o.look)
}
