package mesh

import (
	"context"
	"crypto/tls"
	"errors"
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
	// enrollBytes bounds a question to become a node, which a stranger asks: a token and
	// a signing request. enrolledBytes bounds the answer, which has the directory in it, and
	// may have come over a link.
	enrollBytes   = 16 << 10
	enrolledBytes = wire.NodeFrame
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
		if request, err = readAll(s, enrollBytes); err == nil {
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

// readAll reads a question to become a node, or the answer, of so many bytes at most.
func readAll(s io.Reader, most int) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(s, int64(most)+1))
	if err == nil && len(b) > most {
		err = wire.TooLarge("what is said to become a node", 0, uint64(most))
	}
	return b, err
}

// serveEnrollTCP answers one that came by TCP.
func (m *Mesh) serveEnrollTCP(conn *tls.Conn) {
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), enrollWithin)
	defer cancel()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	request, err := readAll(conn, enrollBytes)
	if err == nil {
		_, err = conn.Write(m.cfg.Enroll(ctx, conn.RemoteAddr(), request))
	}
	if err != nil {
		m.log.Debug("a question to become a node went unanswered", "remote", conn.RemoteAddr().String(), "err", err)
	}
}

// Question is one to become a node of a cluster, of which nothing is known but the name
// and a pin of its root.
type Question struct {
	Addr, Cluster string
	Pin           identity.Pin
	Request       []byte
	// Conn is a socket to ask over, nil = not over UDP; DialTCP connects where UDP does
	// not get through, nil = not by TCP.
	Conn    net.PacketConn
	DialTCP func(ctx context.Context, addr string) (net.Conn, error)
}

// enrollUDP is how long UDP may take before TCP is tried. They do not run together: a
// token must not be used twice.
const enrollUDP = 2 * time.Second

// Enroll asks. It proves that the answer comes from a node of that cluster;
// identity.ErrPin says that it does not.
func Enroll(ctx context.Context, q Question) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, enrollWithin)
	defer cancel()
	answer, asked, err := q.overUDP(ctx)
	if err != nil && !asked && q.DialTCP != nil && !errors.Is(err, identity.ErrPin) && !isRefusal(refusal(err)) {
		var tcpErr error
		if answer, tcpErr = q.overTCP(ctx); tcpErr == nil {
			return answer, nil
		}
		err = errors.Join(err, fmt.Errorf("by TCP: %w", tcpErr))
	}
	if err != nil {
		return nil, fmt.Errorf("mesh: %s: %w", q.Addr, refusal(err))
	}
	return answer, nil
}

func (q Question) tls() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{alpnEnroll}, ServerName: identity.ServerName(q.Cluster),
		InsecureSkipVerify: true, // VerifyConnection does, under the pinned root
		VerifyConnection: func(s tls.ConnectionState) error {
			_, err := identity.Verify(s.PeerCertificates, q.Cluster, q.Pin, time.Now())
			return err
		},
	}
}

// overUDP also says whether the question may have been heard.
func (q Question) overUDP(ctx context.Context) (answer []byte, asked bool, err error) {
	if q.Conn == nil {
		return nil, false, errors.New("not by UDP")
	}
	to, err := new(resolver).resolve(ctx, q.Addr)
	if err != nil {
		return nil, false, err
	}
	transport := &quic.Transport{Conn: q.Conn}
	defer transport.Close()
	dialling, cancel := context.WithTimeout(ctx, enrollUDP)
	defer cancel()
	c, err := transport.Dial(dialling, to, q.tls(), dialConfig())
	if err != nil {
		return nil, false, err
	}
	defer c.CloseWithError(wire.CloseNormal, "")
	s, err := c.OpenStreamSync(ctx)
	if err != nil {
		return nil, false, err
	}
	deadline, _ := ctx.Deadline()
	_ = s.SetDeadline(deadline)
	if _, err := s.Write(q.Request); err != nil {
		return nil, true, err
	}
	_ = s.Close()
	answer, err = readAll(s, enrolledBytes)
	return answer, true, err
}

func (q Question) overTCP(ctx context.Context) ([]byte, error) {
	raw, err := q.DialTCP(ctx, q.Addr)
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	deadline, _ := ctx.Deadline()
	_ = raw.SetDeadline(deadline)
	c := tls.Client(raw, q.tls())
	if _, err := c.Write(q.Request); err != nil {
		return nil, err
	}
	if err := c.CloseWrite(); err != nil {
		return nil, err
	}
	return readAll(c, enrolledBytes)
}
