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
	// findersMost bounds the questions of peers in doubt that a group answers at once.
	findersMost = 16
	// askFirst is how long the first answers are waited for before all are asked
	// again, twice as long each time up to requestTimeout: an answer may be lost,
	// and the one that ends the doubt may be a moment away.
	askFirst = 250 * time.Millisecond
)

// settle ends the doubt of a replica.
func (g *group) settle() {
	for g.doubt() != sure && g.h.down() == nil && g.ctx.Err() == nil && g.settles.TryLock() {
		g.settleNow()
		g.settles.Unlock() // a doubt that began meanwhile is seen now
	}
}

func (g *group) settleNow() {
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	patience := askFirst
	for {
		d := g.doubt()
		switch {
		case d == sure:
			return
		case d == behind || d == unsure:
			if g.caughtUp() {
				g.trust(d, "its log has reached the tip")
			} else if d == unsure {
				patience = g.ask(d, patience)
			}
		case d == fresh || g.doubtFor() >= 2*raftShare*g.cfg.Heartbeat+requestTimeout:
			// Where there was a former life, an election that it voted in may
			// still be going on at first.
			patience = g.ask(d, patience)
		}
		select {
		case <-tick.C:
		case <-g.ctx.Done():
			return
		}
	}
}

func (g *group) caughtUp() bool {
	id, err := g.lastID(g.instance().LastIndex())
	return err == nil && !id.less(g.target())
}

// told is what one replica answered.
type told struct {
	node string
	*wire.FindTipReply
}

// ask asks the other voters, and the leader, how far the group has come, and returns
// how long to wait for answers the next time.
func (g *group) ask(d doubt, patience time.Duration) (next time.Duration) {
	voters := g.voters()
	ask := slices.DeleteFunc(slices.Clone(voters), func(node string) bool { return node == g.h.cfg.Node })
	if l := g.leader(); l != "" && l != g.h.cfg.Node && !slices.Contains(ask, l) {
		ask = append(ask, l)
	}
	answers := make(chan told, len(ask))
	r := g.instance()
	for _, node := range ask {
		m := &wire.RaftMessage{Group: g.cfg.ID, Epoch: g.epoch, Body: &wire.RaftMessage_FindTip{FindTip: &wire.FindTip{Term: r.CurrentTerm(), Index: r.LastIndex()}}}
		g.h.peer(node).ask(m, false, func(m *wire.RaftMessage, err error) {
			answers <- told{node, m.GetFindTipReply()}
		})
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	var all []told
	for missing := len(ask); missing > 0; missing-- {
		var a told
		select {
		case a = <-answers:
		case <-late.C:
			patience, missing = min(2*patience, requestTimeout), 0
		case <-g.ctx.Done():
			return patience
		}
		switch {
		case a.FindTipReply == nil:
		case a.Confirmed && d != unsure:
			g.adopt(d, a)
			return patience
		case slices.Contains(voters, a.node):
			all = append(all, a)
		}
	}
	if d == unsure {
		g.settleUnsure(all, len(voters))
		return patience
	}
	for _, a := range all {
		g.blank.saw(a.node, a.Term, a.Index)
	}
	g.settleFresh()
	return patience
}

// blank are the replicas that were found without state in this life, and the
// term each was in.
type blank struct {
	mu    sync.Mutex
	terms map[string]uint64
}

func (b *blank) saw(node string, term, index uint64) {
	if index > 1 { // the first is everybody's first configuration
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.terms == nil {
		b.terms = map[string]uint64{}
	}
	b.terms[node] = max(b.terms[node], term)
}

// among counts those of a list, and tells their highest term.
func (b *blank) among(nodes []string) (n int, term uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, node := range nodes {
		if t, ok := b.terms[node]; ok {
			n, term = n+1, max(term, t)
		}
	}
	return n, term
}

// settleUnsure ends the doubt about a last write, if no other voter has what
// it added: then it was told to nobody. An answer that does not come is waited
// for, but not for ever.
func (g *group) settleUnsure(answers []told, voters int) {
	target := g.target()
	for _, a := range answers {
		if !(logID{a.IndexTerm, a.Index}).less(target) {
			return // it may lead, with this replica's vote
		}
	}
	if len(answers) >= voters-1 {
		g.trust(unsure, "no voter has what was being written")
	} else if g.doubtFor() > unsureFor && g.leader() == "" {
		g.trust(unsure, "the voters that answer do not have what was being written")
	}
}

// settleFresh lets a group without state begin. Whatever a quorum with this
// node committed in a former life, one of so many others would have.
func (g *group) settleFresh() {
	if g.doubt() != fresh || g.instance().LastIndex() > 1 {
		return
	}
	voters := g.voters()
	if !slices.Contains(voters, g.h.cfg.Node) {
		return
	}
	quorum := len(voters)/2 + 1
	n, term := g.blank.among(voters)
	if n < min(len(voters)-quorum+1, len(voters)-1) {
		return
	}
	if term > 1 && !g.restartSpent(term) {
		return
	}
	g.trust(fresh, "")
}

// adopt takes a leader's word for the tip. The quorum that has confirmed the
// leader is in its term, so no earlier vote counts any more.
func (g *group) adopt(d doubt, a told) {
	if !g.restartSpent(a.Term) {
		return
	}
	if g.setDoubt(d, behind, logID{a.IndexTerm, a.Index}) && d == unknown {
		g.h.cfg.Log.Info("replica knows how far it must catch up", "group", g.cfg.ID, "tip", a.Index, "leader", a.node)
	}
}

// restartSpent starts Raft again such that it gives no vote up to term.
func (g *group) restartSpent(term uint64) bool {
	if g.instance().CurrentTerm() > term {
		return true
	}
	return g.restartWith("votes of a former life are spent", func() error { return g.stable.spend(term) })
}

// findTip answers a peer in doubt.
func (g *group) findTip(p *peer, m *wire.RaftMessage) {
	g.answering(p, m, func() (*wire.RaftMessage, error) {
		reply, err := g.tipFor()
		// Who asks tells, so that all come to know of each other at once.
		g.blank.saw(p.node, m.GetFindTip().Term, m.GetFindTip().Index)
		g.settleFresh()
		return &wire.RaftMessage{Body: &wire.RaftMessage_FindTipReply{FindTipReply: reply}}, err
	})
}

// answering answers a question that may need others to be asked first.
func (g *group) answering(p *peer, m *wire.RaftMessage, fn func() (*wire.RaftMessage, error)) {
	if g.finders.Add(1) > findersMost {
		g.finders.Add(-1)
		g.h.refuse(p, m, tooMany)
		return
	}
	g.start(func() {
		defer g.finders.Add(-1)
		a, err := fn()
		if err != nil {
			a = answer(m.Group, m.Id, nil, err)
		}
		a.Group, a.Id, a.Epoch = m.Group, m.Id, g.epoch
		_ = p.send(a, false)
	})
}

func (g *group) tipFor() (*wire.FindTipReply, error) {
	r := g.instance()
	index, confirmed := r.LastIndex(), false
	term := r.CurrentTerm()
	if r.State() == raft.Leader {
		if err := g.barrier(); err != nil {
			return nil, err
		}
		index, confirmed = r.CommitIndex(), true
	}
	id := logID{index: index}
	if index > 0 {
		var ok bool
		if id.term, ok = g.termOf(index); !ok {
			return nil, errors.New("log was cut meanwhile")
		}
	}
	if r.CurrentTerm() != term {
		return nil, errors.New("term changed meanwhile")
	}
	return &wire.FindTipReply{Term: term, Index: id.index, IndexTerm: id.term, Confirmed: confirmed}, nil
}
