package mesh

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/starling-im/starling/identity"
)

// The application protocols (ALPN) on the socket.
const (
	ALPNClient = "im/1"   // clients
	ALPNLink   = "mesh/1" // the one link of a pair of nodes
	// alpnJoin is a short connection to an address whose node is not known yet;
	// it carries gossip only, and so cannot be mistaken for a link.
	alpnJoin = "join/1"
	// alpnOutbound is a link that is dialled by a node that cannot be dialled.
	alpnOutbound = "mesh-outbound/1"
	// alpnEnroll is one question of somebody without a certificate: to become a
	// node. The answer comes with the root, which the asker has a pin of.
	alpnEnroll = "enroll/1"
)

// linkALPN is the protocol of the links that this node dials.
func (m *Mesh) linkALPN() string {
	if m.cfg.Outbound {
		return alpnOutbound
	}
	return ALPNLink
}

// isNodes reports whether a caller asks for a protocol of nodes.
func isNodes(hello *tls.ClientHelloInfo) bool {
	return slices.ContainsFunc(hello.SupportedProtos, func(p string) bool {
		return p == ALPNLink || p == alpnOutbound || p == alpnJoin
	})
}

// derive makes a key for one purpose from the secret of the cluster. All nodes
// have the same, so that a client resumes at another node.
func derive(secret []byte, purpose string) [32]byte {
	key, err := hkdf.Key(sha256.New, secret, nil, "starling "+purpose, 32)
	if err != nil {
		panic(err) // only for a length that SHA-256 cannot give
	}
	return [32]byte(key)
}

// resetKey is of the tokens by which a peer learns at once, from whoever has the address
// now, that the process it spoke to is gone. Each address has its own: a node must not
// be made to end the connections of another one, by packets that are sent to it instead
// (RFC 9000, section 21.11).
func (c Config) resetKey() *quic.StatelessResetKey {
	key := quic.StatelessResetKey(derive(c.Secret, "stateless reset of "+c.Advertise))
	return &key
}

// newTransport puts QUIC on the socket.
func (m *Mesh) newTransport() *quic.Transport {
	// quic-go logs a warning about small socket buffers on its own; hintBuffers
	// says the same through slog. This switch is the only one that it has.
	os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	token := quic.TokenGeneratorKey(derive(m.cfg.Secret, "address token"))
	return &quic.Transport{
		Conn:                m.cfg.Conn,
		ConnectionIDLength:  8,
		StatelessResetKey:   m.cfg.resetKey(),
		TokenGeneratorKey:   &token,
		VerifySourceAddress: m.handshakes.crowded,
		ConnContext:         m.beginHandshake,
	}
}

// listenTLS chooses by ALPN what a caller must show: a client nothing, a node
// a certificate that names it, under the cluster's root.
func (m *Mesh) listenTLS() *tls.Config {
	clients := m.strangersTLS(ALPNClient)
	m.tickets.use(clients)
	enroll, probe := m.enrollTLS(), m.strangersTLS(alpnProbe)
	nodes := m.nodesTLS(ALPNLink, alpnOutbound, alpnJoin)
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			switch {
			case slices.Contains(hello.SupportedProtos, alpnEnroll) && m.cfg.Enroll != nil:
				return enroll, nil
			case slices.Contains(hello.SupportedProtos, alpnProbe):
				return probe, nil
			case !isNodes(hello):
				return clients, nil
			}
			if a, ok := hello.Context().Value(attemptKey{}).(*attempt); ok {
				m.mu.Lock()
				a.node = true
				m.mu.Unlock()
			}
			return nodes, nil
		},
	}
}

// strangersTLS asks a caller for nothing.
func (m *Mesh) strangersTLS(protocol string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{protocol},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return m.cert.Load(), nil },
	}
}

// enrollTLS shows somebody who has a pin of the root what it is of.
func (m *Mesh) enrollTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{alpnEnroll}, SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return m.withRoot(), nil },
	}
}

// nodesTLS asks a caller for the certificate of a node of the cluster.
func (m *Mesh) nodesTLS(protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             protocols,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return m.cert.Load(), nil },
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              m.cfg.Credentials.Roots,
		SessionTicketsDisabled: true, // each link proves anew who is there
		VerifyConnection:       func(s tls.ConnectionState) error { return m.verify(s, "") },
	}
}

// dialTLS is for a connection to a node, or to any if node is empty.
func (m *Mesh) dialTLS(alpn, node string) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{alpn},
		GetClientCertificate:   func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return m.cert.Load(), nil },
		RootCAs:                m.cfg.Credentials.Roots,
		ServerName:             identity.ServerName(m.cfg.Cluster),
		SessionTicketsDisabled: true,
		VerifyConnection:       func(s tls.ConnectionState) error { return m.verify(s, node) },
	}
}

// verify checks whom the certificate of a peer names, after crypto/tls has
// checked who signed it.
func (m *Mesh) verify(s tls.ConnectionState, expected string) error {
	if len(s.VerifiedChains) == 0 {
		return ErrNoCertificate
	}
	name, err := identity.OfChain(s.VerifiedChains[0], m.cfg.Cluster)
	switch {
	case err != nil:
		return err
	case name.Node == m.cfg.Node:
		return fmt.Errorf("%w: %s", ErrSameNode, name.Node)
	case expected != "" && name.Node != expected:
		return fmt.Errorf("%w: %s instead of %s", ErrOtherNode, name.Node, expected)
	}
	return m.admitted.Load().check(name, s.PeerCertificates[0].PublicKey)
}

// asksAsStranger reports whether a connection is for one question without a certificate.
// It counts as a handshake until it ends, for nothing else bounds how many there are.
func asksAsStranger(conn *quic.Conn) bool {
	protocol := conn.ConnectionState().TLS.NegotiatedProtocol
	return protocol == alpnEnroll || protocol == alpnProbe
}

// accept hands connections to whoever serves their protocol.
func (m *Mesh) accept(ctx context.Context, listener *quic.Listener) {
	for {
		conn, err := listener.Accept(ctx)
		if err != nil {
			return
		}
		if a, ok := conn.Context().Value(attemptKey{}).(*attempt); ok && !asksAsStranger(conn) {
			m.endHandshake(a, nil)
		}
		m.wg.Go(func() { m.serve(ctx, conn) })
	}
}

// refuse tells of a peer that was refused, in the log at most once a second.
func (m *Mesh) refuse(remote net.Addr, err error) {
	if m.cfg.Refused != nil {
		m.cfg.Refused(remote, err)
	}
	m.meter.peers.Add(1)
	m.mu.Lock()
	m.refusals++
	count, now := m.refusals, time.Now()
	quiet := now.Sub(m.refusalLogged) < time.Second
	if !quiet {
		m.refusals, m.refusalLogged = 0, now
	}
	m.mu.Unlock()
	if !quiet {
		m.log.Warn("audit: refused a peer", "remote", remote.String(), "reason", err, "since_last_line", count)
	}
}
