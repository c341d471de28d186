package relay

import (
	"cmp"
	"time"

	"golang.org/x/time/rate"

	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// Limits bound what one session may ask for. Zero fields get the defaults of
// a client in production.
type Limits struct {
	// Follows bounds the follows at one time (default wire.Follows).
	Follows int
	// InFlight bounds the unanswered sends (default wire.InFlight).
	InFlight int
	// SendsPerSecond and SendsBurst bound the rate of sends (default 20 and
	// 100); a negative rate is none.
	SendsPerSecond float64
	SendsBurst     int
	// SignalsPerSecond and SignalsBurst bound the rate of signals (default 10 and
	// 50); a negative rate is none.
	SignalsPerSecond float64
	SignalsBurst     int
	// UnsentBytes bounds the replies that wait (default wire.SessionUnsent).
	UnsentBytes int
	// WriteStall is how long the peer may take nothing (default wire.WriteStall).
	WriteStall time.Duration
	// Asks bounds the unanswered requests of other kinds (default 16).
	Asks int
	// AsksPerSecond and AsksBurst bound their rate for a client (default 100 and 2,000,
	// so that one that comes back may follow all of its rooms at once); a negative rate
	// is none.
	AsksPerSecond float64
	AsksBurst     int
}

func (l *Limits) fill() {
	l.Follows = cmp.Or(l.Follows, wire.Follows)
	l.InFlight = cmp.Or(l.InFlight, wire.InFlight)
	l.SendsPerSecond = cmp.Or(l.SendsPerSecond, 20)
	l.SendsBurst = cmp.Or(l.SendsBurst, 100)
	l.SignalsPerSecond = cmp.Or(l.SignalsPerSecond, 10)
	l.SignalsBurst = cmp.Or(l.SignalsBurst, 50)
	l.UnsentBytes = cmp.Or(l.UnsentBytes, wire.SessionUnsent)
	l.WriteStall = cmp.Or(l.WriteStall, wire.WriteStall)
	l.Asks = cmp.Or(l.Asks, 16)
	l.AsksPerSecond = cmp.Or(l.AsksPerSecond, 100)
	l.AsksBurst = cmp.Or(l.AsksBurst, 2*wire.Follows)
}

// signalling bounds a session's signals.
func (l *Limits) signalling() *rate.Limiter {
	if l.SignalsPerSecond < 0 {
		return rate.NewLimiter(rate.Inf, 0)
	}
	return rate.NewLimiter(rate.Limit(l.SignalsPerSecond), l.SignalsBurst)
}

// sends keeps the order and the bounds of a session's sends. The session's
// lock guards it.
type sends struct {
	limiter *rate.Limiter // nil = none
	max     int
	open    int
	rooms   fences[string]
}

func (x *sends) init(l Limits) {
	x.max = l.InFlight
	if l.SendsPerSecond > 0 {
		x.limiter = rate.NewLimiter(rate.Limit(l.SendsPerSecond), l.SendsBurst)
	}
}

// admit decides on a send before anything is queued for it. After a send to a
// room has failed, those that were sent behind it must fail too, or they would
// overtake it: the sender starts again with a higher attempt.
func (x *sends) admit(to string, attempt uint32, now time.Time) error {
	if x.rooms.refuses(to, uint64(attempt)) {
		return wire.Errorf(wire.CodeOutOfOrder, "an earlier send to %q failed", to)
	}
	delete(x.rooms, to) // a client sends its attempts in order
	if x.open >= x.max {
		return x.refuse(to, attempt, wire.Errorf(wire.CodeOverloaded, "%d sends are unanswered", x.open).After(overloadPause))
	}
	if x.limiter != nil {
		if wait := spend(x.limiter, now); wait > 0 {
			return x.refuse(to, attempt, wire.Errorf(wire.CodeRateLimited, "more than %v sends per second", x.limiter.Limit()).After(wait))
		}
	}
	x.open++
	return nil
}

// refuse fences a room after a failure that the sender will retry.
func (x *sends) refuse(to string, attempt uint32, err error) error {
	if _, fenced := x.rooms[to]; fenced || len(x.rooms) < maxFences {
		x.rooms.failed(to, uint64(attempt))
	}
	return err
}

// settle is called when an admitted send has its answer.
func (x *sends) settle(to string, attempt uint32, err error) {
	x.open--
	if err != nil && wire.AsError(err).Retryable {
		_ = x.refuse(to, attempt, err)
	}
}

// fences tell what must not go to rooms or groups, since something that was sent
// before it failed: to each the attempt that must come next. The session's lock
// guards them.
type fences[K comparable] map[K]uint64

// failed lets nothing more of this attempt pass.
func (f *fences[K]) failed(to K, attempt uint64) {
	if *f == nil {
		*f = make(fences[K])
	}
	(*f)[to] = max((*f)[to], attempt+1)
}

// refuses reports whether something of this attempt must not pass.
func (f fences[K]) refuses(to K, attempt uint64) bool { return attempt < f[to] }

// maxFences bounds the rooms that are fenced in one session; beyond it order
// after a failure is the sender's own affair.
const maxFences = 1024

// Every kind that a client may publish. Create has a frame of its own.
var publishable = map[wire.Kind]room.Kind{
	wire.Kind_KIND_MESSAGE: room.Message, wire.Kind_KIND_ACTION: room.Action,
	wire.Kind_KIND_JOIN: room.Join, wire.Kind_KIND_LEAVE: room.Leave,
}
