package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/starling-im/starling/wire"
)

// A link is one session of a Client, from its Hello to its end.
type link struct {
	c       *Client
	addr    string
	session *Session
	welcome *wire.Welcome
	ctx     context.Context
	end     context.CancelCauseFunc
	ended   chan error // gets why, when all of the link is gone

	mu      sync.Mutex
	subs    map[uint64]*subscription // by the id of their Follow
	asking  int                      // Follows without an answer
	waiting []func()                 // send the next Follow
	move    *time.Timer              // armed by the first Goaway
	// datagrams are those of the connection; nil = there are none, or they are read.
	datagrams func(context.Context) ([]byte, error)
}

// followsAsked bounds the Follows of one link that have no answer: after a
// reconnect there may be hundreds, and a node refuses to answer so many at once.
const followsAsked = 8

// errMoved ends a link whose node goes away, errSilent one whose node does
// not answer any more.
var (
	errMoved  = errors.New("client: the node is going away")
	errSilent = errors.New("client: the node does not answer")
)

// maxUnsent bounds the bytes that wait to be written to a node.
const maxUnsent = 1 << 20

// open connects to a node and says Hello. A *farewell is the node's refusal.
func (c *Client) open(addr string, within time.Duration, hello *wire.Hello) (*link, error) {
	ctx, cancel := context.WithTimeout(c.ctx, within)
	defer cancel()
	conn, err := c.connect(ctx, addr)
	if err != nil {
		return nil, err
	}
	l := &link{c: c, addr: addr, datagrams: conn.datagrams, ended: make(chan error, 1), subs: make(map[uint64]*subscription)}
	l.ctx, l.end = context.WithCancelCause(c.ctx)
	l.session = NewSession(SessionConfig{
		Commands: conn.commands, Events: conn.events, MaxUnsent: maxUnsent,
		OnEvents: l.events, OnError: l.fails, OnGoaway: l.goaway, OnSignals: l.signals,
	})
	c.work.Go(func() {
		err := l.session.Run(l.ctx)
		conn.close()
		l.end(err)
		l.stopMove()
		l.ended <- err
	})
	if err := l.hello(hello); err != nil {
		l.end(err)
		if end := <-l.ended; wire.Code(err) == wire.CodeUnavailable {
			err = end // says more than that the call was cut off
		}
		return nil, err
	}
	return l, nil
}

// hello says Hello, and right behind it what is followed: the node reads in
// order, and a client that comes back has its events a round trip earlier.
func (l *link) hello(hello *wire.Hello) error {
	ctx, cancel := context.WithTimeout(l.ctx, helloWithin)
	defer cancel()
	hello.Device, hello.Agent = l.c.cfg.Device, l.c.cfg.Agent
	answer := l.session.start(&wire.Frame{Body: &wire.Frame_Hello{Hello: hello}})
	l.c.attach(l)
	f, err := answer(ctx)
	var refusal *wire.Error
	switch {
	case errors.As(err, &refusal) && refusal.Code != wire.CodeUnavailable:
		return &farewell{refusal}
	case err != nil:
		return err
	case f.GetWelcome() == nil:
		return wire.Errorf(wire.CodeProtocol, "Hello was answered with a %T", f.Body)
	}
	l.welcome = f.GetWelcome()
	if l.c.cfg.Heartbeat > 0 {
		l.c.work.Go(l.beat)
	}
	return nil
}

// beat probes the node whenever a follower has heard nothing for a while: a
// node that was killed says no goodbye.
func (l *link) beat() {
	tick := time.NewTicker(l.c.cfg.Heartbeat)
	defer tick.Stop()
	for heard := l.session.heard.Load(); ; {
		select {
		case <-tick.C:
		case <-l.ctx.Done():
			return
		}
		now := l.session.heard.Load()
		if now == heard && l.follows() {
			l.probe()
			now = l.session.heard.Load()
		}
		heard = now
	}
}

func (l *link) follows() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.subs) > 0
}

// pingPadding makes the packet of a Ping long enough that a node which has forgotten
// the connection answers it with a reset (RFC 9000, section 10.3).
var pingPadding = make([]byte, 24)

// probe ends the link unless its node answers something; one of a release before says
// that it does not know the frame.
func (l *link) probe() {
	ctx, cancel := context.WithTimeout(l.ctx, probeWithin)
	defer cancel()
	if _, err := l.session.Ask(ctx, &wire.Frame{Body: &wire.Frame_Ping{Ping: &wire.Ping{Padding: pingPadding}}}); errors.Is(err, context.DeadlineExceeded) {
		l.end(errSilent)
	}
}

// alternates bounds the nodes that a Goaway may name.
const alternates = 16

// goaway leaves for another node at a random time in the window that the node
// gave, so that its clients do not all arrive at once.
func (l *link) goaway(g *wire.Goaway) {
	var addrs []string
	for _, a := range g.Alternates {
		if _, _, err := net.SplitHostPort(a); err == nil && len(addrs) < alternates {
			addrs = append(addrs, a)
		}
	}
	wait := time.Duration(g.AfterMinMs) * time.Millisecond
	if g.AfterMaxMs > g.AfterMinMs {
		wait += rand.N(time.Duration(g.AfterMaxMs-g.AfterMinMs) * time.Millisecond)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.move != nil || l.ctx.Err() != nil {
		return
	}
	l.move = time.AfterFunc(wait, func() {
		l.c.prefer(addrs)
		l.end(errMoved)
	})
}

// asked reports whether the node has asked to go.
func (l *link) asked() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.move != nil
}

func (l *link) stopMove() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.move != nil {
		l.move.Stop()
	}
}

// follow sends a Follow, or has it wait for its turn.
func (l *link) follow(s *subscription, f *wire.Follow) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.Signals {
		l.hearDatagrams()
	}
	// The lock is held until the id is known: the answer, and events that
	// overtake it on their own stream, look the subscription up by it.
	send := func() {
		s.id = l.session.Call(&wire.Frame{Body: &wire.Frame_Follow{Follow: f}}, s.answered)
		l.subs[s.id] = s
	}
	if l.asking >= followsAsked {
		l.waiting = append(l.waiting, send)
		return
	}
	l.asking++
	send()
}

// followed gives the turn of an answered Follow to the next.
func (l *link) followed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) == 0 {
		l.asking--
		return
	}
	send := l.waiting[0]
	l.waiting = l.waiting[1:]
	send()
}

// events hands what came for a follow to it.
func (l *link) events(follow uint64, events [][]byte) {
	if s := l.sub(follow); s != nil {
		s.events(events)
	}
}

// fails is the end of a follow by the node.
func (l *link) fails(follow uint64, err *wire.Error) {
	if s := l.sub(follow); s != nil {
		s.ended(err)
	}
}

func (l *link) sub(follow uint64) *subscription {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.subs[follow]
}

func (l *link) forget(follow uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.subs, follow)
}
