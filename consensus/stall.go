package consensus

import (
	"errors"
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
	r := g.instance()
	if r.State() != raft.Leader {
		return
	}
	heir := Replica{}
	for _, n := range g.replicas(r) {
		if n.Voter && n.Node != g.h.cfg.Node && n.Match > heir.Match {
			heir = n
		}
	}
	if heir.Node != "" {
		m := &wire.RaftMessage{Group: g.cfg.ID, Epoch: g.epoch, Body: &wire.RaftMessage_TimeoutNow{TimeoutNow: &wire.TimeoutNow{}}}
		_ = g.h.peer(heir.Node).send(m, false) // without an id: no answer
	}
}
