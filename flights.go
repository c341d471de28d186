package starling

import (
	"sync"

	"github.com/starling-im/starling/wire"
)

// flights are the commands that this node has sent to leaders and that have no
// answer yet. They keep the order of a sender's commands when the leader of a
// group changes: nothing goes to the new leader while something is still
// unanswered by the old one, or what was sent first could arrive second.
type flights struct {
	mu     sync.Mutex
	groups map[uint32]*flightsOfGroup
}

type flightsOfGroup struct {
	leader string
	open   map[*flight]struct{}
}

// flight is one command; its end is told once, by whoever knows it first.
type flight struct {
	done func(*wire.Ack, error)
}

// depart notes a command for a leader. The returned done must be called with
// its end. If commands to another leader are unanswered, their outcome is
// called unknown, and this one is refused: their senders will start again with
// the first of them.
func (f *flights) depart(group uint32, leader string, done func(*wire.Ack, error)) (func(*wire.Ack, error), error) {
	f.mu.Lock()
	g := f.groups[group]
	if g == nil {
		if f.groups == nil {
			f.groups = make(map[uint32]*flightsOfGroup)
		}
		g = &flightsOfGroup{leader: leader, open: make(map[*flight]struct{})}
		f.groups[group] = g
	}
	if g.leader != leader && len(g.open) > 0 {
		overtaken := g.open
		g.leader, g.open = leader, make(map[*flight]struct{})
		f.mu.Unlock()
		for x := range overtaken {
			x.done(nil, wire.Errorf(wire.CodeUnavailable, "the leader of group %d has changed", group))
		}
		return done, wire.Errorf(wire.CodeNotLeader, "the leader of group %d has just changed", group).After(leaderAgain)
	}
	g.leader = leader
	x := &flight{done: done}
	g.open[x] = struct{}{}
	f.mu.Unlock()
	return func(ack *wire.Ack, err error) {
		if f.land(group, x) {
			done(ack, err)
		}
	}, nil
}

// land takes a command out; false if its end was told before.
func (f *flights) land(group uint32, x *flight) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := f.groups[group]
	if _, open := g.open[x]; !open {
		return false
	}
	delete(g.open, x)
	return true
}
