package consensus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/starling-im/starling/wire"
)

const (
	// ReplicasMost bounds the replicas of a group.
	ReplicasMost = 32
	// nodeBytes bounds the name of a node, in bytes.
	nodeBytes = 255
	// promoteBehind is how many entries a learner may lack that becomes a voter:
	// a quorum with it waits for them.
	promoteBehind = 64
	// heardWithin is how recently a replica must have answered to be counted on.
	heardWithin = 2 * time.Second
	// changeTimeout is how long a change may wait for its turn in Raft.
	changeTimeout = 2 * time.Second
	// changePause is the retry_after of a change that cannot be made yet.
	changePause = 500 * time.Millisecond
)

// AddLearner gives a group a replica without a vote on node, which fetches all
// there is; a node that is a learner already is no error.
//
// AddLearner, Promote, Demote and Remove change a group on the node that leads
// it, one change at a time, and return when the change is committed. seen is the
// Status.ConfigIndex from which the caller concluded that the change is right;
// 0 = whatever it is now. The errors are *wire.Error: not_leader (with the
// leader, if known); bad_request; conflict if the configuration is not that of
// seen any more, or, with retry_after, if another change is under way or the
// group would not be safe after this one now; unavailable if the outcome is
// unknown, which Status tells. A change goes on when ctx ends.
func (h *Host) AddLearner(ctx context.Context, id uint32, node string, seen uint64) error {
	return h.change(ctx, id, node, seen, func(g *group, c members) (changer, error) {
		switch n, ok := find(c.replicas, node); {
		case ok && n.Voter:
			return nil, wire.Errorf(wire.CodeBadRequest, "%s is a voter of group %d", node, id)
		case ok:
			return nil, nil
		case len(c.replicas) >= ReplicasMost:
			return nil, wire.Errorf(wire.CodeTooMany, "group %d has %d replicas already", id, len(c.replicas))
		}
		return func(at uint64) raft.IndexFuture {
			return c.r.AddNonvoter(raft.ServerID(node), raft.ServerAddress(node), at, changeTimeout)
		}, nil
	})
}

// Promote gives a learner a vote, once it has nearly all entries and was heard
// a moment ago: a quorum that needs one far behind would stand still.
func (h *Host) Promote(ctx context.Context, id uint32, node string, seen uint64) error {
	return h.change(ctx, id, node, seen, func(g *group, c members) (changer, error) {
		n, ok := find(c.replicas, node)
		switch last := c.r.LastIndex(); {
		case !ok:
			return nil, wire.Errorf(wire.CodeBadRequest, "%s is no learner of group %d", node, id)
		case n.Voter:
			return nil, nil
		case !n.caughtUp(last, promoteBehind):
			return nil, later("%v gets no vote in group %d yet, whose last entry is %d", n, id, last)
		}
		if err := c.survive(append(c.voters(""), n)); err != nil {
			return nil, err
		}
		return func(at uint64) raft.IndexFuture {
			return c.r.AddVoter(raft.ServerID(node), raft.ServerAddress(node), at, changeTimeout)
		}, nil
	})
}

// Demote takes the vote from a voter, which goes on as a learner. Where it is
// the leader itself, leadership is handed over first, and the error is
// not_leader with the new leader, where the caller may go on.
func (h *Host) Demote(ctx context.Context, id uint32, node string, seen uint64) error {
	return h.change(ctx, id, node, seen, func(g *group, c members) (changer, error) {
		switch n, ok := find(c.replicas, node); {
		case !ok:
			return nil, wire.Errorf(wire.CodeBadRequest, "%s is no voter of group %d", node, id)
		case !n.Voter:
			return nil, nil
		}
		if err := c.without(g, node); err != nil {
			return nil, err
		}
		return func(at uint64) raft.IndexFuture {
			return c.r.DemoteVoter(raft.ServerID(node), at, changeTimeout)
		}, nil
	})
}

// Remove takes a replica out of a group; a node that has none is no error.
// Where it is the leader itself, see Demote. The node keeps its data until its
// own Host is told to Drop it.
func (h *Host) Remove(ctx context.Context, id uint32, node string, seen uint64) error {
	return h.change(ctx, id, node, seen, func(g *group, c members) (changer, error) {
		n, ok := find(c.replicas, node)
		if !ok {
			return nil, nil
		}
		if n.Voter {
			if err := c.without(g, node); err != nil {
				return nil, err
			}
		}
		return func(at uint64) raft.IndexFuture { return c.r.RemoveServer(raft.ServerID(node), at, changeTimeout) }, nil
	})
}

// changer gives a change to Raft, which refuses it unless the configuration is
// that of entry at.
type changer func(at uint64) raft.IndexFuture

// members is a group as it is before a change.
type members struct {
	r        *instance
	replicas []Replica
}

// voters returns the voters but for one node.
func (c members) voters(without string) []Replica {
	return slices.DeleteFunc(slices.Clone(c.replicas), func(r Replica) bool { return !r.Voter || r.Node == without })
}

// survive refuses voters of which too few answer now.
func (c members) survive(voters []Replica) error {
	n := 0
	for _, v := range voters {
		if v.inReach() {
			n++
		}
	}
	if len(voters) == 0 {
		return wire.Errorf(wire.CodeBadRequest, "a group needs a voter")
	}
	if n <= len(voters)/2 {
		return later("of the %d voters that there would be %d answer now, which is no quorum", len(voters), n)
	}
	return nil
}

// without prepares the end of a node's vote.
func (c members) without(g *group, node string) error {
	if err := c.survive(c.voters(node)); err != nil {
		return err
	}
	if node != g.h.cfg.Node {
		return nil
	}
	leader, err := g.handOver("")
	if err != nil {
		return err
	}
	e := wire.Errorf(wire.CodeNotLeader, "%s gave up the lead of group %d, to go on at the new leader", node, g.cfg.ID)
	e.Node = leader
	return e
}

// later is the refusal of what may be possible soon.
func later(format string, args ...any) *wire.Error {
	e := wire.Errorf(wire.CodeConflict, format, args...).After(changePause)
	e.Retryable = true
	return e
}

// change makes one change. plan says how, nil = it is as it should be.
func (h *Host) change(ctx context.Context, id uint32, node string, seen uint64, plan func(*group, members) (changer, error)) error {
	if node == "" || len(node) > nodeBytes {
		return wire.Errorf(wire.CodeBadRequest, "a node has a name of 1 to %d bytes", nodeBytes)
	}
	g := h.group(id)
	if g == nil {
		return noGroup(id)
	}
	return g.alone(ctx, func() error { return g.change(seen, plan) })
}

// alone runs fn while no other change of the group is under way. fn goes on if
// ctx ends.
func (g *group) alone(ctx context.Context, fn func() error) error {
	if !g.turn.TryLock() {
		return later("another change of group %d is under way", g.cfg.ID)
	}
	done := make(chan error, 1)
	if !g.start(func() {
		err := fn()
		g.turn.Unlock() // first: the caller may go on with the next change at once
		done <- err
	}) {
		g.turn.Unlock()
		return shuttingDown()
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return wire.Errorf(wire.CodeUnavailable, "change of group %d: %v", g.cfg.ID, ctx.Err())
	}
}

func (g *group) change(seen uint64, plan func(*group, members) (changer, error)) error {
	ctx, cancel := context.WithTimeout(g.ctx, g.h.cfg.ProposeTimeout)
	defer cancel()
	r := g.instance()
	if r.State() != raft.Leader {
		return g.notLeader()
	}
	// An entry of this term tells whether this node leads, and brings what is
	// applied up to the newest configuration.
	if err := g.barrierEntry(ctx, r); err != nil {
		return err
	}
	at := g.fsm.configured().index
	if seen != 0 && seen != at {
		return wire.Errorf(wire.CodeConflict, "the configuration of group %d changed: it is that of entry %d, not %d", g.cfg.ID, at, seen)
	}
	do, err := plan(g, members{r, g.replicas(r)})
	if do == nil || err != nil {
		return err
	}
	f := do(at)
	if err := g.changed(g.end(f), at); err != nil {
		return err
	}
	if err := g.fsm.wait(ctx, f.Index()); err != nil {
		return wire.Errorf(wire.CodeUnavailable, "group %d: applying takes too long", g.cfg.ID)
	}
	return nil
}

// changed says what became of a change.
func (g *group) changed(err error, at uint64) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return g.notLeader()
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return later("another change of group %d is not committed yet", g.cfg.ID)
	case errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrRaftShutdown), errors.Is(err, errClosed):
		return wire.Errorf(wire.CodeUnavailable, "change of group %d: %v", g.cfg.ID, err)
	}
	return wire.Errorf(wire.CodeConflict, "change of group %d at entry %d: %v", g.cfg.ID, at, err)
}

// configuration is one that is committed, and the entry that it came with.
type configuration struct {
	index   uint64
	servers []raft.Server
}

// has reports whether a node is among the replicas.
func (c configuration) has(node string) bool {
	return slices.ContainsFunc(c.servers, func(s raft.Server) bool { return string(s.ID) == node })
}

func (c configuration) String() string { return fmt.Sprintf("entry %d: %v", c.index, c.servers) }

// withhold keeps from a voter the entry that takes its vote away until it is
// committed. Raft would tell it at once, and it stands for election no more and
// refuses others, who lack the entry: if the leader then dies, those who are
// left may be unable to elect anybody. It reports whether it kept anything.
func withhold(node string, r *raft.AppendEntriesRequest) bool {
	for i, e := range r.Entries {
		if e.Type != raft.LogConfiguration || e.Index <= r.LeaderCommitIndex {
			continue
		}
		votes := slices.ContainsFunc(raft.DecodeConfiguration(e.Data).Servers, func(s raft.Server) bool {
			return string(s.ID) == node && s.Suffrage == raft.Voter
		})
		if !votes {
			r.Entries = r.Entries[:i]
			return true
		}
	}
	return false
}
