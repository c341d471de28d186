package edge

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/starling-im/starling/wire"
)

// deaf is a socket from which nothing comes once it is deaf.
type deaf struct {
	net.PacketConn
	now    atomic.Bool
	closed chan struct{}
}

func (d *deaf) ReadFrom(p []byte) (int, net.Addr, error) {
	if d.now.Load() {
		<-d.closed
		return 0, nil, net.ErrClosed
	}
	return d.PacketConn.ReadFrom(p)
}

func (d *deaf) SetReadBuffer(int) error  { return nil }
func (d *deaf) SetWriteBuffer(int) error { return nil }

func udp(t *testing.T) net.PacketConn {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A peer lends a window of 1 GiB and acknowledges nothing. What a stream of events takes
// for it without waiting is bounded all the same.
func TestGiantWindowIsNotFilled(t *testing.T) {
	_, secret, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"node"}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, secret.Public(), secret)
	if err != nil {
		t.Fatal(err)
	}
	node := &quic.Transport{Conn: udp(t)}
	defer node.Conn.Close()
	defer node.Close()
	l, err := node.Listen(&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: secret}}, NextProtos: []string{"im/1"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ears := &deaf{PacketConn: udp(t), closed: make(chan struct{})}
	peer := &quic.Transport{Conn: ears}
	defer peer.Close()
	defer ears.Close()
	defer close(ears.closed)
	const window = 1 << 30
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dialled := make(chan error, 1)
	go func() {
		_, err := peer.Dial(ctx, node.Conn.LocalAddr(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"im/1"}}, &quic.Config{
			InitialStreamReceiveWindow: window, MaxStreamReceiveWindow: window,
			InitialConnectionReceiveWindow: window, MaxConnectionReceiveWindow: window,
		})
		dialled <- err
	}()
	conn, err := l.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-dialled; err != nil {
		t.Fatal(err)
	}
	s, err := quicLine(conn).events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ears.now.Store(true)
	took, sent := 0, make(chan error, 1)
	for frame := make([]byte, wire.Headroom+1000); ; took += 1000 {
		done, err := s.(*quicEvents).Send(frame, func(err error) { sent <- err })
		if err != nil {
			t.Fatal(err)
		}
		if !done {
			break
		}
		if took > 4*lentMost {
			t.Fatalf("%d bytes were taken without waiting", took)
		}
	}
	if took > lentMost {
		t.Errorf("%d bytes were taken without waiting", took)
	}
	_ = conn.CloseWithError(0, "")
	<-sent
}
