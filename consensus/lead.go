package consensus

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/starling-im/starling/wire"
)

const (
	// campaignEvery is how often a preferred node asks for the lead of a group
	// that has no leader.
	campaignEvery = 100 * time.Millisecond
	// tendEvery is how often groups are looked at that should be led elsewhere.
	tendEvery = time.Second
	// homeSteady is how long the home must have been in touch.
	homeSteady = 3 * time.Second
	// homeBehind is how many entries it may lack; the transfer sends them.
	homeBehind = 64
	// homeAgain is the pause after a transfer, successful or not.
	homeAgain = 30 * time.Second
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
		if g.doubt() == sure && g.electable() && g.leader() == "" {
			ch := make(chan raft.RPCResponse, 1)
			if _, err := g.deliver(raft.RPC{Command: &raft.TimeoutNowRequest{RPCHeader: header(g.h.cfg.Node)}, RespChan: ch}, ch); err != nil {
				return
			}
			// Let the election finish before asking for another.
			for range 5 {
				select {
				case <-tick.C:
				case <-g.h.ctx.Done():
					return
				}
			}
		}
		select {
		case <-tick.C:
		case <-g.h.ctx.Done():
			return
		}
	}
}

// electable asks all voters and reports whether a quorum would vote for this node.
func (g *group) electable() bool {
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
		asked++
		g.h.peer(node).ask(preVote(g.cfg.ID, r.CurrentTerm()+1, last, term), false, func(m *wire.RaftMessage, err error) {
			votes <- err == nil && m.GetPreVoteReply().GetGranted()
		})
	}
	for ; asked > 0 && need > 0; asked-- {
		if <-votes {
			need--
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

// homeWatch follows how the home of a group that this node leads is doing.
type homeWatch struct {
	node string

	mu    sync.Mutex
	since time.Time // of the first answer after the last failure
	match uint64    // the last entry it is known to have
	next  time.Time // no transfer before
}

// saw notes the answer of a peer to AppendEntries.
func (w *homeWatch) saw(node string, r *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse, err error) {
	if node != w.node {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil || !resp.Success {
		w.since = time.Time{}
		return
	}
	if w.since.IsZero() {
		w.since = time.Now()
	}
	if n := len(r.Entries); n > 0 {
		w.match = r.Entries[n-1].Index
	} else if r.PrevLogEntry > 0 {
		w.match = r.PrevLogEntry
	}
}

// ready reports whether the home can take over, once in homeAgain.
func (w *homeWatch) ready(last uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if w.since.IsZero() || now.Sub(w.since) < homeSteady || w.match+homeBehind < last || now.Before(w.next) {
		return false
	}
	w.next = now.Add(homeAgain)
	return true
}

// tend gives the lead of groups back to their homes, and cuts logs.
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
			home, r := g.cfg.Home, g.instance()
			if home == "" || home == h.cfg.Node || r.State() != raft.Leader || !g.trans.home.ready(r.LastIndex()) {
				continue
			}
			// The future is not waited for: a transfer that fails is tried
			// again, and one that hangs shows in refused commands.
			r.LeadershipTransferToServer(raft.ServerID(home), raft.ServerAddress(home))
			h.cfg.Log.Info("leadership goes home", "group", g.cfg.ID, "node", home)
		}
	}
}
