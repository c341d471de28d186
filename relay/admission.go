package relay

import (
	"cmp"
	"maps"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// AdmissionConfig bounds the sends of all clients of a node together. Zero
// fields get the defaults of production.
type AdmissionConfig struct {
	// InFlight bounds the unanswered sends (default 16,384). While more than half of it
	// is used, an app may hold its share alone.
	InFlight int
	// RoomPerSecond and RoomBurst bound the rate of sends to one room (default
	// 500 and 2,000); a negative rate is none. While more than half of the burst is
	// spent, those who send share the rate equally.
	RoomPerSecond float64
	RoomBurst     int
}

// Admission decides on sends for all sessions of a node, after each session's
// own limits. It is safe for concurrent use.
type Admission struct {
	cfg AdmissionConfig

	mu   sync.Mutex
	open apps // the sends without an answer
	// admitted and refused count sends, the latter by code.
	admitted uint64
	refused  map[string]uint64
	// Rates by room, in two generations: when young is full it becomes old,
	// and a room that nobody sent to meanwhile starts with a whole burst again.
	young, old map[room.ID]*roomRate
	last       time.Time // the newest time that a send was admitted or not
	traces     *rate.Limiter
}

// tracesPerSecond and tracesBurst bound the traced sends of a node: each is noted at every
// node and for every client that it comes to.
const (
	tracesPerSecond = 10
	tracesBurst     = 20
)

// trace returns the trace of a send, nothing if there have been too many: the send goes on
// without.
func (a *Admission) trace(id string) string {
	if id != "" && !a.traces.Allow() {
		return ""
	}
	return id
}

// limitedRooms bounds a generation of rooms.
const limitedRooms = 16 << 10

// NewAdmission returns an Admission with nothing open.
func NewAdmission(cfg AdmissionConfig) *Admission {
	cfg.InFlight = cmp.Or(cfg.InFlight, 16<<10)
	cfg.RoomPerSecond = cmp.Or(cfg.RoomPerSecond, 500)
	cfg.RoomBurst = cmp.Or(cfg.RoomBurst, 2000)
	a := &Admission{cfg: cfg, traces: rate.NewLimiter(tracesPerSecond, tracesBurst), young: make(map[room.ID]*roomRate), open: newApps(cfg.InFlight), refused: make(map[string]uint64)}
	for _, code := range refusals {
		a.refused[code] = 0
	}
	return a
}

// refusals are the codes by which sends are refused; others count as internal.
var refusals = []string{
	wire.CodeRateLimited, wire.CodeOverloaded, wire.CodeOutOfOrder, wire.CodeBadRequest, wire.CodeTooLarge, wire.CodeForbidden, wire.CodeInternal,
}

// AdmissionStats count the sends of a node's clients since it started.
type AdmissionStats struct {
	// Open are those without an answer now, of so many Apps.
	Open, Apps int
	// Admitted were passed on to their rooms' leaders; the others were refused with a code.
	Admitted uint64
	Refused  map[string]uint64
}

// Stats returns the counts of now.
func (a *Admission) Stats() AdmissionStats {
	a.mu.Lock()
	defer a.mu.Unlock()
	return AdmissionStats{Open: a.open.held, Apps: len(a.open.by), Admitted: a.admitted, Refused: maps.Clone(a.refused)}
}

// refuse counts a send that was not admitted.
func (a *Admission) refuse(err error) {
	if a == nil {
		return // of a node, which sends nothing
	}
	code := wire.AsError(err).Code
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.refused[code]; !ok {
		code = wire.CodeInternal
	}
	a.refused[code]++
}

// admit counts a user's send to a room, or says why not.
func (a *Admission) admit(id room.ID, user string, now time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	// Of two who looked at the clock and then waited for the lock the later may be first;
	// a limiter that goes back gives the time between out twice.
	if now.Before(a.last) {
		now = a.last
	}
	a.last = now
	if a.open.full() {
		return wire.Errorf(wire.CodeOverloaded, "%d sends are unanswered on this node", a.open.held).After(overloadPause)
	}
	if a.open.over(id.App) {
		return wire.Errorf(wire.CodeOverloaded, "%d sends of your app are unanswered on this node, which is its share", a.open.by[id.App]).After(overloadPause)
	}
	if a.cfg.RoomPerSecond > 0 {
		if err := a.rate(id).admit(id, user, now); err != nil {
			return err
		}
	}
	a.open.take(id.App)
	a.admitted++
	return nil
}

// settle is called when an admitted send of an app has its answer.
func (a *Admission) settle(app string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open.release(app)
}

func (a *Admission) rate(id room.ID) *roomRate {
	if l := a.young[id]; l != nil {
		return l
	}
	l := a.old[id]
	if l == nil {
		l = &roomRate{all: rate.NewLimiter(rate.Limit(a.cfg.RoomPerSecond), a.cfg.RoomBurst)}
	}
	if len(a.young) >= limitedRooms {
		a.young, a.old = make(map[room.ID]*roomRate), a.young
	}
	a.young[id] = l
	return l
}

// spend takes one event from l, or returns how long to wait for one.
func spend(l *rate.Limiter, now time.Time) time.Duration {
	if l.AllowN(now, 1) { // a reservation would be garbage
		return 0
	}
	r := l.ReserveN(now, 1)
	defer r.CancelAt(now)
	return max(time.Nanosecond, r.DelayFrom(now))
}

// overloadPause is the retry_after of a send for which there is no room.
const overloadPause = 50 * time.Millisecond
