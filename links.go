package starling

import (
	"context"
	"sync"
	"time"

	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/mesh"
	"github.com/starling-im/starling/relay"
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
	node    string // the peer
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

// ask asks a node over its link.
func (l *links) ask(ctx context.Context, node string, f *wire.Frame) (*wire.Frame, error) {
	return l.get(node).ask(ctx, f)
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
	k := &link{node: node, follows: make(map[uint64]*linkFollow), gone: make(chan struct{})}
	k.Session = client.NewSession(client.SessionConfig{
		Commands: s, MaxFrame: wire.NodeFrame, MaxUnsent: linkUnsent, Compress: true,
		OnEvents: k.deliver, OnError: k.ended, OnSignals: func(f *wire.Frame) { l.node.signals.HearParent(node, f.GetAggregate()) },
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
	a, err := k.Ask(ctx, f)
	if err != nil && ctx.Err() != nil {
		err = wire.Errorf(wire.CodeUnavailable, "the node that knows does not answer").After(leaderAgain)
	}
	return a, err
}

// follow asks the peer for a room's events. each is called from the session's
// reading goroutine with consecutive events, until the link is gone, the peer
// closes ended, or stop is called.
func (k *link) follow(ctx context.Context, ask *wire.Follow, each func(events [][]byte)) (answer *wire.Followed, ended <-chan struct{}, stop func(), err error) {
	f := &linkFollow{each: each, ended: make(chan struct{})}
	type outcome struct {
		id  uint64
		is  *wire.Followed
		err error
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
		answered <- outcome{id: a.Id, is: a.GetFollowed()}
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
			return nil, nil, nil, o.err
		}
		return o.is, f.ended, func() { forget(o.id) }, nil
	case <-ctx.Done():
		go func() {
			if o := <-answered; o.err == nil {
				forget(o.id)
			}
		}()
		return nil, nil, nil, ctx.Err()
	}
}

// serveRelay serves another node as a client of this one's rooms.
func (n *Node) serveRelay(ctx context.Context, node string, s *mesh.Stream) {
	n.serveNode(ctx, node, s, relay.Limits{
		Follows: linkFollows, InFlight: linkInFlight, SendsPerSecond: -1,
		UnsentBytes: linkUnsent, WriteStall: linkStall, Asks: linkAsks,
	})
}

// serveHistory serves pages to another node.
func (n *Node) serveHistory(ctx context.Context, node string, s *mesh.Stream) {
	n.serveNode(ctx, node, s, relay.Limits{
		Follows: 1, InFlight: 1, UnsentBytes: linkUnsent, WriteStall: historyStall, Asks: 2 * historyAsks,
	})
}

func (n *Node) serveNode(ctx context.Context, node string, s *mesh.Stream, limits relay.Limits) {
	defer s.Close()
	<-n.ready
	session := relay.NewSession(relay.SessionConfig{
		Peer: relay.Peer{Node: node}, Frames: wire.NewReader(s, wire.NodeFrame), Replies: s,
		Hub: n.hub, Backend: (*backend)(n), Limits: limits, Signals: n.signals,
		Sent: func(events, unsent int) {
			n.sent.add(node, events)
			if n.written != nil {
				n.written(node, unsent-wire.Headroom)
			}
		},
	})
	err := session.Run(ctx)
	n.log.Debug("relay stream ended", "peer", node, "err", err)
}

// The bounds of a link's session: a node speaks for many clients.
const (
	linkFollows  = 1 << 20
	linkInFlight = 1 << 14
	linkUnsent   = 8 << 20
	linkStall    = 10 * time.Second
	linkAsks     = 1024
)
