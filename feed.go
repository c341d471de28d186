package starling

import (
	"context"
	"time"

	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// feed supplies the hub with events: of rooms whose group has a replica here
// from the store, of all others from the next relay towards a replica.
type feed Node

// Run implements relay.Feed.
func (f *feed) Run(ctx context.Context, id room.ID, direct bool, last func() (uint64, bool)) {
	n := (*Node)(f)
	for ctx.Err() == nil {
		if err := n.feedFrom(ctx, id, direct, last); err != nil && ctx.Err() == nil {
			n.log.Debug("following again", "app", id.App, "room", id.Room, "err", err)
			wait(ctx, followAgain)
		}
	}
}

// followAgain is the pause after a parent could not be followed.
const followAgain = 50 * time.Millisecond

// feedFrom follows the best parent until it is lost or another is better.
func (n *Node) feedFrom(ctx context.Context, id room.ID, direct bool, last func() (uint64, bool)) error {
	group, err := n.locate(id)
	if err != nil {
		return err
	}
	parent, err := n.parent(id, group, direct)
	if err != nil {
		return err
	}
	if parent == "" {
		return n.feedHere(ctx, id, group)
	}
	link := n.links.get(parent)
	if link == nil {
		return wire.Errorf(wire.CodeUnavailable, "%q cannot be reached", parent)
	}
	after, known := last()
	ask := &wire.Follow{App: id.App, Room: id.Room, AfterSeq: after, FromHead: !known, AsRelay: n.sameRegion(parent)}
	timeout, cancel := context.WithTimeout(ctx, followWithin)
	head, ended, stop, err := link.follow(timeout, ask, func(events [][]byte) {
		for _, e := range events {
			n.hub.Append(id, wire.EventSeq(e), e)
		}
	})
	cancel()
	if err != nil {
		return err
	}
	defer stop()
	if !known {
		n.hub.Begin(id, head)
	}
	return n.feedUntil(ctx, ended, link, func() bool {
		now, err := n.parent(id, group, direct)
		return err != nil || now == parent
	})
}

// followWithin bounds the wait for a parent's answer.
const followWithin = 5 * time.Second

// feedUntil returns when the parent is lost, or is no longer the one to take.
func (n *Node) feedUntil(ctx context.Context, ended <-chan struct{}, link *link, best func() bool) error {
	for {
		view := n.mesh.View()
		if !best() {
			return nil
		}
		select {
		case <-view.Next():
		case <-ended:
			return wire.Errorf(wire.CodeUnavailable, "the parent ended the follow")
		case <-link.gone:
			return wire.Errorf(wire.CodeUnavailable, "the link to the parent is gone")
		case <-ctx.Done():
			return nil
		}
	}
}

// feedHere starts a topic whose events come from the replica on this node:
// what the store has now is history, and every later event is appended when it
// is applied.
func (n *Node) feedHere(ctx context.Context, id room.ID, group uint32) error {
	var head uint64
	err := n.host.Read(group, func(r consensusReader) {
		if s, ok := room.Load(r, id); ok {
			head = s.Head
		}
	})
	if err != nil {
		return err
	}
	n.hub.Begin(id, head)
	<-ctx.Done()
	return nil
}

func (n *Node) sameRegion(node string) bool {
	m, ok := n.mesh.View().Member(node)
	return ok && m.Region == n.cfg.Region
}

// Read implements relay.Feed.
func (f *feed) Read(ctx context.Context, id room.ID, after uint64, max int) ([][]byte, error) {
	n := (*Node)(f)
	group, err := n.locate(id)
	if err != nil {
		return nil, err
	}
	if n.replicates(group) {
		var events [][]byte
		err := n.host.Read(group, func(r consensusReader) { events = room.Read(r, id, after, wire.PageEvents, max) })
		return events, err
	}
	page, err := n.page(ctx, id, group, &wire.History{AfterSeq: after, Limit: wire.PageEvents}, max)
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
	group, err := n.locate(id)
	if err != nil {
		return 0, 0, err
	}
	page, err := n.page(ctx, id, group, &wire.History{Limit: headOnly}, 0)
	if err != nil {
		return 0, 0, err
	}
	return page.HeadSeq, page.Epoch, nil
}

// headOnly asks for a page without events.
const headOnly = 1 << 31

// page reads a page of history, of at most max bytes: here, or from the node
// that must or can tell.
func (n *Node) page(ctx context.Context, id room.ID, group uint32, h *wire.History, max int) (*wire.Page, error) {
	if h.Linearizable {
		leader, err := n.leader(group)
		if err != nil {
			return nil, err
		}
		if leader != n.cfg.Node {
			return n.askPage(ctx, leader, group, id, h, max)
		}
		if err := n.host.Barrier(ctx, group); err != nil {
			return nil, err
		}
	} else if !n.replicates(group) {
		parent, err := n.parent(id, group, true)
		if err != nil {
			return nil, err
		}
		return n.askPage(ctx, parent, group, id, h, max)
	}
	return n.pageHere(id, group, h, max)
}

// askPage asks another node for a page.
func (n *Node) askPage(ctx context.Context, node string, group uint32, id room.ID, h *wire.History, max int) (*wire.Page, error) {
	ask := &wire.History{
		App: id.App, Room: id.Room, AfterSeq: h.AfterSeq, Limit: h.Limit, Linearizable: h.Linearizable, MaxBytes: uint32(max),
	}
	answer, err := n.links.get(node).ask(ctx, &wire.Frame{Body: &wire.Frame_History{History: ask}})
	if err != nil {
		e := wire.AsError(err)
		if e.Code == wire.CodeNotLeader {
			n.hints.set(group, e.Node)
		}
		return nil, e
	}
	if answer.GetPage() == nil {
		return nil, wire.Errorf(wire.CodeInternal, "a %T answers History", answer.Body)
	}
	return answer.GetPage(), nil
}

// pageHere reads a page from the replica on this node.
func (n *Node) pageHere(id room.ID, group uint32, h *wire.History, max int) (*wire.Page, error) {
	page := new(wire.Page)
	var encoded [][]byte
	err := n.host.Read(group, func(r consensusReader) {
		s, ok := room.Load(r, id)
		if !ok {
			return
		}
		page.HeadSeq, page.Epoch = s.Head, s.Epoch
		if h.Limit == headOnly {
			return
		}
		limit := int(h.Limit)
		if limit == 0 || limit > wire.PageEvents {
			limit = wire.PageEvents
		}
		encoded = room.Read(r, id, h.AfterSeq, limit, max)
	})
	if err != nil {
		return nil, err
	}
	for _, b := range encoded {
		e, err := wire.DecodeEvent(b)
		if err != nil {
			return nil, err
		}
		page.Events = append(page.Events, e)
	}
	if k := len(page.Events); k > 0 {
		page.HasMore = page.Events[k-1].Seq < page.HeadSeq
	}
	return page, nil
}
