package consensus

import (
	"sync"
	"time"
)

const (
	// joinsMost bounds the groups that a node is joining at once.
	joinsMost = 4
	// joinPause is how long a group is not asked about again.
	joinPause = time.Second
	// joinsKnown bounds the groups of which that is remembered.
	joinsKnown = 4096
)

// joins are the groups of which leaders have told this node that it has a
// replica, though it has none.
type joins struct {
	mu   sync.Mutex
	busy int
	last map[uint32]time.Time
}

// join starts a replica if the node wants one. The message itself is refused:
// its sender comes again.
func (h *Host) join(group uint32) {
	if h.cfg.Join == nil || !h.joins.begin(group) {
		return
	}
	started := h.start(func() {
		defer h.joins.end()
		g, ok := h.cfg.Join(group)
		if !ok {
			return
		}
		// The first configuration is in the leader's log.
		g.ID, g.Voters = group, nil
		if err := h.startGroup(g, true); err != nil && h.down() == nil {
			h.cfg.Log.Warn("cannot join a group", "group", group, "error", err)
		}
	})
	if !started {
		h.joins.end()
	}
}

func (j *joins) begin(group uint32) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := time.Now()
	if j.busy >= joinsMost || now.Sub(j.last[group]) < joinPause {
		return false
	}
	if j.last == nil {
		j.last = map[uint32]time.Time{}
	}
	if len(j.last) >= joinsKnown {
		for g, at := range j.last {
			if now.Sub(at) >= joinPause {
				delete(j.last, g)
			}
		}
		if len(j.last) >= joinsKnown {
			return false
		}
	}
	j.last[group] = now
	j.busy++
	return true
}

func (j *joins) end() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.busy--
}
