package consensus

import (
	"sync"

	"github.com/hashicorp/raft"
)

// hints tell followers at once that an entry is committed; Raft itself would
// tell with the next entry or after CommitTimeout.
//
// A hint is an AppendEntries without entries, which any Raft leader may send.
// It is safe even if this node leads no more: the entry is committed, and a
// follower takes it as such only if it has that very entry, since what it is
// told to commit is what it is asked to compare. As the stream is ordered, a
// hint needs only to follow the entry on it: where the entry has not been sent
// yet, the hint waits for that.
type hints struct {
	t *transport

	mu   sync.Mutex
	term uint64
	sent map[string]uint64 // the last entry of term sent to each peer
	due  map[string]uint64 // committed, but not sent yet
}

// committed sends the followers a hint of an entry of term.
func (h *hints) committed(index, term uint64, followers []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.enter(term)
	if term < h.term {
		return
	}
	for _, node := range followers {
		if h.sent[node] >= index {
			h.send(node, index)
		} else {
			h.due[node] = index
		}
	}
}

// appended notes that a request was put on the stream to a peer.
func (h *hints) appended(node string, r *raft.AppendEntriesRequest) {
	if len(r.Entries) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.enter(r.Term)
	last := r.Entries[len(r.Entries)-1].Index
	if r.Term < h.term || last <= h.sent[node] {
		return
	}
	h.sent[node] = last
	if due := h.due[node]; due != 0 && due <= last {
		delete(h.due, node)
		if r.LeaderCommitIndex < due {
			h.send(node, due)
		}
	}
}

// enter is called with mu held: what was sent in another term says nothing.
func (h *hints) enter(term uint64) {
	if term > h.term {
		h.term, h.sent, h.due = term, map[string]uint64{}, map[string]uint64{}
	}
}

// send is called with mu held; a queue that is full will bring the news itself.
func (h *hints) send(node string, index uint64) {
	m := appendMessage(h.t.group, h.t.epoch, &raft.AppendEntriesRequest{Term: h.term, PrevLogEntry: index, PrevLogTerm: h.term, LeaderCommitIndex: index})
	_ = h.t.h.peer(node).send(m, false) // without an id: no answer
}

// hint tells the followers that an entry of this leader is committed.
func (g *group) hint(index, term uint64) {
	r := g.instance()
	if r.State() != raft.Leader || r.CurrentTerm() != term {
		return
	}
	var followers []string
	for _, s := range r.GetConfiguration().Configuration().Servers {
		if string(s.ID) != g.h.cfg.Node {
			followers = append(followers, string(s.ID))
		}
	}
	g.trans.hints.committed(index, term, followers)
}
