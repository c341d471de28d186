package mesh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/starling-im/starling/identity"
	"github.com/starling-im/starling/wire"
)

// How a link goes; else it is "through" another node.
const (
	PathUDP = "udp"
	PathTCP = "tcp"
)

// The next path is tried while the one before is still silent, as in RFC 8305.
const (
	tcpAfter    = time.Second
	tunnelAfter = 1500 * time.Millisecond
)

// attemptAt is one way to reach a node, and when it is tried.
type attemptAt struct {
	after time.Duration
	dial  func(context.Context) (*quic.Conn, error)
}

// dial connects to a node at an address, or to any node there if node is empty, and
// returns once the other side has agreed. It tries UDP, and where that is silent TCP
// and other nodes.
func (m *Mesh) dial(ctx context.Context, addr, alpn, node string) (*quic.Conn, string, error) {
	return m.dialAny(ctx, addr, alpn, node, m.attempts(addr, alpn, node))
}

// dialStraight is dial over UDP alone.
func (m *Mesh) dialStraight(ctx context.Context, addr, alpn, node string) (*quic.Conn, string, error) {
	return m.dialAny(ctx, addr, alpn, node, m.attempts(addr, alpn, node)[:1])
}

func (m *Mesh) dialAny(ctx context.Context, addr, alpn, node string, attempts []attemptAt) (*quic.Conn, string, error) {
	ctx, cancel := context.WithTimeout(ctx, dialWithin)
	defer cancel()
	conn, err := m.first(ctx, attempts)
	if err == nil && alpn == m.linkALPN() {
		err = choose(conn)
	}
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

// attempts returns the ways to reach a node at an address.
func (m *Mesh) attempts(addr, alpn, node string) (all []attemptAt) {
	to, _ := m.View().Member(node)
	waits := time.Duration(0)
	if !m.cfg.TCPOnly && !to.Outbound {
		all = append(all, attemptAt{0, func(ctx context.Context) (*quic.Conn, error) {
			to, err := m.resolver.resolve(ctx, addr)
			if err != nil {
				return nil, err
			}
			return m.dialWelcomed(ctx, m.transport, to, alpn, node)
		}})
		waits = tcpAfter
	}
	if m.cfg.DialTCP != nil && !to.Outbound {
		all = append(all, attemptAt{waits, func(ctx context.Context) (*quic.Conn, error) {
			at, err := m.tunnels.dialCarrier(ctx, addr, node)
			if err != nil {
				return nil, err
			}
			return m.dialWelcomed(ctx, m.tunnels.transport, nodeAddr(at), alpn, node)
		}})
		waits = tunnelAfter
	}
	if node != "" && m.tunnels.reaches(node) {
		all = append(all, attemptAt{waits, func(ctx context.Context) (*quic.Conn, error) {
			return m.dialWelcomed(ctx, m.tunnels.transport, nodeAddr(node), alpn, node)
		}})
	}
	if len(all) == 0 {
		all = append(all, attemptAt{0, func(context.Context) (*quic.Conn, error) {
			return nil, fmt.Errorf("%w: it cannot be dialled, and no node passes packets on to it", ErrNoWay)
		}})
	}
	return all
}

// dialled is how an attempt ended.
type dialled struct {
	conn *quic.Conn
	err  error
}

// first makes attempts, each at its time or when all before have failed, until one
// succeeds or is refused, and ends the others.
func (m *Mesh) first(ctx context.Context, attempts []attemptAt) (*quic.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan dialled)
	begun, ended, began := 0, 0, time.Now()
	var failed error
	for {
		var next <-chan time.Time
		if begun < len(attempts) {
			wait := time.Until(began.Add(attempts[begun].after))
			if ended == begun {
				wait = 0
			}
			next = time.After(wait)
		}
		select {
		case <-next:
			dial := attempts[begun].dial
			if begun++; !m.running(func(context.Context) { try(ctx, dial, results) }) {
				return nil, net.ErrClosed
			}
		case r := <-results:
			ended++
			if r.err == nil {
				return r.conn, nil
			}
			if failed == nil || isRefusal(refusal(r.err)) {
				failed = r.err
			}
			if ended == len(attempts) || isRefusal(refusal(failed)) {
				return nil, failed
			}
		case <-ctx.Done():
			return nil, cmp.Or(failed, context.Cause(ctx))
		}
	}
}

// try dials, and closes what came too late.
func try(ctx context.Context, dial func(context.Context) (*quic.Conn, error), results chan<- dialled) {
	conn, err := dial(ctx)
	select {
	case results <- dialled{conn, err}:
	case <-ctx.Done():
		if conn != nil {
			_ = conn.CloseWithError(wire.CloseNormal, "another path was faster")
		}
	}
}

// choose tells the other side that this connection becomes the link. Two that race may
// both be welcomed: without a word the other side could keep the one that this node ends.
func choose(conn *quic.Conn) error {
	s, err := conn.OpenStream()
	if err == nil {
		_, err = s.Write([]byte{streamVersion, streamChosen})
	}
	if err != nil {
		_ = conn.CloseWithError(wire.CloseNormal, "not chosen")
		return err
	}
	return s.Close()
}

// chosen waits until the dialling side has chosen a connection.
func (m *Mesh) chosen(ctx context.Context, conn *quic.Conn) bool {
	ctx, cancel := context.WithTimeout(ctx, dialWithin)
	defer cancel()
	s, err := conn.AcceptStream(ctx)
	if err != nil {
		return false
	}
	deadline, _ := ctx.Deadline()
	_ = s.SetReadDeadline(deadline)
	var header [2]byte
	_, err = io.ReadFull(s, header[:])
	_ = s.Close()
	return err == nil && header == [2]byte{streamVersion, streamChosen}
}

// dialWelcomed waits for the welcome: in TLS 1.3 the dialling side is done
// before the other has looked at its certificate.
func (m *Mesh) dialWelcomed(ctx context.Context, over *quic.Transport, to net.Addr, alpn, node string) (*quic.Conn, error) {
	conn, err := over.Dial(ctx, to, m.dialTLS(alpn, node), dialConfig())
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
