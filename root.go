package starling

import (
	"context"
	"sync"
	"time"

	"github.com/starling-im/starling/directory"
	"github.com/starling-im/starling/wire"
)

// root is where group 0 is, as far as this node knows. The directory says where
// all other groups are; who cannot follow the directory asks all nodes which of
// them have it.
type root struct {
	node  *Node
	first []string // its first voters, by the configuration

	mu     sync.Mutex
	is     directory.Replicas // none = the first ones
	epoch  uint64
	sought time.Time
}

// seekEvery is how often a node asks around.
const seekEvery = time.Second

func (r *root) replicas() directory.Replicas {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.is.Voters) == 0 {
		return directory.Replicas{Voters: r.first}
	}
	return r.is
}

// seek asks all nodes for their replica of group 0. What one says that is of an
// earlier epoch than another's does not count, nor what nobody says.
func (r *root) seek(ctx context.Context) {
	r.mu.Lock()
	soon := time.Since(r.sought) < seekEvery
	if !soon {
		r.sought = time.Now()
	}
	r.mu.Unlock()
	if soon {
		return
	}
	all := gather(ctx, r.node, &wire.Query{What: queryRecoverHere, Args: []string{"0"}}, r.node.survivorsHere(0))
	found, epoch := directory.Replicas{}, uint64(0)
	for _, s := range all {
		if s.Epoch > epoch {
			found, epoch = directory.Replicas{}, s.Epoch
		}
		switch {
		case s.Epoch < epoch || s.Removed:
		case s.Votes():
			found.Voters = append(found.Voters, s.Node)
		default:
			found.Learners = append(found.Learners, s.Node)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(found.Voters) > 0 && epoch >= r.epoch {
		r.is, r.epoch = found, epoch
	}
}
