package starling

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/starling-im/starling/directory"
	"github.com/starling-im/starling/geo"
	"github.com/starling-im/starling/wire"
)

// root is where group 0 is, as far as this node knows. The directory says that as
// it does of other groups; who cannot follow the directory asks all nodes which of
// them have it.
type root struct {
	node  *Node
	first []string    // its first voters, by the configuration
	lost  atomic.Bool // the directory could not be followed

	mu      sync.Mutex
	is      directory.Replicas // what was found, while version is that of the directory
	version uint64
	epoch   uint64
}

// seekEvery is how often a node asks around.
const seekEvery = time.Second

func (r *root) replicas() directory.Replicas {
	r.mu.Lock()
	defer r.mu.Unlock()
	dir := r.node.dir.state()
	switch said := dir.Root(); {
	case len(r.is.Voters) > 0 && dir.Version() <= r.version:
		return r.is
	case len(said.Voters) > 0:
		return said
	case len(r.is.Voters) > 0:
		return r.is
	}
	return directory.Replicas{Voters: r.first}
}

// group returns a group of the directory, or the directory's own.
func (n *Node) group(id uint32) (directory.Group, bool) {
	if id != 0 {
		return n.dir.state().Group(id)
	}
	return directory.Group{Region: n.cfg.regions()[0], Voters: n.root.first, Now: n.root.replicas()}, n.dir.state().Version() > 0
}

// rootSurvives is what group 0 outlives: the loss of a region, where there are
// three. Nodes must agree on it before they know the directory.
func (n *Node) rootSurvives() geo.Survive {
	regions := map[string]bool{}
	for _, s := range n.sites() {
		regions[s.Region] = true
	}
	if len(regions) >= 3 || len(regions) == 0 && len(n.cfg.regions()) >= 3 {
		return geo.SurviveRegion
	}
	return geo.Survive(n.cfg.Survive)
}

// run asks around until ctx ends: where the directory could not be followed, and
// where there is a replica that hears from no leader. That one may have been taken
// out of the group, of which nobody tells it.
func (r *root) run(ctx context.Context) {
	tick := time.NewTicker(seekEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if r.lost.Swap(false) || r.node.host.Unheard(0) {
			r.seek(ctx)
		}
	}
}

// seek asks all nodes for their replica of group 0. Who has a vote is said by the
// one with the newest log, since others may have been taken out and not know.
func (r *root) seek(ctx context.Context) {
	all := gather(ctx, r.node, &wire.Query{What: queryRecoverHere, Args: []string{"0"}}, r.node.survivorsHere(0))
	all = slices.DeleteFunc(all, Survivor.blank)
	if len(all) == 0 {
		return
	}
	newest := slices.MaxFunc(all, byLog)
	found := directory.Replicas{Voters: newest.Voters}
	for _, s := range all {
		if s.Epoch == newest.Epoch && !s.Removed && !s.Votes() {
			found.Learners = append(found.Learners, s.Node)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if newest.Epoch >= r.epoch {
		r.is, r.epoch, r.version = found, newest.Epoch, r.node.dir.state().Version()
		r.node.dir.changes.wake() // who follows may have to look elsewhere
	}
}
