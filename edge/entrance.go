package edge

import (
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/starling-im/starling/wire"
)

const (
	// entranceBurst is for how long clients may come in at once after a pause.
	entranceBurst = time.Second
	// seldom is how many of one address come in whatever the others do, in that time.
	seldom = 8
	// entranceAddresses bounds the addresses that are told apart; those beyond are as one.
	entranceAddresses = 4096
	// longestTurn bounds how long a client may be told to wait.
	longestTurn = 10 * time.Second
)

// An entrance bounds how fast clients come in, because of all that they ask for just
// then: those of one address, and all. Who has to wait is told for how long, each a
// little longer than the one before, so that they do not come at once again.
type entrance struct {
	perSecond, perSecondFrom int

	mu   sync.Mutex
	all  pace
	from map[netip.Prefix]*pace // of those that somebody came from of late
	// forgot is when those were last forgotten that nobody comes from any more.
	forgot time.Time
}

// A pace is that of clients who come in one after the other.
type pace struct {
	next time.Time // the one after the last would come in then, at the pace
	turn time.Time // the one who was told last to wait may come then
}

// ahead is how far those who came in are ahead of the pace.
func (p *pace) ahead(now time.Time) time.Duration { return max(0, p.next.Sub(now)) }

func (p *pace) pass(now time.Time, perSecond int) {
	p.next = now.Add(p.ahead(now) + time.Second/time.Duration(perSecond))
}

// wait gives out the next turn.
func (p *pace) wait(now time.Time, perSecond int) time.Duration {
	free := p.next.Add(-entranceBurst)
	if p.turn.Before(free) {
		p.turn = free
	}
	if p.turn.Sub(now) < longestTurn {
		p.turn = p.turn.Add(time.Second / time.Duration(perSecond))
	}
	return p.turn.Sub(now)
}

// pass lets a client in, or says when to come again.
func (e *entrance) pass(from netip.Prefix, now time.Time) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	here := e.of(from, now)
	rare := here.ahead(now) < seldom*time.Second/time.Duration(e.perSecondFrom)
	switch {
	case here.ahead(now) >= entranceBurst:
		return wire.Errorf(wire.CodeOverloaded, "more than %d clients a second come from your address", e.perSecondFrom).After(here.wait(now, e.perSecondFrom))
	case e.all.ahead(now) >= entranceBurst && !rare, e.all.ahead(now) >= 2*entranceBurst:
		return wire.Errorf(wire.CodeOverloaded, "more than %d clients a second come to this node", e.perSecond).After(e.all.wait(now, e.perSecond))
	}
	here.pass(now, e.perSecondFrom)
	e.all.pass(now, e.perSecond)
	return nil
}

// of returns the pace of an address.
func (e *entrance) of(from netip.Prefix, now time.Time) *pace {
	if len(e.from) >= entranceAddresses && now.Sub(e.forgot) >= entranceBurst/10 {
		e.forgot = now
		maps.DeleteFunc(e.from, func(_ netip.Prefix, p *pace) bool { return p.next.Before(now) && p.turn.Before(now) })
	}
	if p := e.from[from]; p != nil {
		return p
	}
	if len(e.from) >= entranceAddresses {
		from = netip.Prefix{}
	}
	if e.from[from] == nil {
		e.from[from] = new(pace)
	}
	return e.from[from]
}
