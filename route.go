package starling

import (
	"context"
	"sync"
	"time"

	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/geo"
	"github.com/starling-im/starling/mesh"
	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// links keeps one relay session to every other node: two nodes become a mesh
// by each being the other's client.
type links struct {
	node *Node

	mu       sync.Mutex
	sessions map[string]*link
}

// link is the session to one peer, and who follows what over it.
type link struct {
	*client.Session
	mu      sync.Mutex
	follows map[uint64]*linkFollow
	gone    chan struct{}
}

// linkFollow is one room followed over a link.
type linkFollow struct {
	each  func(events [][]byte)
	ended chan struct{} // closed if the peer ends it
}

func newLinks(n *Node) *links { return &links{node: n, sessions: make(map[string]*link)} }

// get returns the session to a node, nil if there is none now.
func (l *links) get(node string) *link {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sessions[node]
}

// run keeps the sessions until ctx ends.
func (l *links) run(ctx context.Context) {
	var peers sync.WaitGroup
	defer peers.Wait()
	known := map[string]bool{l.node.cfg.Node: true}
	for {
		view := l.node.mesh.View()
		for _, m := range view.Members {
			if !known[m.ID] {
				known[m.ID] = true
				peers.Go(func() { l.keep(ctx, m.ID) })
			}
		}
		select {
		case <-view.Next():
		case <-ctx.Done():
			return
		}
	}
}

// keep opens the session to one node again and again.
func (l *links) keep(ctx context.Context, node string) {
	for ctx.Err() == nil {
		s, err := l.node.mesh.Open(ctx, node, mesh.StreamRelay)
		if err != nil {
			wait(ctx, linkAgain)
			continue
		}
		l.serve(ctx, node, s)
		_ = s.Close()
	}
}

// linkAgain is the pause after a session to a node could not be opened.
const linkAgain = 100 * time.Millisecond

func (l *links) serve(ctx context.Context, node string, s *mesh.Stream) {
	k := &link{follows: make(map[uint64]*linkFollow), gone: make(chan struct{})}
	k.Session = client.NewSession(client.SessionConfig{
		Commands: s, MaxFrame: wire.NodeFrame, MaxUnsent: linkUnsent, Compress: true,
		OnEvents: k.deliver, OnError: k.ended,
	})
	l.mu.Lock()
	l.sessions[node] = k
	l.mu.Unlock()
	err := k.Run(ctx)
	close(k.gone)
	l.mu.Lock()
	delete(l.sessions, node)
	l.mu.Unlock()
	l.node.log.Debug("relay session ended", "peer", node, "err", err)
}

func (k *link) deliver(follow uint64, events [][]byte) {
	k.mu.Lock()
	f := k.follows[follow]
	k.mu.Unlock()
	if f != nil {
		f.each(events)
	}
}

// ended notes that the peer has ended a follow.
func (k *link) ended(follow uint64, _ *wire.Error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if f := k.follows[follow]; f != nil {
		delete(k.follows, follow)
		close(f.ended)
	}
}

// hints remember who led a group when last heard of.
type hints struct {
	mu     sync.Mutex
	leader map[uint32]string
	tried  map[uint32]int
}

func (h *hints) get(group uint32) (leader string, tried int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.leader[group], h.tried[group]
}

// set notes what a not_leader answer said; an empty leader makes the next
// send try another voter.
func (h *hints) set(group uint32, leader string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.leader == nil {
		h.leader, h.tried = make(map[uint32]string), make(map[uint32]int)
	}
	h.leader[group] = leader
	if leader == "" {
		h.tried[group]++
	}
}

// leader returns the node to which commands for the group go: the replica's
// own knowledge, else the last hint, else one voter after the other.
func (n *Node) leader(group uint32) (string, error) {
	voters := n.voters(group)
	if len(voters) == 0 {
		return "", wire.Errorf(wire.CodeNotFound, "there is no group %d", group)
	}
	if hosts(voters, n.cfg.Node) {
		if leader := n.host.Leader(group); leader != "" {
			return leader, nil
		}
		return "", wire.Errorf(wire.CodeNotLeader, "group %d has no leader now", group).After(leaderAgain)
	}
	leader, tried := n.hints.get(group)
	if leader == "" {
		leader = voters[tried%len(voters)]
	}
	return leader, nil
}

// leaderAgain is when to ask again while a group elects its leader.
const leaderAgain = 50 * time.Millisecond

// voters are the nodes that replicate a group.
func (n *Node) voters(group uint32) []string {
	if group == 0 {
		return n.cfg.directoryVoters()
	}
	g, _ := n.dir.state().Group(group)
	return g.Voters
}

func hosts(voters []string, node string) bool {
	for _, v := range voters {
		if v == node {
			return true
		}
	}
	return false
}

// propose brings an encoded command to the group's leader: at most one hop.
// It never tries again by itself: the sender does, in order, and the
// client_msg_id makes that safe.
func (n *Node) propose(group uint32, command []byte, done func(*wire.Ack, error)) {
	leader, err := n.leader(group)
	if err != nil {
		done(nil, err)
		return
	}
	if leader == n.cfg.Node {
		n.proposeHere(group, command, done)
		return
	}
	link := n.links.get(leader)
	if link == nil {
		n.hints.set(group, "")
		done(nil, wire.Errorf(wire.CodeNotLeader, "the leader %q of group %d cannot be reached now", leader, group).After(leaderAgain))
		return
	}
	f := &wire.Frame{Body: &wire.Frame_Propose{Propose: &wire.Propose{Group: group, Command: command}}}
	link.Call(f, func(answer *wire.Frame, err error) {
		if err == nil {
			done(answer.GetAck(), nil)
			return
		}
		e := wire.AsError(err)
		if e.Code == wire.CodeNotLeader {
			n.hints.set(group, e.Node)
		}
		done(nil, e)
	})
}

// proposeHere hands a command to the replica on this node.
func (n *Node) proposeHere(group uint32, command []byte, done func(*wire.Ack, error)) {
	n.host.Propose(group, command, func(result any, err error) {
		if err != nil {
			done(nil, err)
			return
		}
		r := result.(room.Result)
		if r.Refusal != nil {
			done(nil, wire.Errorf(r.Refusal.Code, "%s", r.Refusal.Message))
			return
		}
		done(&wire.Ack{MsgId: r.Ack.MsgID, Seq: r.Ack.Seq, Epoch: r.Ack.Epoch, TsMs: r.Ack.TS, Duplicate: r.Ack.Duplicate}, nil)
	})
}

// parent returns the node to follow for a room, "" if this node holds a
// replica of the room's group.
func (n *Node) parent(id room.ID, group uint32, asRelay bool) (string, error) {
	voters := n.voters(group)
	if len(voters) == 0 {
		return "", wire.Errorf(wire.CodeNotFound, "there is no group %d", group)
	}
	q := geo.Hop{Self: geo.Site{Node: n.cfg.Node, Region: n.cfg.Region}, Room: id.App + "/" + id.Room, AsRelay: asRelay}
	for _, m := range n.mesh.View().Members {
		site := geo.Site{Node: m.ID, Region: m.Region}
		if m.ID == n.cfg.Node || m.Linked {
			q.Alive = append(q.Alive, site)
		}
		if hosts(voters, m.ID) {
			q.Replicas = append(q.Replicas, site)
		}
	}
	if len(q.Replicas) == 0 {
		return "", wire.Errorf(wire.CodeUnavailable, "no replica of group %d is known", group)
	}
	return geo.NextRelay(q), nil
}

// locate returns the group of a room.
func (n *Node) locate(id room.ID) (uint32, error) {
	if id == directoryRoom {
		return 0, nil
	}
	group, err := n.dir.state().Locate(id.App, id.Room)
	if err != nil {
		if n.dir.state().Version() == 0 {
			return 0, wire.Errorf(wire.CodeUnavailable, "the node is starting").After(leaderAgain)
		}
		return 0, wire.Errorf(wire.CodeNotFound, "%v", err)
	}
	return group, nil
}

// wait pauses for d, or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (k *link) ask(ctx context.Context, f *wire.Frame) (*wire.Frame, error) {
	if k == nil {
		return nil, wire.Errorf(wire.CodeUnavailable, "the node that knows cannot be reached now").After(leaderAgain)
	}
	return k.Ask(ctx, f)
}

// follow asks the peer for a room's events. each is called from the session's
// reading goroutine with consecutive events, until the link is gone, the peer
// closes ended, or stop is called.
func (k *link) follow(ctx context.Context, ask *wire.Follow, each func(events [][]byte)) (head uint64, ended <-chan struct{}, stop func(), err error) {
	f := &linkFollow{each: each, ended: make(chan struct{})}
	type outcome struct {
		id, head uint64
		err      error
	}
	answered := make(chan outcome, 1)
	k.Call(&wire.Frame{Body: &wire.Frame_Follow{Follow: ask}}, func(a *wire.Frame, err error) {
		if err == nil && a.GetFollowed() == nil {
			err = wire.Errorf(wire.CodeProtocol, "a %T answers Follow", a.Body)
		}
		if err != nil {
			answered <- outcome{err: err}
			return
		}
		// Before the reader goes on to the events.
		k.mu.Lock()
		k.follows[a.Id] = f
		k.mu.Unlock()
		answered <- outcome{id: a.Id, head: a.GetFollowed().HeadSeq}
	})
	forget := func(id uint64) {
		k.mu.Lock()
		delete(k.follows, id)
		k.mu.Unlock()
		k.Call(&wire.Frame{Body: &wire.Frame_Unfollow{Unfollow: &wire.Unfollow{Follow: id}}}, nil)
	}
	select {
	case o := <-answered:
		if o.err != nil {
			return 0, nil, nil, o.err
		}
		return o.head, f.ended, func() { forget(o.id) }, nil
	case <-ctx.Done():
		go func() {
			if o := <-answered; o.err == nil {
				forget(o.id)
			}
		}()
		return 0, nil, nil, ctx.Err()
	}
}
