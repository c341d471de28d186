package starling

import (
	"sync"
	"sync/atomic"

	"github.com/starling-im/starling/wire"
)

// flights are the commands that this node has sent on and that have no answer
// yet. They keep the order of a sender's commands when the leader of a group
// changes, or the link to it:
//
//   - Nothing goes another way while something is still unanswered on the old
//     one, or what was sent first could arrive second.
//   - Once a command has failed on the way, all that was sent to its group must
//     fail until the senders know. The leader sees to that for what is under way
//     to it: commands carry the group's attempt, of which it takes no more
//     (relay.Session). The attempt rises when all of it have their answer.
//   - What a sender was allowed to send just before it was told is known by its
//     moment, a clock that ticks with each telling.
type flights struct {
	clock atomic.Uint64

	mu     sync.Mutex
	groups map[uint32]*flightsOfGroup
}

type flightsOfGroup struct {
	way     *link // nil = this node
	attempt uint64
	open    map[*flight]struct{}
	failed  bool   // one of this attempt has failed
	telling int    // senders that are being told of a failure
	told    uint64 // the moment when the last of them knew
}

// flight is one command; its end is told once, by whoever knows it first.
type flight struct {
	group   uint32
	moment  uint64 // when its sender was last asked whether it may go on
	attempt uint64
	done    func(*wire.Ack, error)
}

// depart notes a command that goes to the leader of a group on a way, or whose
// way is not known because of err. It must end with land. If others are
// unanswered on another way, their outcome is called unknown, and this one is
// refused: their senders will start again with the first of them. One that is
// refused has been told so.
func (f *flights) depart(x *flight, way *link, err error) (departed bool) {
	f.mu.Lock()
	g := f.of(x.group)
	x.attempt = g.attempt
	var overtaken map[*flight]struct{}
	switch {
	case err != nil:
	case g.way != way && len(g.open) > 0:
		err = wire.Errorf(wire.CodeNotLeader, "the leader of group %d has just changed", x.group).After(leaderAgain)
		overtaken, g.open = g.open, make(map[*flight]struct{})
		g.telling += len(overtaken)
	case g.failed || g.telling > 0 || x.moment < g.told:
		err = wire.Errorf(wire.CodeOutOfOrder, "an earlier send to group %d failed", x.group)
	default:
		g.way = way
		g.open[x] = struct{}{}
		f.mu.Unlock()
		return true
	}
	g.telling++
	f.mu.Unlock()
	for o := range overtaken {
		o.done(nil, wire.Errorf(wire.CodeUnavailable, "the leader of group %d has changed", x.group))
		f.knows(g)
	}
	x.done(nil, err)
	f.knows(g)
	return false
}

// of is called with mu held.
func (f *flights) of(group uint32) *flightsOfGroup {
	g := f.groups[group]
	if g == nil {
		if f.groups == nil {
			f.groups = make(map[uint32]*flightsOfGroup)
		}
		g = &flightsOfGroup{open: make(map[*flight]struct{})}
		f.groups[group] = g
	}
	return g
}

// land tells the sender of a command its end, unless it was told before.
func (f *flights) land(x *flight, ack *wire.Ack, err error) {
	fails := err != nil && wire.AsError(err).HoldsUp()
	f.mu.Lock()
	g := f.groups[x.group]
	if _, open := g.open[x]; !open {
		f.mu.Unlock()
		return
	}
	delete(g.open, x)
	if fails {
		g.failed = true
		g.telling++
	}
	g.renew()
	f.mu.Unlock()
	x.done(ack, err)
	if fails {
		f.knows(g)
	}
}

// knows notes that a sender has been told of a failure.
func (f *flights) knows(g *flightsOfGroup) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g.told = f.clock.Add(1)
	g.telling--
	g.renew()
}

// renew lets commands go on once everybody knows that those before failed.
func (g *flightsOfGroup) renew() {
	if g.failed && g.telling == 0 && len(g.open) == 0 {
		g.failed = false
		g.attempt++
	}
}
