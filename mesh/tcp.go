package mesh

import (
	"crypto/tls"
	"crypto/x509"
	"net"
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
		return m.carrierTLS(hello.Conn.RemoteAddr()), nil
	case slices.Contains(hello.SupportedProtos, alpnEnroll) && m.cfg.Enroll != nil:
		return m.enrollTLS(), nil
	case slices.Contains(hello.SupportedProtos, alpnProbe):
		return m.strangersTLS(alpnProbe), nil
	}
	return nil, nil
}

// carrierTLS is nodesTLS for one caller, who is refused with a word: over TCP there is
// nobody else to say it.
func (m *Mesh) carrierTLS(remote net.Addr) *tls.Config {
	config := m.nodesTLS(alpnCarrier)
	config.ClientAuth = tls.RequestClientCert // and here it is verified
	config.VerifyConnection = func(s tls.ConnectionState) error {
		err := m.verifyChain(s)
		if err != nil {
			m.refuse(remote, err)
		}
		return err
	}
	return config
}

// verifyChain does what crypto/tls does for RequireAndVerifyClientCert, and verify.
func (m *Mesh) verifyChain(s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 0 {
		return ErrNoCertificate
	}
	between := x509.NewCertPool()
	for _, c := range s.PeerCertificates[1:] {
		between.AddCert(c)
	}
	var err error
	s.VerifiedChains, err = s.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: m.cfg.Credentials.Roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return refusal(err)
	}
	return m.verify(s, "")
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
