package consensus

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// progress is what the answers to AppendEntries tell a leader of the others.
type progress struct {
	mu    sync.Mutex
	term  uint64
	nodes map[string]*reach
}

// reach is how a replica is doing. What a leader knew in an earlier term may
// not be so any more: another one may have removed entries.
type reach struct {
	since time.Time // of the first answer after the last failure, zero after one
	heard time.Time // of the last answer
	match uint64    // the last entry it is known to have
}

// saw notes the answer of a replica.
func (p *progress) saw(node string, r *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.Term > p.term {
		p.term, p.nodes = r.Term, map[string]*reach{}
	}
	if r.Term < p.term {
		return
	}
	n := p.nodes[node]
	if n == nil {
		n = &reach{}
		p.nodes[node] = n
	}
	if err == nil {
		n.heard = time.Now()
	}
	if err != nil || !resp.Success {
		n.since = time.Time{}
		return
	}
	if n.since.IsZero() {
		n.since = n.heard
	}
	if k := len(r.Entries); k > 0 {
		n.match = r.Entries[k-1].Index
	} else if r.PrevLogEntry > 0 {
		n.match = r.PrevLogEntry
	}
}

// of returns what is known of a replica in a term.
func (p *progress) of(node string, term uint64) reach {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := p.nodes[node]; n != nil && term == p.term {
		return *n
	}
	return reach{}
}

// Replica is what a node knows of one replica of a group. All but the names is
// known to the leader only, and of itself to each.
type Replica struct {
	Node  string
	Voter bool
	// Match is the last entry that the replica is known to have, 0 = unknown.
	Match uint64
	// Heard is when the replica last answered, zero = not in this term.
	Heard time.Time
	// Doubtful says that the replica may have forgotten what it acknowledged.
	Doubtful bool
}

// replicas lists the newest configuration of which this node knows.
func (g *group) replicas(r *instance) []Replica {
	var all []Replica
	term, leads := r.CurrentTerm(), r.State() == raft.Leader
	for _, s := range r.GetConfiguration().Configuration().Servers {
		at := Replica{Node: string(s.ID), Voter: s.Suffrage == raft.Voter}
		switch {
		case at.Node == g.h.cfg.Node:
			at.Match, at.Heard, at.Doubtful = r.LastIndex(), time.Now(), g.doubt() != sure
		case leads:
			n := g.trans.progress.of(at.Node, term)
			at.Match, at.Heard, at.Doubtful = n.match, n.heard, g.trans.doubts.has(at.Node)
		}
		all = append(all, at)
	}
	return all
}

// inReach says that the replica may be counted on now.
func (r Replica) inReach() bool { return !r.Doubtful && time.Since(r.Heard) < heardWithin }

// caughtUp says that the replica lacks at most so many entries before last.
func (r Replica) caughtUp(last, behind uint64) bool {
	return r.inReach() && r.Match > 0 && r.Match+behind >= last
}

// String says in words what stands against a replica.
func (r Replica) String() string {
	switch {
	case r.Doubtful:
		return r.Node + " (may have forgotten entries)"
	case r.Heard.IsZero():
		return r.Node + " (has not answered yet)"
	}
	return fmt.Sprintf("%s (has entry %d, answered %v ago)", r.Node, r.Match, time.Since(r.Heard).Round(time.Millisecond))
}

// find returns the replica of a node.
func find(all []Replica, node string) (Replica, bool) {
	i := slices.IndexFunc(all, func(r Replica) bool { return r.Node == node })
	if i < 0 {
		return Replica{}, false
	}
	return all[i], true
}
