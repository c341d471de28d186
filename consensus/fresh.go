package consensus

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// freshness knows as of when the data of a replica is whole: when the message came
// from its leader of before whose making nothing is missing.
//
// A leader's message says what the leader had committed when it made it, and what
// was acknowledged had been committed. So once the replica has applied that, it
// has all that was acknowledged before the message was made. How long it took is
// known to nobody: to be sure, add what a message may take, retransmissions
// included. Heartbeats say nothing of commits, and hints less than the leader
// knows. A replica that misses nothing hears the rest at least once in two
// CommitTimeouts. Those that may have waited for others to travel with count as
// come that much earlier.
type freshness struct {
	mu     sync.Mutex
	as     time.Time // of this moment it is whole; zero = of none since the start
	commit uint64    // it will be of next when this is applied
	term   uint64    // of the entry commit
	next   time.Time // zero = nothing waits
}

// Fresh returns when the message came from the leader before whose making all that
// was acknowledged is seen by a Read that begins now; on the leader that is now.
// Zero = unknown, since the replica has not heard from a leader since it started.
//
// For what Barrier promises a quorum must be asked; this asks nobody, so it speaks
// of acknowledgements of the leader that this node knows. Another one may be there
// already, for as long as the old one takes to notice: the lease, 1.6 times
// Group.Heartbeat.
func (h *Host) Fresh(id uint32) time.Time {
	g := h.group(id)
	if g == nil {
		return time.Time{}
	}
	now := time.Now()
	whole := g.leadsWhole()
	g.fresh.mu.Lock()
	defer g.fresh.mu.Unlock()
	g.renew()
	if whole {
		g.fresh.as = now
	}
	return g.fresh.as
}

// told notes that Raft has taken a message of a leader, which left at some time or
// before, by this node's clock and but for its way here.
// What a new one has committed lacks what was acknowledged before it, until an entry
// of its own term is among it.
//
// Most messages are those of a quiet leader: heartbeats, and what it said before. An entry
// of its own term that it has committed stays what it is, and is not read again.
func (g *group) told(r *raft.AppendEntriesRequest, left time.Time) {
	if r.LeaderCommitIndex == 0 {
		return
	}
	g.fresh.mu.Lock()
	defer g.fresh.mu.Unlock()
	g.renew()
	f := &g.fresh
	if !f.next.IsZero() {
		return
	}
	if f.commit != r.LeaderCommitIndex || f.term != r.Term {
		if term, ok := g.termOf(r.LeaderCommitIndex); !ok || term != r.Term {
			return
		}
	}
	f.commit, f.term, f.next = r.LeaderCommitIndex, r.Term, left
}

// renew is called with fresh.mu held.
func (g *group) renew() {
	if f := &g.fresh; !f.next.IsZero() && g.hasApplied(f.commit) {
		f.as, f.next = f.next, time.Time{}
	}
}

// leadsWhole says that this node leads and has applied all that was acknowledged:
// an entry of its own term is committed, and so what the leaders before it have
// acknowledged is too.
func (g *group) leadsWhole() bool {
	r := g.instance()
	if r.State() != raft.Leader {
		return false
	}
	term, commit := r.CurrentTerm(), r.CommitIndex()
	var e raft.Log
	return g.logs.GetLog(commit, &e) == nil && e.Term == term && g.hasApplied(commit)
}

// hasApplied says that an entry is in the data, or that nothing between is for it:
// Raft's own entries are not.
func (g *group) hasApplied(index uint64) bool {
	for applied := g.fsm.position().index; index > applied && !g.logs.covered(index); index-- {
		var e raft.Log
		if g.logs.GetLog(index, &e) != nil || e.Type == raft.LogCommand || e.Type == raft.LogConfiguration {
			return false
		}
	}
	return true
}

// covered says that an entry is in the snapshot.
func (l *logStore) covered(index uint64) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return index <= l.floor.Index
}
