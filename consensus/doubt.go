package consensus

import (
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/starling-im/starling/wire"
)

// doubt says whether a replica may have forgotten what it has acknowledged. A
// replica in doubt is no candidate, and until the doubt is over:
type doubt byte

// The numbers are on disk.
const (
	// sure: nothing speaks against it.
	sure doubt = iota
	// unsure: the last write was under way when the node ended, so most likely
	// nobody was told of it. It votes as if it held what that write added.
	unsure
	// behind: the store has lost what was durable. It gives no vote and takes
	// committed entries only, until its log reaches the tip again.
	behind
	// fresh: the replica begins without state, as every first one does, and
	// as one does whose disk was lost. As behind, until the other voters are
	// found to have no state either, or a leader has told a tip.
	fresh
	// unknown: the disk is an old copy, or was lost. As behind, until a leader
	// has told a tip.
	unknown
)

func (d doubt) String() string {
	return [...]string{"", "last write uncertain", "lost its newest records", "begins without state", "disk is old or was empty"}[d]
}

// lost says that the replica has forgotten something, or may have.
func (d doubt) lost() bool { return d >= behind }

const (
	// neverStands is the election timeout of a replica in doubt.
	neverStands = 10_000 * time.Hour
	// settleEvery is how often a replica in doubt looks whether it is over.
	settleEvery = 100 * time.Millisecond
	// unsureFor is how long an unsure replica waits for voters that do not
	// answer: a quorum lost its power in the middle of a write, and one of
	// them did not come back.
	unsureFor = 10 * time.Second
	// committedPause is how long a leader waits with a replica that may have
	// committed entries only, while there are none.
	committedPause = 50 * time.Millisecond
)

var (
	errDoubtful = errors.New("consensus: replica takes committed entries only")
	errSilent   = errors.New("consensus: replica does not stand for election")
)

// examine finds out whether the store holds all of the group.
func (g *group) examine() error {
	last, err := g.logs.LastIndex()
	if err != nil {
		return err
	}
	id, err := g.lastID(last)
	if err != nil {
		return err
	}
	d, err := g.h.s.examine(g.cfg.ID, last == 0 && g.snaps.meta.ID == "", id)
	if err != nil || d == sure {
		return err
	}
	if d.lost() && d != fresh {
		g.h.cfg.Log.Error("replica must catch up before it votes", "group", g.cfg.ID, "reason", d.String(), "last", id.index, "tip", g.target().index)
	}
	g.since(time.Now())
	return nil
}

// since notes when a doubt began.
func (g *group) since(t time.Time) { g.opened.Store(t.UnixNano()) }

func (g *group) doubtFor() time.Duration { return time.Since(time.Unix(0, g.opened.Load())) }

// lastID returns the newest entry, where last is the last one of the log.
func (g *group) lastID(last uint64) (logID, error) {
	g.snaps.mu.Lock()
	id := logID{g.snaps.meta.Term, g.snaps.meta.Index}
	g.snaps.mu.Unlock()
	if last <= id.index {
		return id, nil
	}
	var e raft.Log
	err := g.logs.GetLog(last, &e)
	return logID{e.Term, last}, err
}

// spendVotes keeps a replica that may have forgotten a vote from giving it again.
func (g *group) spendVotes() error {
	if d := g.doubt(); d != unsure && d != behind {
		return nil
	}
	gd := g.h.s.guard
	t := gd.tip(g.cfg.ID)
	gd.mu.Lock()
	term := t.term
	gd.mu.Unlock()
	return g.stable.spend(term)
}

// doubt returns whether the replica may have forgotten something.
func (g *group) doubt() doubt {
	gd := g.h.s.guard
	if gd == nil {
		return sure
	}
	t := gd.tip(g.cfg.ID)
	gd.mu.Lock()
	defer gd.mu.Unlock()
	return t.doubt
}

// target returns the entry that a log in doubt must reach, as far as known.
func (g *group) target() logID {
	gd := g.h.s.guard
	if gd == nil {
		return logID{}
	}
	t := gd.tip(g.cfg.ID)
	gd.mu.Lock()
	defer gd.mu.Unlock()
	return t.entry
}

// doubtful is what Status says.
func (g *group) doubtful() (d doubt, tip uint64) {
	if d = g.doubt(); d == behind || d == unsure {
		tip = g.target().index
	}
	return d, tip
}

// setDoubt changes the doubt durably, unless it is no longer the one that was.
func (g *group) setDoubt(was, is doubt, target logID) bool {
	gd := g.h.s.guard
	t := gd.tip(g.cfg.ID)
	done := false
	gd.change(func() {
		if t.doubt != was {
			return
		}
		done = true
		t.doubt, t.entry = is, target
	})
	return done && g.h.s.err() == nil
}

// trust ends the doubt: the replica votes and may stand for election again.
func (g *group) trust(was doubt, why string) bool {
	id, err := g.lastID(g.instance().LastIndex())
	if err != nil || !g.setDoubt(was, sure, id) {
		return false
	}
	if was != fresh {
		g.h.cfg.Log.Info("replica takes part again", "group", g.cfg.ID, "reason", why, "last", id.index)
	}
	if was != behind {
		// A new Raft waits for its timeout, as all others do, where a shorter
		// timeout makes a Raft stand for election at once.
		return g.restartWith("", func() error { return nil })
	}
	g.stand(true)
	return true
}

// screen answers for Raft what a replica in doubt must not do, and takes from
// a leader's request what it must not have; cut says that it did.
func (g *group) screen(d doubt, c any) (response any, cut bool, err error) {
	if g.outlived() {
		return nil, false, errOutlived
	}
	if d == sure && !g.removed() && g.inquired.Load() {
		return g.screenSure(c), false, nil
	}
	switch r := c.(type) {
	case *raft.RequestVoteRequest:
		if !g.mayVote(d, logID{r.LastLogTerm, r.LastLogIndex}) {
			return &raft.RequestVoteResponse{RPCHeader: header(g.h.cfg.Node), Term: g.instance().CurrentTerm()}, false, nil
		}
	case *raft.RequestPreVoteRequest:
		if !g.mayVote(d, logID{r.LastLogTerm, r.LastLogIndex}) {
			return &raft.RequestPreVoteResponse{RPCHeader: header(g.h.cfg.Node), Term: g.instance().CurrentTerm()}, false, nil
		}
	case *raft.TimeoutNowRequest:
		return nil, false, errSilent
	case *raft.AppendEntriesRequest:
		return nil, d.lost() && committedOnly(r), nil
	}
	return nil, false, nil
}

func (g *group) mayVote(d doubt, candidate logID) bool {
	return !g.removed() && g.inquired.Load() && (d == sure || d == unsure && !candidate.less(g.target()))
}

// committedOnly drops the entries of a request that are not known to be
// committed, and reports whether there were any.
func committedOnly(r *raft.AppendEntriesRequest) bool {
	n := len(r.Entries)
	for n > 0 && r.Entries[n-1].Index > r.LeaderCommitIndex {
		n--
	}
	cut := n < len(r.Entries)
	r.Entries = r.Entries[:n]
	return cut
}

func uncommitted(r *raft.AppendEntriesRequest) bool {
	n := len(r.Entries)
	return n > 0 && r.Entries[n-1].Index > r.LeaderCommitIndex
}

// spare takes from a request what its receiver must not have, and reports
// whether that leaves nothing.
func (t *transport) spare(node string, r *raft.AppendEntriesRequest) bool {
	cut := t.doubts.has(node) && committedOnly(r)
	cut = withhold(node, r) || cut
	return cut && len(r.Entries) == 0
}

// rest waits a moment after a request that had nothing left: Raft asks again at
// once, for as long as there is something to send. Not before it: what was
// committed meanwhile the request does not say, and its receiver takes it as new.
func (t *transport) rest() {
	pause := time.NewTimer(committedPause)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-t.h.ctx.Done():
	}
}

// peerDoubts are the replicas that say of themselves that they are in doubt.
type peerDoubts struct {
	mu    sync.Mutex
	nodes map[string]bool
}

func (p *peerDoubts) has(node string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.nodes[node]
}

// saw notes an answer to AppendEntries.
func (p *peerDoubts) saw(node string, r *wire.AppendEntriesReply) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case r.GetDoubtful() && p.nodes == nil:
		p.nodes = map[string]bool{node: true}
	case r.GetDoubtful():
		p.nodes[node] = true
	case r != nil:
		delete(p.nodes, node)
	}
}
