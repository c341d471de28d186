package starling

import (
	"context"
	"slices"

	"github.com/starling-im/starling/geo"
	"github.com/starling-im/starling/mesh"
	"github.com/starling-im/starling/relay"
	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// newSignals joins the signals of this node with those of others. They go the way by
// which a room is followed, against its direction and back, and from the replicas to one
// of them (docs/adr/0010-signals-are-shares.md).
func (n *Node) newSignals() *relay.Signals {
	return relay.NewSignals(relay.SignalsConfig{
		Self: n.cfg.Node, Parent: n.signalsTo,
		Send: func(node string, f *wire.Frame, below int) bool {
			l := n.links.get(node)
			return l != nil && l.Offer(f, below)
		},
		Sent: func(node string, about relay.Subject) {
			if n.aggregated != nil {
				n.aggregated(node, about)
			}
		},
	})
}

// signalsTo is the node to which this one tells what goes on in a room: the one that it
// follows for it, or the one at which all who follow nobody meet. "" = this node is that.
func (n *Node) signalsTo(about relay.Subject) string {
	if about.User != "" {
		group, err := n.locate(room.ID{App: about.App, Room: about.User})
		if err != nil {
			return ""
		}
		return n.meetingPlace(about.App+"/"+about.User, group)
	}
	id := room.ID{App: about.App, Room: about.Room}
	if t, ok := n.ways.of(id); ok && t.To.Node != "" {
		return t.To.Node
	}
	at, ok := n.places.known(id)
	if !ok {
		return ""
	}
	return n.meetingPlace(id.App+"/"+id.Room, at.group)
}

// meetingPlace is the replica of a group at which all meet who follow nobody: the first
// by a key that can be reached, a voter if there is one. "" = this node.
func (n *Node) meetingPlace(key string, group uint32) string {
	replicas := n.replicas(group)
	for _, holders := range [][]string{replicas.Voters, replicas.Learners} {
		var alive []string
		for _, m := range n.mesh.View().Members {
			self := m.ID == n.cfg.Node
			if slices.Contains(holders, m.ID) && m.State != mesh.Draining && (m.Linked || self && n.replicates(group)) {
				alive = append(alive, m.ID)
			}
		}
		if len(alive) == 0 {
			continue
		}
		if first := geo.Rank(key, alive)[0]; first != n.cfg.Node {
			return first
		}
		break
	}
	return ""
}

// known is find for those who cannot wait: what would have to be asked for is looked
// for meanwhile.
func (p *places) known(id room.ID) (found, bool) {
	dir := p.node.dir.state()
	if dir.Placement() == 0 {
		group, err := p.node.locate(id)
		return found{group: group}, err == nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	f, ok := p.recall(id, dir.Placement())
	if !ok && !p.wanted[id] && len(p.wanted) < placesWanted {
		p.wanted[id] = true
		p.running.Go(func() {
			ctx, cancel := context.WithTimeout(p.ctx, followWithin)
			defer cancel()
			_, _ = p.find(ctx, id)
			p.mu.Lock()
			defer p.mu.Unlock()
			delete(p.wanted, id)
		})
	}
	return f, ok
}

// placesWanted bounds the rooms that are looked for at one time for their signals.
const placesWanted = 64
