package mesh

import (
	"crypto/tls"
	"slices"
)

// TCPProtocols are the application protocols (ALPN) of nodes over TLS on TCP. Connections
// that ask for another one are not the mesh's.
var TCPProtocols = []string{alpnCarrier, alpnEnroll, alpnProbe}

// TCPConfig is GetConfigForClient of crypto/tls for the TCP port. It returns nil for a
// caller who asks for none of TCPProtocols.
func (m *Mesh) TCPConfig(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	switch {
	case slices.Contains(hello.SupportedProtos, alpnCarrier):
		return m.nodesTLS(alpnCarrier), nil
	case slices.Contains(hello.SupportedProtos, alpnEnroll) && m.cfg.Enroll != nil:
		return m.enrollTLS(), nil
	case slices.Contains(hello.SupportedProtos, alpnProbe):
		return m.strangersTLS(alpnProbe), nil
	}
	return nil, nil
}

// ServeTCP serves a connection of one of TCPProtocols until it ends, and closes it.
func (m *Mesh) ServeTCP(conn *tls.Conn) {
	switch conn.ConnectionState().NegotiatedProtocol {
	case alpnEnroll:
		m.serveEnrollTCP(conn)
	case alpnProbe:
		m.serveProbeTCP(conn)
	default:
		m.serveCarrier(conn)
	}
}
