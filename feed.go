package starling

import (
	"context"
	"time"

	"github.com/starling-im/starling/geo"
	"github.com/starling-im/starling/relay"
	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// feed supplies the hub with events: of rooms whose group has a replica here
// from the store, of all others from the next relay towards a replica.
type feed Node

// Run implements relay.Feed.
func (f *feed) Run(ctx context.Context, id room.ID, duty relay.Duty, last func() (uint64, bool)) {
	n := (*Node)(f)
	t := n.ways.enter(id, geo.Duty(duty))
	defer n.ways.leave(id, t)
	for ctx.Err() == nil {
		if err := n.feedFrom(ctx, id, t, last); err != nil && ctx.Err() == nil {
			n.log.Debug("following again", "app", id.App, "room", id.Room, "err", err)
			if id == directoryRoom {
				n.root.lost.Store(true)
			}
			wait(ctx, max(followAgain, time.Duration(wire.AsError(err).RetryAfterMs)*time.Millisecond))
		}
	}
}

// followAgain is the pause after a parent could not be followed.
const followAgain = 50 * time.Millisecond

// feedFrom follows the best parent until it is lost or another is better. A room
// that does not exist may be made somewhere else after the placement of rooms has
// changed: then it is looked for again.
func (n *Node) feedFrom(ctx context.Context, id room.ID, t *taken, last func() (uint64, bool)) error {
	var changed <-chan struct{}
	if id != directoryRoom {
		changed = n.dir.placed()
	}
	look, cancel := context.WithTimeout(ctx, followWithin)
	f, err := n.places.find(look, id)
	cancel()
	if err != nil {
		return err
	}
	if f.exists {
		changed = nil
	}
	n.learnCarriers(ctx, t, id, f.group)
	way, err := n.take(t, id, f.group)
	if err != nil {
		return err
	}
	parent := way.To.Node
	asked := time.Now()
	best := func() bool {
		if way.To.Region != n.cfg.Region && time.Since(asked) > carriersEvery {
			n.learnCarriers(ctx, t, id, f.group)
			asked = time.Now()
		}
		now, err := n.take(t, id, f.group)
		return err != nil || now.To == way.To && now.Asks() == way.Asks()
	}
	if parent == "" {
		departed := n.departures.of(f.group)
		if err := n.beginHere(id, f.group); err != nil {
			return err
		}
		return n.feedUntil(ctx, t, departed, changed, nil, best)
	}
	link := n.links.get(parent)
	if link == nil {
		return wire.Errorf(wire.CodeUnavailable, "%q cannot be reached", parent)
	}
	after, known := last()
	epoch := n.hub.Epoch(id)
	ask := &wire.Follow{App: id.App, Room: id.Room, AfterSeq: after, FromHead: !known, Epoch: epoch, AsRelay: way.Asks() >= geo.RelayDuty, ToReplica: way.Asks() == geo.LastDuty}
	timeout, cancel := context.WithTimeout(ctx, followWithin)
	is, ended, stop, err := link.follow(timeout, ask, func(events [][]byte) {
		if n.fed != nil {
			n.fed(parent, events)
		}
		for _, e := range events {
			n.tracer.arrived(e, HopRelay, parent, time.Time{})
			n.hub.Append(id, wire.EventSeq(e), e)
		}
	})
	cancel()
	if err != nil {
		return err
	}
	defer stop()
	if !known || !is.Recovered {
		n.hub.Begin(id, is.HeadSeq, is.Epoch)
		if known {
			return nil // what was asked for is of an epoch that is over
		}
	} else if epoch == 0 {
		n.hub.Begin(id, after, is.Epoch)
	}
	return n.feedUntil(ctx, t, ended, changed, link.gone, best)
}

// followWithin bounds the wait for a parent's answer.
const followWithin = 5 * time.Second

// feedUntil returns when the parent is lost, or is no longer the one to take:
// nodes come and go, and so do replicas, this node's own too, and a better way is
// taken once it has lasted.
func (n *Node) feedUntil(ctx context.Context, t *taken, ended, changed, gone <-chan struct{}, best func() bool) error {
	for {
		view, fold, news := n.mesh.View(), n.dir.changes.next(), n.ways.next()
		if !best() {
			return nil
		}
		select {
		case <-view.Next():
		case <-news:
		case <-n.ways.review(t):
		case <-fold:
		case <-changed:
			return nil
		case <-ended:
			return wire.Errorf(wire.CodeUnavailable, "the parent ended the follow")
		case <-gone:
			return wire.Errorf(wire.CodeUnavailable, "the link to the parent is gone")
		case <-ctx.Done():
			return nil
		}
	}
}

// beginHere starts a topic whose events come from the replica on this node:
// what the store has now is history, and every later event is appended when it
// is applied.
func (n *Node) beginHere(id room.ID, group uint32) error {
	var head, epoch uint64
	err := n.host.Read(group, func(r consensusReader) {
		epoch = room.Epoch(r, id)
		if s, ok := room.Load(r, id); ok {
			head = s.Head
		}
	})
	if err == nil {
		n.hub.Begin(id, head, epoch)
	}
	return err
}

// Read implements relay.Feed.
func (f *feed) Read(ctx context.Context, id room.ID, after uint64, max int) ([][]byte, error) {
	n := (*Node)(f)
	// The session's other rooms wait meanwhile.
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, followersAsk{}, true), followWithin)
	defer cancel()
	at, err := n.places.find(ctx, id)
	if err != nil {
		return nil, err
	}
	if n.replicates(at.group) {
		var events [][]byte
		err := n.host.Read(at.group, func(r consensusReader) { events = room.Read(r, id, after, wire.PageEvents, max) })
		return events, err
	}
	page, err := n.pageOf(ctx, id, &wire.History{AfterSeq: after, Limit: wire.PageEvents}, max)
	if err != nil {
		return nil, err
	}
	events := make([][]byte, len(page.Events))
	for i, e := range page.Events {
		events[i] = wire.EncodeEvent(e)
	}
	return events, nil
}

// Head implements relay.Feed.
func (f *feed) Head(ctx context.Context, id room.ID) (head, epoch uint64, err error) {
	n := (*Node)(f)
	page, err := n.pageOf(ctx, id, &wire.History{Limit: headOnly}, 0)
	if err != nil {
		return 0, 0, err
	}
	return page.HeadSeq, page.Epoch, nil
}
