package mesh

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/starling-im/starling/identity"
	"github.com/starling-im/starling/wire"
)

const (
	// enrollBytes bounds a question to become a node, and its answer.
	enrollBytes = 256 << 10
	// enrollWithin bounds the time that one may take.
	enrollWithin = 8 * time.Second
)

// withRoot is the certificate of this node with all above it, for one who has a pin of
// the root and nothing else.
func (m *Mesh) withRoot() *tls.Certificate {
	cert := *m.cert.Load()
	cert.Certificate = append(slices.Clone(cert.Certificate), m.cfg.Credentials.Root.Raw)
	return &cert
}

// serveEnroll answers one question.
func (m *Mesh) serveEnroll(ctx context.Context, conn *quic.Conn) {
	ctx, cancel := context.WithTimeout(ctx, enrollWithin)
	defer cancel()
	s, err := conn.AcceptStream(ctx)
	if err == nil {
		deadline, _ := ctx.Deadline()
		_ = s.SetDeadline(deadline)
		var request []byte
		if request, err = readAll(s); err == nil {
			_, err = s.Write(m.cfg.Enroll(ctx, conn.RemoteAddr(), request))
			_ = s.Close()
		}
	}
	if err != nil {
		m.log.Debug("a question to become a node went unanswered", "remote", conn.RemoteAddr().String(), "err", err)
		_ = conn.CloseWithError(wire.CloseProtocol, "")
		return
	}
	select { // the asker closes, once it has the answer
	case <-conn.Context().Done():
	case <-ctx.Done():
	}
	_ = conn.CloseWithError(wire.CloseNormal, "")
}

func readAll(s *quic.Stream) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(s, enrollBytes+1))
	if err == nil && len(b) > enrollBytes {
		err = wire.TooLarge("a question to become a node", 0, enrollBytes)
	}
	return b, err
}

// Enroll asks a node of a cluster, of which nothing is known but the name and a pin
// of its root, to become one of its nodes. It proves that the answer comes from a node
// of that cluster; identity.ErrPin says that it does not.
func Enroll(ctx context.Context, conn net.PacketConn, addr, cluster string, pin identity.Pin, request []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, enrollWithin)
	defer cancel()
	to, err := new(resolver).resolve(ctx, addr)
	if err != nil {
		return nil, err
	}
	transport := &quic.Transport{Conn: conn}
	defer transport.Close()
	c, err := transport.Dial(ctx, to, &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{alpnEnroll}, ServerName: identity.ServerName(cluster),
		InsecureSkipVerify: true, // VerifyConnection does, under the pinned root
		VerifyConnection: func(s tls.ConnectionState) error {
			_, err := identity.Verify(s.PeerCertificates, cluster, pin, time.Now())
			return err
		},
	}, dialConfig())
	if err != nil {
		return nil, fmt.Errorf("mesh: %s: %w", addr, refusal(err))
	}
	defer c.CloseWithError(wire.CloseNormal, "")
	s, err := c.OpenStreamSync(ctx)
	if err != nil {
		return nil, fmt.Errorf("mesh: %s: %w", addr, err)
	}
	deadline, _ := ctx.Deadline()
	_ = s.SetDeadline(deadline)
	if _, err := s.Write(request); err != nil {
		return nil, fmt.Errorf("mesh: %s: %w", addr, err)
	}
	_ = s.Close()
	answer, err := readAll(s)
	if err != nil {
		return nil, fmt.Errorf("mesh: %s: %w", addr, err)
	}
	return answer, nil
}
