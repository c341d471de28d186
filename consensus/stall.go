package consensus

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/starling-im/starling/wire"
)

const (
	// stallAfter is how long a durable write may wait before this node holds
	// back what makes others take it for a leader.
	stallAfter = 2 * time.Second
	// watchDiskEvery is how often that is looked at.
	watchDiskEvery = 250 * time.Millisecond
)

var errStalled = errors.New("consensus: the disk does not answer")

// stall knows the durable writes that are under way.
type stall struct {
	mu   sync.Mutex
	next uint64
	open map[uint64]time.Time
}

// begin notes a write that begins; what it returns notes its end.
func (s *stall) begin() (end func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[uint64]time.Time{}
	}
	s.next++
	n := s.next
	s.open[n] = time.Now()
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, n)
	}
}

// stalled reports whether a write has been waiting for too long.
func (s *stall) stalled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, since := range s.open {
		if time.Since(since) >= stallAfter {
			return true
		}
	}
	return false
}

// watchDisk hands the lead of all groups over when the disk stalls. Raft cannot:
// its main loop waits for the disk.
func (h *Host) watchDisk() {
	tick := time.NewTicker(watchDiskEvery)
	defer tick.Stop()
	was := false
	for {
		select {
		case <-tick.C:
		case <-h.ctx.Done():
			return
		}
		now := h.s.stall.stalled()
		if now && !was {
			h.cfg.Log.Error("the disk does not answer: this node leads no more", "after", stallAfter)
			for _, g := range h.all() {
				g.abdicate()
			}
		} else if was && !now {
			h.cfg.Log.Warn("the disk answers again")
		}
		was = now
	}
}

// abdicate asks the follower with the longest log to stand for election. If it
// does not, the others do when they miss the heartbeats.
func (g *group) abdicate() {
	if g.instance().State() != raft.Leader {
		return
	}
	if heir := g.trans.reached.longest(g.voters(), g.h.cfg.Node); heir != "" {
		m := &wire.RaftMessage{Group: g.cfg.ID, Body: &wire.RaftMessage_TimeoutNow{TimeoutNow: &wire.TimeoutNow{}}}
		_ = g.h.peer(heir).send(m, false) // without an id: no answer
	}
}

// reached is the last entry that each follower is known to have.
type reached struct {
	mu    sync.Mutex
	index map[string]uint64
}

// saw notes a request that a follower has accepted.
func (p *reached) saw(node string, r *raft.AppendEntriesRequest) {
	index := r.PrevLogEntry
	if n := len(r.Entries); n > 0 {
		index = r.Entries[n-1].Index
	}
	if index == 0 {
		return // a heartbeat
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.index == nil {
		p.index = map[string]uint64{}
	}
	p.index[node] = index
}

// longest returns the node of a list that has come farthest, "" if none is known.
func (p *reached) longest(nodes []string, except string) (best string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, node := range slices.Sorted(slices.Values(nodes)) {
		if node != except && p.index[node] > p.index[best] {
			best = node
		}
	}
	return best
}
