package consensus

import (
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/starling-im/starling/wire"
)

const (
	// placeAfter is how long a replica hears from no leader before it asks
	// whether it was taken out of the group.
	placeAfter = 4 * time.Second
	// placeEvery is how often it asks.
	placeEvery = 5 * time.Second
)

// place knows whether the group goes on without this replica. Who is removed
// is told so by nobody: its leader speaks with it no more, and it cannot tell
// that from a partition. So it asks; only a leader answers, which a quorum has
// just confirmed. Contact with a leader after the question shows that the
// replica was added again.
type place struct {
	mu      sync.Mutex
	asked   time.Time
	removed time.Time // when the question was asked, zero = not removed
	silent  bool      // Raft does not stand for election
}

// removed reports whether the group goes on without this replica.
func (g *group) removed() bool {
	g.place.mu.Lock()
	at := g.place.removed
	g.place.mu.Unlock()
	return !at.IsZero() && !g.instance().LastContact().After(at)
}

// addedAgain forgets that the replica was taken out.
func (p *place) addedAgain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.removed = time.Time{}
}

func (p *place) isSilent() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.silent
}

// tendPlace is called every tendEvery.
func (g *group) tendPlace() {
	out := g.removed()
	g.place.mu.Lock()
	defer g.place.mu.Unlock()
	if out != g.place.silent && g.doubt() == sure {
		g.place.silent = out
		g.stand(!out)
	}
	now := time.Now()
	if out || g.unheard() < placeAfter || now.Sub(g.place.asked) < placeEvery {
		return
	}
	g.place.asked = now
	g.askPlace(now)
}

// unheard is how long the replica has heard from no leader; 0 if it leads.
func (g *group) unheard() time.Duration {
	r := g.instance()
	if r.State() == raft.Leader {
		return 0
	}
	heard := r.LastContact()
	if heard.Before(g.begun) {
		heard = g.begun
	}
	return time.Since(heard)
}

// Unheard reports whether this node has a replica of a group that has heard from no
// leader for a while: that one may have been taken out of the group.
func (h *Host) Unheard(id uint32) bool {
	g := h.group(id)
	return g != nil && g.unheard() >= placeAfter/2
}

// stand lets Raft stand for election by itself, or not.
func (g *group) stand(may bool) {
	r := g.instance()
	c := r.ReloadableConfig()
	c.HeartbeatTimeout, c.ElectionTimeout = neverStands, neverStands
	if may {
		c.HeartbeatTimeout, c.ElectionTimeout = raftShare*g.cfg.Heartbeat, raftShare*g.cfg.Heartbeat
	}
	if err := r.ReloadConfig(c); err != nil {
		_ = g.h.s.fail(err)
	}
}

// askPlace asks all nodes: the leader may be one that the replica never heard of.
func (g *group) askPlace(now time.Time) {
	nodes := g.voters()
	if g.h.cfg.Nodes != nil {
		nodes = append(nodes, g.h.cfg.Nodes()...)
	}
	slices.Sort(nodes)
	for _, node := range slices.Compact(nodes) {
		if node == g.h.cfg.Node {
			continue
		}
		p := g.h.peer(node)
		m := &wire.RaftMessage{Group: g.cfg.ID, Epoch: g.epoch, Body: &wire.RaftMessage_FindPlace{FindPlace: &wire.FindPlace{}}}
		p.ask(m, false, func(m *wire.RaftMessage, err error) {
			if a := m.GetFindPlaceReply(); err == nil && a != nil && !a.Member {
				g.leftOut(p.node, a.ConfigIndex, now)
			}
		})
	}
}

func (g *group) leftOut(leader string, index uint64, asked time.Time) {
	g.place.mu.Lock()
	defer g.place.mu.Unlock()
	if g.place.removed.Before(asked) {
		g.place.removed = asked
		g.h.cfg.Log.Info("replica was taken out of its group", "group", g.cfg.ID, "leader", leader, "entry", index)
	}
}

// findPlace answers a replica that asks.
func (g *group) findPlace(p *peer, m *wire.RaftMessage) {
	g.answering(p, m, func() (*wire.RaftMessage, error) {
		if err := g.barrier(); err != nil {
			return nil, err
		}
		// The newest configuration, committed or not: one who is being added
		// is not out.
		_, in := find(g.replicas(g.instance()), p.node)
		c := g.fsm.configured()
		return &wire.RaftMessage{Body: &wire.RaftMessage_FindPlaceReply{FindPlaceReply: &wire.FindPlaceReply{
			ConfigIndex: c.index, Member: in || c.has(p.node),
		}}}, nil
	})
}
