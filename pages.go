package starling

import (
	"context"
	"math"
	"time"

	"github.com/starling-im/starling/geo"
	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// headOnly asks for a page without events.
const headOnly = 1 << 31

// pageOf reads a page of a room, wherever that is.
func (n *Node) pageOf(ctx context.Context, id room.ID, h *wire.History, max int) (*wire.Page, error) {
	f, err := n.places.find(ctx, id)
	if err != nil {
		return nil, err
	}
	page, err := n.page(ctx, id, f.group, h, max)
	if err == nil && page.Moved != 0 {
		n.places.remember(id, found{group: page.Moved, exists: true})
		page, err = n.page(ctx, id, page.Moved, h, max)
	}
	if err != nil {
		return nil, err
	}
	page.Moved, page.Placement = 0, 0
	return page, nil
}

// pageAsked reads a page for another node, of the one replica that it asks.
func (n *Node) pageAsked(ctx context.Context, id room.ID, h *wire.History, max int) (*wire.Page, error) {
	group := h.GetGroup()
	if !n.replicates(group) {
		return nil, wire.Errorf(wire.CodeNotLeader, "group %d has no replica on %q", group, n.cfg.Node)
	}
	if h.Linearizable {
		if err := n.host.Barrier(ctx, group); err != nil {
			return nil, err
		}
	}
	return n.pageHere(id, group, h, max)
}

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
		q, err := n.hop(id, group, geo.LastDuty)
		if err != nil {
			return nil, err
		}
		parent := geo.NextRelay(q, geo.Decision{}, time.Now()).To.Node
		return n.askPage(ctx, parent, group, id, h, max)
	}
	return n.pageHere(id, group, h, max)
}

// pageWithin bounds the wait for a page of another node, which the asker asks for
// again: of the next leader, if this one has fallen silent.
const pageWithin = 3 * time.Second

// askPage asks another node for a page.
func (n *Node) askPage(ctx context.Context, node string, group uint32, id room.ID, h *wire.History, max int) (*wire.Page, error) {
	ask := &wire.History{
		App: id.App, Room: id.Room, AfterSeq: h.AfterSeq, Limit: h.Limit, Linearizable: h.Linearizable, MaxBytes: uint32(max),
		Group: &group,
	}
	asked := time.Now()
	within, way := historyWithin, n.histories.ask
	if h.Linearizable {
		within = pageWithin
	}
	if h.Limit == headOnly {
		within, way = pageWithin, n.links.ask
	}
	patient, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	answer, err := way(patient, node, &wire.Frame{Body: &wire.Frame_History{History: ask}})
	if err != nil {
		e := wire.AsError(err)
		switch {
		case e.Code == wire.CodeNotLeader:
			n.hints.set(group, e.Node)
		case h.Linearizable && patient.Err() != nil:
			n.seekLeader(ctx, group)
		}
		return nil, e
	}
	if answer.GetPage() == nil {
		return nil, wire.Errorf(wire.CodeInternal, "a %T answers History", answer.Body)
	}
	page := answer.GetPage()
	if page.AgeMs != nil && !h.Linearizable {
		setAge(page, time.Duration(*page.AgeMs)*time.Millisecond+time.Since(asked))
	}
	return page, nil
}

// setAge says in a page how old it is, rounded up.
func setAge(page *wire.Page, age time.Duration) {
	ms := uint32(min((age+time.Millisecond-1)/time.Millisecond, math.MaxUint32))
	page.AgeMs = &ms
}

// pageHere reads a page from the replica on this node.
func (n *Node) pageHere(id room.ID, group uint32, h *wire.History, max int) (*wire.Page, error) {
	page := new(wire.Page)
	var encoded [][]byte
	fresh := n.host.Fresh(group)
	err := n.host.Read(group, func(r consensusReader) {
		page.Epoch = room.Epoch(r, id)
		s, ok := room.Load(r, id)
		if !ok {
			page.Moved, _ = room.Moved(r, id)
			page.Placement = room.Placement(r)
			return
		}
		page.HeadSeq = s.Head
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
	switch {
	case h.Linearizable:
		setAge(page, 0)
	case !fresh.IsZero():
		setAge(page, time.Since(fresh))
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
