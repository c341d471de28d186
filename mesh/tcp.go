package mesh

import (
	"crypto/tls"
	"slices"
)

// TCPProtocols are the application protocols (ALPN) of nodes over TLS on TCP. Connections
// that ask for another one are not the mesh's.
var TCPProtocols = []string{alpnCarrier, alpnEnroll}

// TCPConfig is GetConfigForClient of crypto/tls for the TCP port. It returns nil for a
// caller who asks for none of TCPProtocols.
func (m *Mesh) TCPConfig(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	switch {
	case slices.Contains(hello.SupportedProtos, alpnCarrier):
		return m.nodesTLS(alpnCarrier), nil
	case slices.Contains(hello.SupportedProtos, alpnEnroll) && m.cfg.Enroll != nil:
		return m.enrollTLS(), nil
	}
	return nil, nil
}

// ServeTCP serves a connection of one of TCPProtocols until it ends, and closes it.
func (m *Mesh) ServeTCP(conn *tls.Conn) {
	if conn.ConnectionState().NegotiatedProtocol == alpnEnroll {
		m.serveEnrollTCP(conn)
		return
	}
	m.serveCarrier(conn)
}
