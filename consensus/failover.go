package consensus

import (
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/starling-im/starling/wire"
)

const (
	// watchLeadersMost is how long a look at all groups is put off at most: a
	// stream may break in between.
	watchLeadersMost = 100 * time.Millisecond
	// standTries bounds the rounds of questions after one silence; then Raft's
	// own, longer timer takes over.
	standTries = 12
	// raftShare is how much longer than Config.Heartbeat Raft's own timeout is:
	// it is the net below, and must not stand beside those who stand in turn.
	// Its heartbeats, a tenth to a fifth of it apart, become rarer with it.
	raftShare = 2
)

// Raft waits for one to two timeouts before it looks whether its leader was
// heard, and lets a follower that has not looked yet refuse others. So this
// node looks itself: as soon as a leader has been silent for a timeout, or its
// stream broke and no other came, the followers stand one after the other. What
// they ask first is whether a quorum finds the leader gone too, which changes
// nothing at anybody; so a wrong guess costs a message.

// watchLeaders does so for all groups until the Host closes.
func (h *Host) watchLeaders() {
	timer := time.NewTimer(watchLeadersMost)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-h.ctx.Done():
			return
		}
		next := watchLeadersMost
		for _, g := range h.all() {
			if left, follows := g.silence(g.cfg.Heartbeat, 1); !follows {
				continue
			} else if left > 0 {
				next = min(next, left)
			} else {
				g.succeed()
			}
		}
		timer.Reset(max(next, time.Millisecond))
	}
}

// silence returns how long a leader may stay silent before it counts as gone: a
// timeout after it was heard, and share of the pause after its stream broke. It
// says whether this node is a follower that has heard a leader at all.
func (g *group) silence(timeout time.Duration, share float64) (left time.Duration, follows bool) {
	r := g.instance()
	heard := r.LastContact()
	if r.State() != raft.Follower || heard.IsZero() {
		return 0, false
	}
	if came := g.inbox.heardFrom(g.leader()); came.After(heard) {
		heard = came
	}
	now := time.Now()
	left = timeout - now.Sub(heard)
	if broke := g.brokeAt(); broke.After(heard) {
		// The longest time to the next heartbeat is two fifths of a timeout,
		// and another fifth is for a stream that is opened again.
		left = min(left, time.Duration(share*float64(g.cfg.Heartbeat*3/5))-now.Sub(broke))
	}
	return left, true
}

// brokeAt is when the stream from the leader broke, zero if there is one.
func (g *group) brokeAt() time.Time {
	l := g.leader()
	if l == "" || l == g.h.cfg.Node {
		return time.Time{}
	}
	p := g.h.peer(l)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.served > 0 {
		return time.Time{}
	}
	return p.broke
}

// serving notes that a stream from the node begins; what it returns, that it ended.
func (p *peer) serving() (ended func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.served++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.served--
		p.broke = time.Now()
	}
}

// probe sends an empty message where a stream is open, either way. Followers
// have nothing to say to each other until their leader is gone; a stream that
// broke meanwhile would then cost the first answer. A node that could not be told
// of this one's life when that began is told as soon as it can be.
func (p *peer) probe() {
	p.mu.Lock()
	open := p.conn != nil || p.served > 0
	told := p.told
	p.mu.Unlock()
	if open || !told {
		_ = p.send(&wire.RaftMessage{Body: &wire.RaftMessage_BeatReplies{BeatReplies: &wire.BeatReplies{}}}, false)
	}
}

// leaderGone reports whether this follower finds its leader gone when another
// asks: a little earlier than it would stand itself, since both do not hear the
// leader's last message at one moment.
func (g *group) leaderGone() bool {
	left, follows := g.silence(g.cfg.Heartbeat*8/10, 0.8)
	return follows && left <= 0
}

// wouldVote is what Raft answers a pre-vote that knows of no leader. longer says
// that the candidate has what this node has not, and so will not vote for it.
func (g *group) wouldVote(candidate string, r *raft.RequestPreVoteRequest) (yes, longer bool) {
	now, theirs := g.instance(), logID{r.LastLogTerm, r.LastLogIndex}
	if r.Term <= now.CurrentTerm() || !slices.Contains(g.voters(), candidate) {
		return false, false
	}
	ours, err := g.lastID(now.LastIndex())
	return err == nil && !theirs.less(ours), err == nil && ours.less(theirs)
}

// screenSure answers for Raft where its leader is gone and it does not know yet.
func (g *group) screenSure(c any) any {
	r, ok := c.(*raft.RequestPreVoteRequest)
	if !ok || !g.leaderGone() {
		return nil
	}
	if yes, longer := g.wouldVote(string(r.ID), r); !yes || !g.yield(string(r.ID), longer) {
		return nil
	}
	return &raft.RequestPreVoteResponse{RPCHeader: header(g.h.cfg.Node), Term: r.Term, Granted: true}
}

// succeed lets this node stand for the lead of a group whose leader is gone,
// once after each silence.
func (g *group) succeed() {
	r := g.instance()
	if heard := r.LastContact(); heard.Equal(g.stoodAfter) || g.doubt() != sure || g.removed() {
		return
	} else {
		g.stoodAfter = heard
	}
	rank := g.rank(g.h.cfg.Node)
	if rank < 0 {
		return
	}
	term, gone := r.CurrentTerm(), g.leader()
	g.start(func() {
		pause := g.cfg.Heartbeat / 10
		wait := time.NewTimer(time.Duration(rank) * pause)
		defer wait.Stop()
		for range standTries {
			select {
			case <-wait.C:
			case <-g.ctx.Done():
				return
			}
			if r.CurrentTerm() != term || r.State() != raft.Follower || !g.leaderGone() {
				return
			}
			if g.turnToStand() && g.electable(gone) && !g.yielded() && r.CurrentTerm() == term && r.State() == raft.Follower {
				ch := make(chan raft.RPCResponse, 1)
				_, _ = g.deliver(raft.RPC{Command: &raft.TimeoutNowRequest{RPCHeader: header(g.h.cfg.Node)}, RespChan: ch}, ch)
				return
			}
			wait.Reset(pause / 2)
		}
	})
}

// rank is a node's place among those who may follow the leader; -1 if it has no
// vote.
func (g *group) rank(node string) int {
	leader := g.leader()
	n := 0
	for _, v := range g.voters() {
		switch v {
		case node:
			return n
		case leader:
		default:
			n++
		}
	}
	return -1
}

// standing keeps two followers from standing in one term, where neither would
// get a quorum: of two who ask at once the one with the shorter log gives way, which
// the other would not elect, and of equals the later in line.
type standing struct {
	mu      sync.Mutex
	asked   time.Time // when this node asked for votes
	yielded time.Time // when it told another that it would vote for it
}

// yield reports whether this node would rather vote for another than stand, and
// holds it to that for a while; longer says that the other's log is.
func (g *group) yield(to string, longer bool) bool {
	s, now := &g.standing, time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !longer && now.Sub(s.asked) < g.cfg.Heartbeat/2 && g.rank(to) > g.rank(g.h.cfg.Node) {
		return false
	}
	s.yielded = now
	return true
}

// turnToStand reports whether this node may ask, and notes that it does.
func (g *group) turnToStand() bool {
	s, now := &g.standing, time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.yielded) < g.cfg.Heartbeat/2 {
		return false
	}
	s.asked = now
	return true
}

// yielded reports whether this node has given way since it asked.
func (g *group) yielded() bool {
	s := &g.standing
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.yielded.Before(s.asked)
}
