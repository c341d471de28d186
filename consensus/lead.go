package consensus

import (
	"time"

	"github.com/hashicorp/raft"

	"github.com/starling-im/starling/wire"
)

const (
	// campaignEvery is how often a preferred node asks for the lead of a group
	// that has no leader.
	campaignEvery = 100 * time.Millisecond
	// tendEvery is how often groups are looked after.
	tendEvery = time.Second
	// nextBehind is how many entries the next leader may lack; the transfer sends
	// them.
	nextBehind = 64
	// transferTimeout is how long a transfer may make Raft refuse commands.
	transferTimeout = 10 * time.Second
)

// campaign makes this node lead a group that starts without a leader, sooner
// than Raft's timeouts would. It asks the voters whether they would vote,
// which changes nothing at them, and they would not if they knew a leader;
// only when a quorum would, Raft stands for election. Shorter timeouts for
// Raft would not do: its leader's lease must be shorter still, for as long as
// it runs.
func (g *group) campaign() {
	tick := time.NewTicker(campaignEvery)
	defer tick.Stop()
	for g.leader() == "" {
		if g.doubt() == sure && g.electable("") && g.leader() == "" {
			ch := make(chan raft.RPCResponse, 1)
			if _, err := g.deliver(raft.RPC{Command: &raft.TimeoutNowRequest{RPCHeader: header(g.h.cfg.Node)}, RespChan: ch}, ch); err != nil {
				return
			}
			// Let the election finish before asking for another.
			for range 5 {
				select {
				case <-tick.C:
				case <-g.ctx.Done():
					return
				}
			}
		}
		select {
		case <-tick.C:
		case <-g.ctx.Done():
			return
		}
	}
}

// electable asks all voters but one, and reports whether a quorum would vote for
// this node. It waits half a timeout at most for those who do not answer.
func (g *group) electable(but string) bool {
	r := g.instance()
	last := r.LastIndex()
	term, ok := g.termOf(last)
	voters := g.voters()
	need := len(voters)/2 + 1
	votes := make(chan bool, len(voters))
	asked, in := 0, false
	for _, node := range voters {
		if node == g.h.cfg.Node {
			in = true
			need--
			continue
		}
		if node == but {
			continue
		}
		asked++
		g.h.peer(node).ask(preVote(g.cfg.ID, g.epoch, r.CurrentTerm()+1, last, term), false, func(m *wire.RaftMessage, err error) {
			votes <- err == nil && m.GetPreVoteReply().GetGranted()
		})
	}
	limit := time.NewTimer(g.cfg.Heartbeat / 2)
	defer limit.Stop()
	for ; asked > 0 && need > 0; asked-- {
		select {
		case yes := <-votes:
			if yes {
				need--
			}
		case <-limit.C:
			return false
		}
	}
	return ok && in && need <= 0
}

// termOf returns the term of the last entry.
func (g *group) termOf(index uint64) (uint64, bool) {
	var e raft.Log
	if g.logs.GetLog(index, &e) == nil {
		return e.Term, true
	}
	g.snaps.mu.Lock()
	defer g.snaps.mu.Unlock()
	return g.snaps.meta.Term, g.snaps.meta.Index == index
}

// tend looks after all groups until the Host closes.
func (h *Host) tend() {
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-h.ctx.Done():
			return
		}
		for _, g := range h.all() {
			g.cutLog()
			g.tendPlace()
		}
		for _, p := range h.known() {
			p.probe()
		}
	}
}
