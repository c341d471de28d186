package starling

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

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
	clock  atomic.Uint64
	abroad chan struct{} // holds a token when something has gone to another node

	mu     sync.Mutex
	groups map[uint32]*flightsOfGroup
}

type flightsOfGroup struct {
	way     *link // nil = this node
	attempt uint64
	open    map[*flight]struct{}
	failed  bool      // one of this attempt has failed
	telling int       // senders that are being told of a failure
	told    uint64    // the moment when the last of them knew
	aside   bool      // at the last look another way was the right one
	heard   time.Time // the last answer, or the first command since all had theirs
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
		overtaken = g.ground()
	case g.failed || g.telling > 0 || x.moment < g.told:
		err = wire.Errorf(wire.CodeOutOfOrder, "an earlier send to group %d failed", x.group)
	default:
		g.way = way
		if len(g.open) == 0 {
			g.heard = time.Now()
		}
		g.open[x] = struct{}{}
		f.mu.Unlock()
		if way != nil {
			select {
			case f.abroad <- struct{}{}:
			default:
			}
		}
		return true
	}
	g.telling++
	f.mu.Unlock()
	f.lose(g, overtaken)
	x.done(nil, err)
	f.knows(g)
	return false
}

// ground takes out all that is open, whose senders are to be told by lose. It is
// called with mu held.
func (g *flightsOfGroup) ground() map[*flight]struct{} {
	open := g.open
	g.open, g.aside = make(map[*flight]struct{}), false
	g.telling += len(open)
	return open
}

// lose tells senders that the outcome of their commands is unknown.
func (f *flights) lose(g *flightsOfGroup, lost map[*flight]struct{}) {
	for x := range lost {
		x.done(nil, wire.Errorf(wire.CodeUnavailable, "the leader of group %d has changed", x.group))
		f.knows(g)
	}
}

const (
	// lookEvery is how often it is looked whether commands that are under way
	// still go to the leader. After two looks in a row they do not wait for the
	// answer of one that was: if it is there and near it has told them by then, and
	// if it is far their senders are told that the outcome is unknown, and try again.
	lookEvery = 25 * time.Millisecond
	// seekAfter is how long a leader may be silent before others are asked.
	seekAfter = time.Second
)

// run looks after the commands that went to other nodes until ctx ends. Who waits
// for an answer sends nothing that would find out about another way, and a leader
// that has fallen silent answers only when its link is given up.
func (f *flights) run(ctx context.Context, way func(group uint32) (*link, error), seek func(ctx context.Context, group uint32)) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var seeking sync.WaitGroup
	defer seeking.Wait()
	for {
		select {
		case <-f.abroad:
		case <-ctx.Done():
			return
		}
		for open := true; open; {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			var silent []uint32
			open, silent = f.look(time.Now(), way)
			for _, group := range silent {
				seeking.Go(func() { seek(ctx, group) })
			}
		}
	}
}

// look ends what is under way to a node that does not lead any more. It reports
// whether anything is under way to another node, and the groups of which nothing
// was heard for long.
func (f *flights) look(now time.Time, way func(group uint32) (*link, error)) (abroad bool, silent []uint32) {
	f.mu.Lock()
	var groups []uint32
	for id, g := range f.groups {
		if g.way == nil || len(g.open) == 0 {
			continue
		}
		groups = append(groups, id)
		if now.Sub(g.heard) >= seekAfter {
			silent = append(silent, id)
			g.heard = now // so that they are asked once in this time
		}
	}
	f.mu.Unlock()
	for _, id := range groups {
		right, err := way(id)
		f.mu.Lock()
		g := f.groups[id]
		aside := err == nil && g.way != nil && g.way != right && len(g.open) > 0
		var lost map[*flight]struct{}
		if aside && g.aside {
			lost = g.ground()
		} else {
			g.aside = aside
		}
		f.mu.Unlock()
		f.lose(g, lost)
	}
	return len(groups) > 0, silent
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
	g.heard = time.Now()
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
