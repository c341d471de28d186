package mesh

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/starling-im/starling/identity"
	"github.com/starling-im/starling/wire"
)

// link is the connection to another node.
type link struct {
	node    string
	conn    *quic.Conn
	over    func(node string) string // says how it goes if it is tunnelled
	pacer   pacer
	traffic *traffic
}

func (m *Mesh) newLink(node string, conn *quic.Conn) *link {
	return &link{node: node, conn: conn, over: m.tunnels.over, traffic: m.meter.of(node)}
}

// path says how the link goes.
func (l *link) path() string {
	if l.tunnelled() {
		return l.over(l.node)
	}
	return PathUDP
}

// tunnelled reports whether the link is not over UDP of its own.
func (l *link) tunnelled() bool { return tunnelled(l.conn) }

func tunnelled(c *quic.Conn) bool {
	_, is := c.RemoteAddr().(nodeAddr)
	return is
}

func (l *link) rtt() time.Duration { return l.conn.ConnectionStats().SmoothedRTT }

// LeastRTT returns the least round trip seen on the link to a node, 0 without
// one. Load at either end does not raise it.
func (m *Mesh) LeastRTT(node string) time.Duration {
	l := m.table.to(node)
	if l == nil {
		return 0
	}
	return l.conn.ConnectionStats().MinRTT
}

// Open opens a stream of a kind to a node, over the one link of the pair. It
// waits for the link until ctx ends, and then returns ErrNoLink.
func (m *Mesh) Open(ctx context.Context, node string, kind byte) (*Stream, error) {
	for {
		view := m.View()
		l := m.table.to(node)
		if l != nil {
			s, err := openStream(ctx, l, kind)
			if err == nil || ctx.Err() != nil || l.conn.Context().Err() == nil {
				return s, err
			}
			// The link ended under us; whoever serves it will say so in a new view.
		}
		if l != nil && m.table.to(node) != l {
			continue
		}
		select {
		case <-view.Next():
		case <-ctx.Done():
			return nil, fmt.Errorf("%w to %s: %w", ErrNoLink, node, context.Cause(ctx))
		}
	}
}

// dials reports whether this node dials another one, and does not wait for it to: the
// one that cannot be dialled does, and of two that are alike the one with the smaller id.
func (m *Mesh) dials(p Member) bool {
	if p.Outbound != m.cfg.Outbound {
		return m.cfg.Outbound
	}
	return m.cfg.Node < p.ID
}

// keepLinks keeps a link to each member that this node dials.
func (m *Mesh) keepLinks(ctx context.Context) {
	kept := make(map[string]bool)
	ended := make(chan string)
	for {
		view := m.View()
		m.keepParents(view)
		for _, p := range view.Members {
			if _, wanted := m.table.wanted(p.ID); p.ID == m.cfg.Node || !m.dials(p) || kept[p.ID] || !wanted {
				continue
			}
			kept[p.ID] = true
			m.wg.Go(func() {
				m.keepLink(ctx, p.ID)
				select {
				case ended <- p.ID:
				case <-ctx.Done():
				}
			})
		}
		select {
		case <-view.Next():
		case id := <-ended:
			delete(kept, id)
		case <-ctx.Done():
			return
		}
	}
}

// keepLink dials a node again and again until nobody knows it any more.
func (m *Mesh) keepLink(ctx context.Context, id string) {
	failures := 0
	for ctx.Err() == nil {
		view := m.View()
		p, wanted := m.table.wanted(id)
		if !wanted || !m.dials(p) {
			return
		}
		began := time.Now()
		conn, _, err := m.dial(ctx, p.Addr, m.linkALPN(), id)
		if err != nil {
			m.log.Debug("link not up", "peer", id, "addr", p.Addr, "err", err)
			conn = nil
		}
		for addr := p.Addr; conn != nil; {
			conn, addr = m.serveUntilMoved(ctx, id, addr, conn)
		}
		if time.Since(began) > stableAfter && err == nil {
			failures = 0
		}
		m.pause(ctx, view, p, backoff(failures, backoffMin, backoffMax))
		failures++
	}
}

// pause waits for d, or until there is better news of the node.
func (m *Mesh) pause(ctx context.Context, view *View, p Member, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		case <-view.Next():
		}
		view = m.View()
		if now, _ := view.Member(p.ID); now.Addr != p.Addr || now.State.Here() && !p.State.Here() {
			return
		}
	}
}

// serveUntilMoved serves a link that was dialled at an address until it ends.
// If its node was found elsewhere it returns the connection to there.
func (m *Mesh) serveUntilMoved(ctx context.Context, id, addr string, conn *quic.Conn) (*quic.Conn, string) {
	var next *quic.Conn
	found := make(chan struct{})
	m.wg.Go(func() {
		defer close(found)
		if next, addr = m.findMoved(ctx, id, addr, conn); next != nil {
			_ = conn.CloseWithError(closeMoved, "the node is reached in another way")
		}
	})
	m.serveLink(ctx, m.newLink(id, conn))
	<-found
	return next, addr
}

// findMoved dials a node where gossip says that it is now, while there is a
// link to it at another address, and also where its link may go better. It returns nil
// if the link ends before the node has proved there who it is: gossip alone, which
// anyone with its key can forge, never costs a good link.
func (m *Mesh) findMoved(ctx context.Context, id, addr string, conn *quic.Conn) (*quic.Conn, string) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	health := health{conn: conn, heard: time.Now(), tried: time.Now()}
	for failures := 0; conn.Context().Err() == nil; {
		view := m.View()
		p, ok := view.Member(id)
		if !ok || p.Addr == addr || m.isRemote(ctx, conn, p.Addr) {
			failures = 0
			select {
			case <-view.Next():
			case <-look.C:
				if next := m.findBetter(ctx, &health, id, addr); next != nil {
					return next, addr
				}
			case <-conn.Context().Done():
			}
			continue
		}
		next, _, err := m.dial(ctx, p.Addr, m.linkALPN(), id)
		if err == nil {
			return next, p.Addr
		}
		m.log.Debug("node not where it is said to be", "peer", id, "addr", p.Addr, "err", err)
		pausing, cancel := context.WithCancel(ctx)
		unlink := context.AfterFunc(conn.Context(), cancel)
		m.pause(pausing, view, p, backoff(failures, backoffMin, backoffMax))
		unlink()
		cancel()
		failures++
	}
	return nil, ""
}

// isRemote reports whether an address is the other end of a connection: one
// address may have two names.
func (m *Mesh) isRemote(ctx context.Context, conn *quic.Conn, addr string) bool {
	to, err := m.resolver.resolve(ctx, addr)
	return err == nil && to.String() == conn.RemoteAddr().String()
}

// sendWelcome tells the dialling side that it was accepted. The byte is the
// highest version of stream headers that this node reads.
func sendWelcome(conn *quic.Conn) error {
	s, err := conn.OpenUniStream()
	if err != nil {
		return err
	}
	if _, err := s.Write([]byte{streamVersion}); err != nil {
		return err
	}
	return s.Close()
}

// serve serves an accepted connection until it ends.
func (m *Mesh) serve(ctx context.Context, conn *quic.Conn) {
	state := conn.ConnectionState().TLS
	if state.NegotiatedProtocol == ALPNClient {
		if m.cfg.Clients == nil {
			_ = conn.CloseWithError(wire.CloseForbidden, "this node serves no clients")
			return
		}
		m.cfg.Clients(ctx, conn, m.wg.Go)
		return
	}
	switch state.NegotiatedProtocol {
	case alpnEnroll:
		m.serveEnroll(ctx, conn)
		return
	case alpnProbe:
		m.serveProbe(ctx, conn)
		return
	}
	name, err := identity.NameOf(state.PeerCertificates[0], m.cfg.Cluster)
	node := name.Node
	isLink := state.NegotiatedProtocol == ALPNLink || state.NegotiatedProtocol == alpnOutbound
	if err == nil && isLink && m.dials(Member{ID: node, Outbound: state.NegotiatedProtocol == alpnOutbound}) {
		err = fmt.Errorf("%w: %s", ErrNotDialler, node)
	}
	if err != nil {
		m.refuse(conn.RemoteAddr(), err)
		_ = conn.CloseWithError(closeNotDialler, "it is the other side that dials")
		return
	}
	if err := sendWelcome(conn); err != nil {
		_ = conn.CloseWithError(wire.CloseProtocol, err.Error())
		return
	}
	if isLink && !m.chosen(ctx, conn) {
		_ = conn.CloseWithError(wire.CloseNormal, "not chosen")
		return
	}
	if isLink {
		l := m.newLink(node, conn)
		if m.cfg.DialTCP != nil && !l.tunnelled() {
			m.wg.Go(func() { m.endMute(l) })
		}
		m.serveLink(ctx, l)
		return
	}
	m.serveStreams(ctx, m.newLink(node, conn), map[byte]Handler{StreamGossip: m.handlers[StreamGossip], StreamKeys: m.handlers[StreamKeys]})
}

// serveLink makes l the link to its node and serves it until it ends.
func (m *Mesh) serveLink(ctx context.Context, l *link) {
	m.large.Store(l.conn, true)
	defer m.large.Delete(l.conn)
	if old := m.table.linkUp(l); old != nil {
		_ = old.conn.CloseWithError(closeReplaced, "replaced by a newer link")
	}
	m.cutNotAdmitted() // what was found out since its handshake
	if !l.tunnelled() {
		m.tunnels.closeCarriers(l.node)
	}
	m.log.Info("link up", "peer", l.node, "addr", l.conn.RemoteAddr().String())
	m.serveStreams(ctx, l, m.handlers)
	cause := context.Cause(l.conn.Context())
	var app *quic.ApplicationError
	goodbye := errors.As(cause, &app) && app.Remote && app.ErrorCode == wire.CloseShuttingDown
	m.table.linkDown(l, goodbye)
	if errors.As(cause, &app) && app.Remote && app.ErrorCode == closeNotAdmitted {
		m.log.Error("another node does not let this one in any more", "peer", l.node, "reason", app.ErrorMessage)
	}
	if ctx.Err() == nil {
		m.log.Info("link down", "peer", l.node, "reason", cause)
	}
}

// serveStreams serves the streams that a node opens until the connection ends.
func (m *Mesh) serveStreams(ctx context.Context, l *link, handlers map[byte]Handler) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.conn.Context(), cancel)()
	for {
		s, err := l.conn.AcceptStream(ctx)
		if err != nil {
			break
		}
		m.wg.Go(func() { m.dispatch(ctx, l, handlers, s) })
	}
	_ = l.conn.CloseWithError(wire.CloseShuttingDown, "the node is going away") // nothing happens if it was closed before
}
