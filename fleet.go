package starling

import (
	"slices"
	"sync"
	"time"

	"github.com/starling-im/starling/geo"
	"github.com/starling-im/starling/mesh"
)

// fleet says how the nodes are that may hold replicas: the directory who there
// is, the mesh who is alive.
type fleet struct {
	node *Node
	mu   sync.Mutex
	seen map[string]sight
}

// sight is how a node has been seen from here.
type sight struct {
	alive bool
	since time.Time
}

// nodes returns all nodes of the mesh, as they are now. One that said goodbye may
// be on its way back: it is one that failed, until the directory forgets it.
func (f *fleet) nodes() []geo.NodeState {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	load := map[string]int{}
	for _, g := range f.node.dir.state().Groups() {
		for _, v := range slices.Concat(g.Replicas().Voters, g.Replicas().Learners) {
			load[v]++
		}
	}
	var all []geo.NodeState
	for _, d := range f.node.dir.state().Nodes() {
		alive := f.node.reachable(d.ID)
		s, ok := f.seen[d.ID]
		if !ok || s.alive != alive {
			s = sight{alive, now}
			f.seen[d.ID] = s
		}
		n := geo.NodeState{Site: geo.Site{Node: d.ID, Region: d.Region}, State: geo.Alive, Load: load[d.ID]}
		switch {
		case f.node.dir.state().IsRevoked(d.ID):
			n.State = geo.Left
		case !alive:
			n.State, n.FailedFor = geo.Failed, now.Sub(s.since)
		case d.Leaving:
			n.State = geo.Leaving
		case f.node.draining(d.ID):
			n.State = geo.Draining
		}
		all = append(all, n)
	}
	return all
}

// aliveFor is how long a node has been alive, as seen from here.
func (f *fleet) aliveFor(node string) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.seen[node]; s.alive {
		return time.Since(s.since)
	}
	return 0
}

// reachable reports whether a node is there, as far as the mesh knows.
func (n *Node) reachable(node string) bool {
	m, _ := n.mesh.View().Member(node)
	return node == n.cfg.Node || m.State.Here() && m.Linked
}

// draining reports whether a node goes away for a moment.
func (n *Node) draining(node string) bool {
	m, _ := n.mesh.View().Member(node)
	return m.State == mesh.Draining
}

// names are the nodes of the directory.
func (n *Node) names() (ids []string) {
	for _, d := range n.dir.state().Nodes() {
		ids = append(ids, d.ID)
	}
	return ids
}

// sites are the nodes of the directory as package geo sees them.
func (n *Node) sites() (sites []geo.Site) {
	for _, d := range n.dir.state().Nodes() {
		sites = append(sites, geo.Site{Node: d.ID, Region: d.Region})
	}
	return sites
}
