package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/starling-im/starling/identity"
	"github.com/starling-im/starling/wire"
)

// link is the connection to another node.
type link struct {
	node    string
	conn    *quic.Conn
	pacer   pacer
	traffic *traffic
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

// keepLinks keeps a link to each member whose id is larger than this node's;
// those with smaller ids dial themselves.
func (m *Mesh) keepLinks(ctx context.Context) {
	kept := make(map[string]bool)
	ended := make(chan string)
	for {
		view := m.View()
		for _, p := range view.Members {
			if _, wanted := m.table.wanted(p.ID); p.ID <= m.cfg.Node || kept[p.ID] || !wanted {
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
		if !wanted {
			return
		}
		began := time.Now()
		conn, _, err := m.dial(ctx, p.Addr, ALPNLink, id)
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
			_ = conn.CloseWithError(closeMoved, "the node has another address")
		}
	})
	m.serveLink(ctx, m.newLink(id, conn))
	<-found
	return next, addr
}

// findMoved dials a node where gossip says that it is now, while there is a
// link to it at another address. It returns nil if the link ends before the
// node has proved there who it is: gossip alone, which anyone with its key can
// forge, never costs a good link.
func (m *Mesh) findMoved(ctx context.Context, id, addr string, conn *quic.Conn) (*quic.Conn, string) {
	for failures := 0; conn.Context().Err() == nil; {
		view := m.View()
		p, ok := view.Member(id)
		if !ok || p.Addr == addr || m.isRemote(ctx, conn, p.Addr) {
			failures = 0
			select {
			case <-view.Next():
			case <-conn.Context().Done():
			}
			continue
		}
		next, _, err := m.dial(ctx, p.Addr, ALPNLink, id)
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

// dial connects to a node at an address, or to any node there if node is
// empty, and returns once the other side has agreed.
func (m *Mesh) dial(ctx context.Context, addr, alpn, node string) (*quic.Conn, string, error) {
	ctx, cancel := context.WithTimeout(ctx, dialWithin)
	defer cancel()
	conn, err := m.dialWelcomed(ctx, addr, alpn, node)
	if err == nil {
		name, err := identity.NameOf(conn.ConnectionState().TLS.PeerCertificates[0], m.cfg.Cluster)
		return conn, name.Node, err
	}
	err = refusal(err)
	if isRefusal(err) && !(node == "" && errors.Is(err, ErrSameNode)) { // a seed may be this node itself
		m.refuse(addressed(addr), err)
	}
	return nil, "", fmt.Errorf("mesh: dial %s: %w", addr, err)
}

// dialWelcomed waits for the welcome: in TLS 1.3 the dialling side is done
// before the other has looked at its certificate.
func (m *Mesh) dialWelcomed(ctx context.Context, addr, alpn, node string) (*quic.Conn, error) {
	to, err := m.resolver.resolve(ctx, addr)
	if err != nil {
		return nil, err
	}
	conn, err := m.transport.Dial(ctx, to, m.dialTLS(alpn, node), dialConfig())
	if err != nil {
		return nil, err
	}
	welcome, err := conn.AcceptUniStream(ctx)
	if err == nil {
		deadline, _ := ctx.Deadline()
		_ = welcome.SetReadDeadline(deadline)
		_, err = io.ReadFull(welcome, make([]byte, 1))
	}
	if err != nil {
		if cause := context.Cause(conn.Context()); cause != nil {
			err = cause
		}
		_ = conn.CloseWithError(wire.CloseNormal, "no welcome")
		return nil, err
	}
	return conn, nil
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
		m.cfg.Clients(ctx, conn)
		return
	}
	if state.NegotiatedProtocol == alpnEnroll {
		m.serveEnroll(ctx, conn)
		return
	}
	name, err := identity.NameOf(state.PeerCertificates[0], m.cfg.Cluster)
	node := name.Node
	if err == nil && state.NegotiatedProtocol == ALPNLink && node > m.cfg.Node {
		err = fmt.Errorf("%w: %s", ErrNotDialler, node)
	}
	if err != nil {
		m.refuse(conn.RemoteAddr(), err)
		_ = conn.CloseWithError(closeNotDialler, "the node with the smaller id dials")
		return
	}
	if err := sendWelcome(conn); err != nil {
		_ = conn.CloseWithError(wire.CloseProtocol, err.Error())
		return
	}
	if state.NegotiatedProtocol == ALPNLink {
		m.serveLink(ctx, m.newLink(node, conn))
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
