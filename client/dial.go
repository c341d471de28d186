package client

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/starling-im/starling/wire"
)

// protocol is the ALPN name of what clients speak.
const protocol = "im/1"

// A conn is a connection to a node, as far as a session needs it.
type conn struct {
	commands Stream
	events   func(context.Context) (EventStream, error)
	// datagrams waits for a frame that may have been lost; nil = there are none.
	datagrams func(context.Context) ([]byte, error)
	close     func() // ends everything of the connection, and waits for it
}

// tls is how a node proves who it is.
func (c Config) tls(addr, alpn string) *tls.Config {
	name := c.ServerName
	if name == "" {
		name, _, _ = net.SplitHostPort(addr)
	}
	return &tls.Config{RootCAs: c.RootCAs, ServerName: name, NextProtos: []string{alpn}, MinVersion: tls.VersionTLS13, ClientSessionCache: c.tickets}
}

// connect is the dialer of real clients.
func (c Config) connect(ctx context.Context, addr string) (*conn, error) {
	if c.Transport == WebSocket {
		return c.connectWebSocket(ctx, addr)
	}
	return c.connectQUIC(ctx, addr)
}

// connectQUIC makes a QUIC connection with the stream of commands opened.
func (c Config) connectQUIC(ctx context.Context, addr string) (*conn, error) {
	dial := c.Dial
	release := func() {}
	if dial == nil {
		socket, err := openSocket(ctx, addr)
		if err != nil {
			return nil, err
		}
		t := &quic.Transport{Conn: socket}
		release = func() { _ = t.Close(); _ = socket.Close() }
		dial = func(ctx context.Context, _ string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
			return t.Dial(ctx, socket.RemoteAddr(), tc, qc)
		}
	}
	q, err := dial(ctx, addr, c.tls(addr, protocol), &quic.Config{
		HandshakeIdleTimeout: dialLonger, KeepAlivePeriod: keepAlive, MaxIdleTimeout: idle,
		MaxIncomingStreams: -1, MaxIncomingUniStreams: 4, TokenStore: c.proofs,
		EnableDatagrams:         true, // for what a node says of who types
		DisablePathMTUDiscovery: true, // a path whose MTU shrinks later would go mute
	})
	if err != nil {
		release()
		return nil, err
	}
	closeAll := func() {
		_ = q.CloseWithError(wire.CloseNormal, "")
		release()
	}
	commands, err := q.OpenStreamSync(ctx)
	if err != nil {
		closeAll()
		return nil, err
	}
	events := func(ctx context.Context) (EventStream, error) { return q.AcceptUniStream(ctx) }
	return &conn{commands: commands, events: events, datagrams: q.ReceiveDatagram, close: closeAll}, nil
}

// closedWith returns the code with which the peer closed the connection.
func closedWith(err error) (code uint64, ok bool) {
	var app *quic.ApplicationError
	if errors.As(err, &app) && app.Remote {
		return uint64(app.ErrorCode), true
	}
	var goodbye *webSocketClosed
	if errors.As(err, &goodbye) {
		return goodbye.code, true
	}
	return 0, false
}

// badCertificate reports whether a node could not prove who it is.
func badCertificate(err error) bool {
	var bad *tls.CertificateVerificationError
	return errors.As(err, &bad)
}

// A socket is a UDP socket that is connected to one node, so that the system
// reports when nobody listens there: a node that was killed is noticed at
// once. It has few methods on purpose: with more, quic-go would ask for
// buffers of a size that most systems refuse, and log that.
type socket struct{ udp *net.UDPConn }

func openSocket(ctx context.Context, addr string) (*socket, error) {
	c, err := new(net.Dialer).DialContext(ctx, "udp", addr)
	if err != nil {
		return nil, err
	}
	return &socket{c.(*net.UDPConn)}, nil
}

func (s *socket) ReadFrom(p []byte) (int, net.Addr, error) {
	n, err := s.udp.Read(p)
	return n, s.udp.RemoteAddr(), err
}

func (s *socket) WriteTo(p []byte, _ net.Addr) (int, error) {
	n, err := s.udp.Write(p)
	if errors.Is(err, syscall.ENOBUFS) {
		return len(p), nil // as good as lost on the way
	}
	return n, err
}

func (s *socket) Close() error                       { return s.udp.Close() }
func (s *socket) LocalAddr() net.Addr                { return s.udp.LocalAddr() }
func (s *socket) RemoteAddr() net.Addr               { return s.udp.RemoteAddr() }
func (s *socket) SetDeadline(t time.Time) error      { return s.udp.SetDeadline(t) }
func (s *socket) SetReadDeadline(t time.Time) error  { return s.udp.SetReadDeadline(t) }
func (s *socket) SetWriteDeadline(t time.Time) error { return s.udp.SetWriteDeadline(t) }

// SetReadBuffer and SetWriteBuffer take what the system gives.
func (s *socket) SetReadBuffer(n int) error  { _ = s.udp.SetReadBuffer(n); return nil }
func (s *socket) SetWriteBuffer(n int) error { _ = s.udp.SetWriteBuffer(n); return nil }
