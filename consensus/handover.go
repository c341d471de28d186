package consensus

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"github.com/starling-im/starling/wire"
)

const (
	// newLeaderEvery is how often a node that gave up leadership looks who has it.
	newLeaderEvery = 2 * time.Millisecond
	// handsOverAfter is when Raft has begun with a transfer: one that it was asked for
	// just before it is stopped it would never answer.
	handsOverAfter = 100 * time.Millisecond
	// unblockTimeout is how long Raft may refuse commands after a transfer that
	// failed; it is longer than any request to another node takes.
	unblockTimeout = requestTimeout + time.Second
	// unblockEvery is how often that is looked at.
	unblockEvery = 20 * time.Millisecond
)

// Transfer hands the leadership of a group to a voter that has nearly all
// entries, to the best one if node is "". It returns the node that leads then,
// "" if that is not known yet. Commands wait meanwhile, and are then refused
// with not_leader and that node, so that none is lost.
//
// The errors are *wire.Error: not_leader, bad_request if node is no voter,
// conflict if it cannot take over now or another change is under way, and
// unavailable if nothing came of it or ctx ended first.
func (h *Host) Transfer(ctx context.Context, id uint32, node string) (leader string, err error) {
	g := h.group(id)
	if g == nil {
		return "", noGroup(id)
	}
	err = g.alone(ctx, func() error {
		var err error
		leader, err = g.handOver(node)
		return err
	})
	if err != nil {
		return "", err
	}
	return leader, nil
}

// handOver is Transfer for those who hold the group's turn.
func (g *group) handOver(node string) (string, error) {
	r := g.instance()
	if r.State() != raft.Leader {
		return "", g.notLeader()
	}
	if node == g.h.cfg.Node {
		return node, nil
	}
	// What is under way would end as unknown if it was not waited for.
	if err := g.lanes.hold(g.ctx, g.cfg.Heartbeat); err != nil {
		return "", wire.Errorf(wire.CodeUnavailable, "group %d: commands under way do not end", g.cfg.ID)
	}
	defer g.lanes.release()
	g.trans.handing.Store(true)
	defer g.trans.handing.Store(false)
	to, err := g.successor(r, node)
	if err != nil {
		return "", err
	}
	if err := g.end(r.handOver(to)); err != nil {
		g.unblock(r)
		return "", wire.Errorf(wire.CodeUnavailable, "group %d was not handed to %s: %v", g.cfg.ID, to, err)
	}
	return g.newLeader(), nil
}

// handOver has Raft hand over to a voter.
func (i *instance) handOver(to string) raft.Future {
	select {
	case i.handing <- struct{}{}:
		return handing{i.LeadershipTransferToServer(raft.ServerID(to), raft.ServerAddress(to)), i}
	case <-i.stopped:
		return refusedFuture{raft.ErrRaftShutdown}
	}
}

// handing is a transfer that Raft may not have begun yet.
type handing struct {
	raft.Future
	of *instance
}

func (h handing) Error() error {
	defer func() { <-h.of.handing }()
	return h.Future.Error()
}

// successor picks who leads next.
func (g *group) successor(r *instance, node string) (string, error) {
	all, last := g.replicas(r), r.LastIndex()
	if node != "" {
		n, ok := find(all, node)
		switch {
		case !ok || !n.Voter:
			return "", wire.Errorf(wire.CodeBadRequest, "%s is no voter of group %d", node, g.cfg.ID)
		case !n.caughtUp(last, nextBehind):
			return "", later("%v cannot lead group %d yet, whose last entry is %d", n, g.cfg.ID, last)
		}
		return node, nil
	}
	best := Replica{}
	for _, n := range all {
		if n.Voter && n.Node != g.h.cfg.Node && n.caughtUp(last, nextBehind) && n.Match > best.Match {
			best = n
		}
	}
	if best.Node == "" {
		return "", later("no voter of group %d can take over now", g.cfg.ID)
	}
	return best.Node, nil
}

// newLeader waits until a leader is known, but not for long.
func (g *group) newLeader() string {
	ctx, cancel := context.WithTimeout(g.ctx, g.cfg.Heartbeat)
	defer cancel()
	tick := time.NewTicker(newLeaderEvery)
	defer tick.Stop()
	for {
		if l := g.leader(); l != "" {
			return l
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ""
		}
	}
}

// unblock waits until Raft takes commands again after a transfer that failed,
// and starts it again where the transfer hangs in it.
func (g *group) unblock(r *instance) {
	tick := time.NewTicker(unblockEvery)
	defer tick.Stop()
	for start := time.Now(); time.Since(start) < unblockTimeout; {
		if err := g.end(r.Barrier(requestTimeout)); !errors.Is(err, raft.ErrLeadershipTransferInProgress) {
			return
		}
		select {
		case <-tick.C:
		case <-g.ctx.Done():
			return
		}
	}
	g.restart("a transfer of leadership hangs")
}

// end waits for a future of Raft, but not longer than for the group.
func (g *group) end(f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		return err
	case <-g.ctx.Done():
		return errClosed
	}
}

// hold lets commands wait, and returns when none is under way. Unless it fails,
// release must follow.
func (l *lanes) hold(ctx context.Context, most time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	idle := make(chan struct{})
	l.mu.Lock()
	l.held = true
	if l.running > 0 {
		l.idle = idle
	} else {
		close(idle)
	}
	l.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		l.release()
		return ctx.Err()
	}
}

// release lets commands go on.
func (l *lanes) release() {
	l.mu.Lock()
	l.held, l.idle = false, nil
	var ended []proposal
	if len(l.waiting) > 0 && l.running == 0 {
		if l.g.h.startLane(l.run) {
			l.running++
		} else {
			ended, l.waiting, l.bytes = l.waiting, nil, 0
		}
	}
	l.mu.Unlock()
	for _, p := range ended {
		p.done(nil, shuttingDown())
	}
}

// ended notes the end of a lane; it is called with mu held.
func (l *lanes) ended() {
	l.running--
	if l.running == 0 && l.idle != nil {
		close(l.idle)
		l.idle = nil
	}
}
