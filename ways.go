package starling

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/starling-im/starling/geo"
	"github.com/starling-im/starling/mesh"
	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// ways are the decisions by which rooms are followed here, and what other nodes have
// told of their links.
type ways struct {
	mu    sync.Mutex
	taken map[room.ID]*taken
	heard map[string]heard // by node; replaced, never changed
	news  chan struct{}    // closed when heard changes
}

// taken is how one room is followed here.
type taken struct {
	geo.Decision
	duty    geo.Duty
	carries []string // relays that had the room when they were asked
}

func (w *ways) begin() {
	w.taken, w.heard, w.news = map[room.ID]*taken{}, map[string]heard{}, make(chan struct{})
}

// enter begins the decisions of a feed, with what the last one of the room knew.
func (w *ways) enter(id room.ID, duty geo.Duty) *taken {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := &taken{duty: duty}
	if last := w.taken[id]; last != nil {
		t.Decision = last.Decision
	}
	w.taken[id] = t
	return t
}

// leave ends them, unless another feed of the room has begun.
func (w *ways) leave(id room.ID, t *taken) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.taken[id] == t {
		delete(w.taken, id)
	}
}

// of returns how a room is followed here, false if it is not.
func (w *ways) of(id room.ID) (taken, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t := w.taken[id]; t != nil {
		return *t, true
	}
	return taken{}, false
}

// far reports whether any room is followed in another region.
func (w *ways) far() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.taken {
		if t.Role == geo.FarReplica || t.Role == geo.Detour {
			return true
		}
	}
	return false
}

func (w *ways) told() map[string]heard {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.heard
}

// next is closed when others have told something new.
func (w *ways) next() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.news
}

// review gets the time when a better way has lasted, nil = there is none.
func (w *ways) review(t *taken) <-chan time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := t.Review()
	if at.IsZero() {
		return nil
	}
	return time.After(time.Until(at))
}

// take decides anew whom to follow for a room.
func (n *Node) take(t *taken, id room.ID, group uint32) (geo.Way, error) {
	q, err := n.hop(id, group, t.duty)
	if err != nil {
		return geo.Way{}, err
	}
	n.ways.mu.Lock()
	defer n.ways.mu.Unlock()
	q.Carries = t.carries
	before := t.Way
	t.Decision = geo.NextRelay(q, t.Decision, time.Now())
	if before.Role != geo.NoRole && before.To != t.To {
		n.log.Debug("another way", "app", id.App, "room", id.Room, "was", before.String(), "is", t.Way.String())
	}
	return t.Way, nil
}

// hop asks whom this node should follow for a room.
func (n *Node) hop(id room.ID, group uint32, duty geo.Duty) (geo.Hop, error) {
	replicas := n.replicas(group)
	if len(replicas.Voters) == 0 {
		return geo.Hop{}, noGroup(group)
	}
	q := geo.Hop{Self: geo.Site{Node: n.cfg.Node, Region: n.cfg.Region}, Room: id.App + "/" + id.Room, Duty: duty, Links: n.known()}
	here := n.replicates(group)
	leader, _ := n.leader(group)
	for _, m := range n.mesh.View().Members {
		site := geo.Site{Node: m.ID, Region: m.Region}
		if m.ID == leader {
			q.Leader = site
		}
		if m.ID == n.cfg.Node || m.Linked && m.State != mesh.Draining {
			q.Alive = append(q.Alive, site)
		}
		holds := slices.Contains(replicas.Voters, m.ID) || slices.Contains(replicas.Learners, m.ID)
		if holds && m.ID != n.cfg.Node || here && m.ID == n.cfg.Node {
			q.Replicas = append(q.Replicas, site)
		}
	}
	if len(q.Replicas) == 0 {
		return geo.Hop{}, wire.Errorf(wire.CodeUnavailable, "no replica of group %d is known", group)
	}
	return q, nil
}

// carriersEvery is the least time between two looks at who has a room already, while it
// is followed in another region.
const carriersEvery = time.Minute

// carriersWithin bounds the wait for who has a room already; who does not say so in
// time is held not to.
const carriersWithin = time.Second

// learnCarriers asks the relays over which a detour could lead whether they have the room
// already. It matters only where links have a price.
func (n *Node) learnCarriers(ctx context.Context, t *taken, id room.ID, group uint32) {
	q, err := n.hop(id, group, t.duty)
	if err != nil || len(n.cfg.Costs) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, carriersWithin)
	defer cancel()
	var mu sync.Mutex
	var asking sync.WaitGroup
	var carries []string
	for _, relay := range q.Detours() {
		asking.Go(func() {
			var has bool
			if err := n.askNode(ctx, relay.Node, &has, queryCarriesHere, id.App, id.Room); err == nil && has {
				mu.Lock()
				carries = append(carries, relay.Node)
				mu.Unlock()
			}
		})
	}
	asking.Wait()
	n.ways.mu.Lock()
	defer n.ways.mu.Unlock()
	t.carries = carries
}
