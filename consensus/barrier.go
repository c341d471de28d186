package consensus

import (
	"context"
	"errors"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/starling-im/starling/wire"
)

// reads gives readers points at which a local read is linearizable. One round
// of questions to the voters serves all who asked before it began.
type reads struct {
	g *group

	mu      sync.Mutex
	next    *round
	running bool
}

type round struct {
	done chan struct{}
	err  error
}

// Barrier returns when a Read on this node will see all that was acknowledged
// before the call. Only the leader can: otherwise the error is not_leader, with
// the leader if known, or unavailable when no quorum answers.
func (h *Host) Barrier(ctx context.Context, id uint32) error {
	g := h.group(id)
	if g == nil {
		return noGroup(id)
	}
	r := g.reads.join()
	if r == nil {
		return shuttingDown()
	}
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return wire.Errorf(wire.CodeUnavailable, "barrier: %v", ctx.Err())
	}
}

// join returns the round that begins next; it costs a goroutine while rounds run.
func (r *reads) join() *round {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.running {
		r.running = r.g.h.start(r.run)
		if !r.running {
			return nil
		}
	}
	if r.next == nil {
		r.next = &round{done: make(chan struct{})}
	}
	return r.next
}

func (r *reads) run() {
	for {
		r.mu.Lock()
		now := r.next
		r.next = nil
		if now == nil {
			r.running = false
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		now.err = r.g.barrier()
		close(now.done)
	}
}

// barrier is the read-index protocol. Raft's VerifyLeader is not used: it also
// counts answers to requests that were sent before it was called, so a leader
// that was stopped for a while and resumed could read from the past.
func (g *group) barrier() error {
	ctx, cancel := context.WithTimeout(g.h.ctx, requestTimeout)
	defer cancel()
	r := g.instance()
	if r.State() != raft.Leader {
		return g.notLeader()
	}
	term, commit := r.CurrentTerm(), r.CommitIndex()
	var e raft.Log
	if err := g.logs.GetLog(commit, &e); err != nil || e.Term != term {
		// A new leader does not know yet what is committed: an entry tells.
		return g.barrierEntry(ctx, r)
	}
	if err := g.confirm(ctx, term); err != nil {
		return err
	}
	// Raft's own entries never reach the data: wait for the last one that does.
	for e.Type != raft.LogCommand && e.Type != raft.LogConfiguration {
		if err := g.logs.GetLog(e.Index-1, &e); err != nil {
			return nil // cut off, so it was applied
		}
	}
	if err := g.fsm.wait(ctx, e.Index); err != nil {
		return wire.Errorf(wire.CodeUnavailable, "barrier: applying takes too long")
	}
	return nil
}

// barrierEntry commits an entry of its own and waits until it is applied.
func (g *group) barrierEntry(ctx context.Context, r *instance) error {
	f := r.Barrier(requestTimeout)
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		if errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipTransferInProgress) {
			return g.notLeader()
		}
		if err != nil {
			return wire.Errorf(wire.CodeUnavailable, "barrier: %v", err)
		}
		return nil
	case <-ctx.Done():
		return wire.Errorf(wire.CodeUnavailable, "barrier: no quorum")
	}
}

// confirm asks the voters whether this node leads in term, and returns when a
// quorum has said so in answer to this question.
func (g *group) confirm(ctx context.Context, term uint64) error {
	voters := g.voters()
	need := len(voters)/2 + 1
	answers := make(chan bool, len(voters))
	for _, node := range voters {
		if node == g.h.cfg.Node {
			need--
			continue
		}
		g.h.peer(node).ask(appendMessage(g.cfg.ID, g.epoch, &raft.AppendEntriesRequest{Term: term}), false, func(m *wire.RaftMessage, err error) {
			reply := m.GetAppendReply()
			answers <- err == nil && reply.GetSuccess() && reply.GetTerm() == term && !reply.GetDoubtful()
		})
	}
	for left := cap(answers); need > 0 && left > 0; left-- {
		select {
		case yes := <-answers:
			if yes {
				need--
			}
		case <-ctx.Done():
			left = 0
		}
	}
	if need > 0 {
		return wire.Errorf(wire.CodeUnavailable, "barrier: no quorum confirms the leader of group %d", g.cfg.ID)
	}
	return nil
}
