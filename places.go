package starling

import (
	"context"
	"sync"
	"time"

	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// places finds the group that a room lives in, or is to be made in. As long as
// rules and groups have never changed that is what the directory says. After
// that a room may have been made by an earlier placement, and each group where
// it may be is asked before it is made where it belongs now: one id never gets
// two histories (docs/adr/0006-a-room-is-looked-for-before-it-is-made.md).
type places struct {
	node *Node
	// ask asks the group of an earlier placement; see askEarlier.
	ask func(ctx context.Context, group uint32, id room.ID, placement uint64) (found, error)

	mu sync.Mutex
	// Two generations: when young is full it becomes old.
	young, old map[room.ID]found
	searches   map[room.ID]*search
	open       map[room.ID]opened
	wanted     map[room.ID]bool // looked for by known

	ctx     context.Context // of searches; ends with the node
	running sync.WaitGroup
}

// placesKept bounds a generation of rooms whose group is remembered, about
// 150 bytes each.
const placesKept = 32 << 10

// found is where a room is. If it does not exist, it is where it may be made by
// a placement.
type found struct {
	group     uint32
	exists    bool
	placement uint64
}

// search is a room that is being looked for, or could not be found a moment ago.
type search struct {
	held []held
	err  error // every send is refused with it until it is forgotten
}

// opened are the unanswered sends to a room, and where it was taken to be when the
// first of them left.
type opened struct {
	at    found
	sends int
}

// held is a send that waits for its room to be found.
type held struct {
	command room.Command
	moment  uint64
	done    func(*wire.Ack, error)
}

func newPlaces(n *Node) *places {
	p := &places{node: n, young: make(map[room.ID]found), searches: make(map[room.ID]*search), wanted: make(map[room.ID]bool), open: make(map[room.ID]opened)}
	p.ask = p.askEarlier
	return p
}

// begin lets searches run until ctx ends.
func (p *places) begin(ctx context.Context) { p.ctx = ctx }

// recall returns what is remembered of a room and holds by the newest placement.
// p is locked.
func (p *places) recall(id room.ID, placement uint64) (found, bool) {
	f, ok := p.young[id]
	if !ok {
		if f, ok = p.old[id]; ok {
			p.keep(id, f)
		}
	}
	return f, ok && (f.exists || f.placement == placement)
}

func (p *places) keep(id room.ID, f found) {
	if len(p.young) >= placesKept {
		p.old, p.young = p.young, make(map[room.ID]found)
	}
	p.young[id] = f
}

func (p *places) remember(id room.ID, f found) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keep(id, f)
}

// find returns where a room is, or may be made. It asks other nodes only if the
// room may be in several groups and nothing is remembered of it.
func (p *places) find(ctx context.Context, id room.ID) (found, error) {
	dir := p.node.dir.state()
	if dir.Placement() == 0 || id == directoryRoom {
		group, err := p.node.locate(id)
		return found{group: group}, err
	}
	p.mu.Lock()
	f, ok := p.recall(id, dir.Placement())
	p.mu.Unlock()
	if ok {
		return f, nil
	}
	groups, err := dir.Places(id.App, id.Room)
	if err != nil {
		return found{}, wire.Errorf(wire.CodeNotFound, "%v", err)
	}
	if f, err = p.look(ctx, id, groups, dir.Placement()); err == nil {
		p.remember(id, f)
	}
	return f, err
}

// look looks for a room in the groups where it may be.
func (p *places) look(ctx context.Context, id room.ID, groups []uint32, placement uint64) (found, error) {
	for _, g := range groups {
		if f, err := p.lookHere(g, id); err == nil && f.exists {
			return f, nil
		}
	}
	here := found{group: groups[0], placement: placement}
	if len(groups) == 1 {
		return here, nil
	}
	if !p.node.replicates(groups[0]) { // else it was looked at already
		if f, err := p.lookAt(ctx, groups[0], id, false); err == nil && f.exists {
			return f, nil
		}
	}
	for _, g := range groups[1:] {
		f, err := p.ask(ctx, g, id, placement)
		if err != nil {
			return found{}, wire.Errorf(wire.CodeNotLeader, "room %q may be in group %d, which does not answer: %v", id.Room, g, err).After(leaderAgain)
		}
		if f.exists {
			p.tell(groups[0], id, f.group, placement)
			return f, nil
		}
	}
	return here, nil
}

// lookHere looks for a room in a group's replica on this node.
func (p *places) lookHere(group uint32, id room.ID) (f found, err error) {
	if !p.node.replicates(group) {
		return found{}, nil
	}
	err = p.node.host.Read(group, func(r consensusReader) {
		if _, ok := room.Load(r, id); ok {
			f = found{group: group, exists: true}
		} else if other, ok := room.Moved(r, id); ok {
			f = found{group: other, exists: true}
		}
	})
	return f, err
}

// lookAt looks for a room in a group. If it is not there, placement says by
// which older ones it will not be made there any more.
func (p *places) lookAt(ctx context.Context, group uint32, id room.ID, linearizable bool) (found, error) {
	page, err := p.node.page(ctx, id, group, &wire.History{Limit: headOnly, Linearizable: linearizable}, 0)
	switch {
	case err != nil:
		return found{}, err
	case page.HeadSeq > 0:
		return found{group: group, exists: true}, nil
	case page.Moved != 0:
		return found{group: page.Moved, exists: true}, nil
	}
	return found{group: group, placement: page.Placement}, nil
}

// askEarlier asks the group of an earlier placement whether it has a room, and
// makes sure that it will never make it. Once the group knows of the placement
// that costs a read and no entry in its log.
func (p *places) askEarlier(ctx context.Context, group uint32, id room.ID, placement uint64) (found, error) {
	f, err := p.lookAt(ctx, group, id, true)
	if err != nil || f.exists || f.placement >= placement {
		return f, err
	}
	ack, err := p.node.proposeWait(ctx, group, room.Command{ID: id, Kind: room.Claim, Placement: placement})
	if e := wire.AsError(err); err != nil && e.Code == wire.CodeMoved {
		return found{group: e.Group, exists: true}, nil
	}
	if err != nil {
		return found{}, err
	}
	return found{group: group, exists: ack.Seq > 0}, nil
}

// tell lets the group in which a room belongs know where it is, so that the next
// one who looks for it need not ask around. Nothing depends on it.
func (p *places) tell(group uint32, id room.ID, is uint32, placement uint64) {
	c := room.Command{ID: id, Kind: room.Elsewhere, Placement: placement, Group: is}
	p.node.propose(group, p.node.flights.clock.Load(), c.Append(nil), func(_ *wire.Ack, err error) {
		if wire.Code(err) == wire.CodeExists {
			p.node.log.Error("a room has two histories", "app", id.App, "room", id.Room, "groups", []uint32{group, is}, "err", err)
		}
	})
}

// send brings a client's command to the group of its room. Sends that come while
// the room is being looked for wait, and go out in their order.
func (p *places) send(c room.Command, moment uint64, done func(*wire.Ack, error)) {
	placement := p.node.dir.state().Placement()
	var f found
	if placement == 0 {
		group, err := p.node.locate(c.ID)
		if err != nil {
			done(nil, err)
			return
		}
		f = found{group: group}
	}
	p.mu.Lock()
	if s := p.searches[c.ID]; s != nil {
		err := s.err
		if err == nil {
			s.held = append(s.held, held{c, moment, done})
		}
		p.mu.Unlock()
		if err != nil {
			done(nil, err)
		}
		return
	}
	if known, ok := p.recall(c.ID, placement); ok {
		f = known
	} else if placement > 0 {
		s := &search{held: []held{{c, moment, done}}}
		p.searches[c.ID] = s
		p.mu.Unlock()
		p.running.Go(func() { p.search(c.ID, s) })
		return
	}
	p.mu.Unlock()
	_ = p.pass(f, c, moment, done) // done was told
}

// searchWithin bounds the time that sends wait for their room to be found.
const searchWithin = 5 * time.Second

// search looks for a room, then lets go the sends that wait for it. Those that
// come meanwhile wait too, so that none overtakes.
func (p *places) search(id room.ID, s *search) {
	ctx, cancel := context.WithTimeout(p.ctx, searchWithin)
	defer cancel()
	f, err := p.find(ctx, id)
	if err != nil {
		p.refuse(id, s, wire.AsError(err))
		return
	}
	for {
		p.mu.Lock()
		next := s.held
		s.held = nil
		if len(next) == 0 && p.searches[id] == s {
			delete(p.searches, id)
		}
		p.mu.Unlock()
		if len(next) == 0 {
			return
		}
		for i, h := range next {
			if err := p.pass(f, h.command, h.moment, h.done); err != nil {
				for _, behind := range next[i+1:] { // or one could overtake
					behind.done(nil, err)
				}
				return
			}
		}
	}
}

// refuse refuses the sends to a room that wait, and those of the next moment. A
// sender whose send was refused starts again with it; what it sent after it must
// not go through meanwhile. A search that is over refuses nothing any more.
func (p *places) refuse(id room.ID, of *search, err *wire.Error) {
	p.mu.Lock()
	before := p.searches[id]
	if of != nil && of != before {
		p.mu.Unlock()
		return
	}
	s := &search{err: err}
	p.searches[id] = s
	var waiting []held
	if before != nil {
		waiting, before.held = before.held, nil
	}
	p.mu.Unlock()
	for _, h := range waiting {
		h.done(nil, err)
	}
	time.AfterFunc(leaderAgain, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.searches[id] == s {
			delete(p.searches, id)
		}
	})
}

// pass proposes a command in the group where its room was found, and learns from
// the answer. While something for the room is still unanswered nothing goes to
// another group, and nothing by another placement: of two in a row the first could
// be refused and the second taken. An error says that it was refused, as all for
// the room are for a moment.
func (p *places) pass(f found, c room.Command, moment uint64, done func(*wire.Ack, error)) error {
	f, ok := p.depart(c.ID, f)
	if !ok {
		err := wire.Errorf(wire.CodeStale, "room %q has just got another group", c.ID.Room).After(leaderAgain)
		p.refuse(c.ID, nil, err)
		done(nil, err)
		return err
	}
	c.Placement = f.placement
	if f.exists {
		c.Placement = room.Exists
	}
	p.node.propose(f.group, moment, c.Append(nil), func(ack *wire.Ack, err error) {
		switch {
		case err == nil && f.placement > 0 && !f.exists:
			p.remember(c.ID, found{group: f.group, exists: true})
		case wire.Code(err) == wire.CodeMoved, wire.Code(err) == wire.CodeStale:
			err = p.mistaken(c.ID, wire.AsError(err))
		}
		done(ack, err)
		p.land(c.ID)
	})
	return nil
}

// depart counts a send, and returns by what it goes: that of the room's others
// that are on their way. ok is false if these go to another group.
func (p *places) depart(id room.ID, f found) (by found, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.open[id]
	if o.sends == 0 {
		o.at = f
	}
	if o.at.group != f.group {
		return f, false
	}
	p.open[id] = opened{o.at, o.sends + 1}
	return o.at, true
}

// land counts the end of a send, once its sender knows it.
func (p *places) land(id room.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.open[id]
	if o.sends--; o.sends > 0 {
		p.open[id] = o
	} else {
		delete(p.open, id)
	}
}

// mistaken notes that a room was not where it was thought to be.
func (p *places) mistaken(id room.ID, e *wire.Error) error {
	p.mu.Lock()
	if e.Code == wire.CodeMoved {
		p.keep(id, found{group: e.Group, exists: true})
	} else {
		delete(p.young, id)
		delete(p.old, id)
	}
	p.mu.Unlock()
	again := wire.Errorf(e.Code, "%s", e.Message).After(leaderAgain)
	p.refuse(id, nil, again)
	return again
}

// proposeWait is propose that waits for the answer.
func (n *Node) proposeWait(ctx context.Context, group uint32, c room.Command) (*wire.Ack, error) {
	type answer struct {
		ack *wire.Ack
		err error
	}
	answers := make(chan answer, 1)
	n.propose(group, n.flights.clock.Load(), c.Append(nil), func(ack *wire.Ack, err error) { answers <- answer{ack, err} })
	select {
	case a := <-answers:
		return a.ack, a.err
	case <-ctx.Done():
		return nil, wire.Errorf(wire.CodeUnavailable, "group %d did not answer in time", group)
	}
}
