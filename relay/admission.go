package relay

import (
	"cmp"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// AdmissionConfig bounds the sends of all clients of a node together. Zero
// fields get the defaults of production.
type AdmissionConfig struct {
	// InFlight bounds the unanswered sends (default 16,384).
	InFlight int
	// RoomPerSecond and RoomBurst bound the rate of sends to one room (default
	// 500 and 2,000); a negative rate is none.
	RoomPerSecond float64
	RoomBurst     int
}

// Admission decides on sends for all sessions of a node, after each session's
// own limits. It is safe for concurrent use.
type Admission struct {
	cfg AdmissionConfig

	mu   sync.Mutex
	open int
	// Limiters by room, in two generations: when young is full it becomes old,
	// and a room that nobody sent to meanwhile starts with a whole burst again.
	young, old map[room.ID]*rate.Limiter
}

// limitedRooms bounds a generation of rooms.
const limitedRooms = 16 << 10

// NewAdmission returns an Admission with nothing open.
func NewAdmission(cfg AdmissionConfig) *Admission {
	cfg.InFlight = cmp.Or(cfg.InFlight, 16<<10)
	cfg.RoomPerSecond = cmp.Or(cfg.RoomPerSecond, 500)
	cfg.RoomBurst = cmp.Or(cfg.RoomBurst, 2000)
	return &Admission{cfg: cfg, young: make(map[room.ID]*rate.Limiter)}
}

// admit counts a send to a room, or says why not.
func (a *Admission) admit(id room.ID, now time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open >= a.cfg.InFlight {
		return wire.Errorf(wire.CodeOverloaded, "%d sends are unanswered on this node", a.open).After(overloadPause)
	}
	if a.cfg.RoomPerSecond > 0 {
		if wait := spend(a.limiter(id), now); wait > 0 {
			return wire.Errorf(wire.CodeRateLimited, "more than %v sends per second to %q", a.cfg.RoomPerSecond, id.Room).After(wait)
		}
	}
	a.open++
	return nil
}

// settle is called when an admitted send has its answer.
func (a *Admission) settle() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open--
}

func (a *Admission) limiter(id room.ID) *rate.Limiter {
	if l := a.young[id]; l != nil {
		return l
	}
	l := a.old[id]
	if l == nil {
		l = rate.NewLimiter(rate.Limit(a.cfg.RoomPerSecond), a.cfg.RoomBurst)
	}
	if len(a.young) >= limitedRooms {
		a.young, a.old = make(map[room.ID]*rate.Limiter), a.young
	}
	a.young[id] = l
	return l
}

// spend takes one event from l, or returns how long to wait for one.
func spend(l *rate.Limiter, now time.Time) time.Duration {
	r := l.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait > 0 {
		r.CancelAt(now)
	}
	return wait
}

// overloadPause is the retry_after of a send for which there is no room.
const overloadPause = 50 * time.Millisecond
