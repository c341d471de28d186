package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/starling-im/starling/wire"
)

// A quicNode serves a world over QUIC on loopback.
type quicNode struct {
	addr      string
	socket    *net.UDPConn
	transport *quic.Transport
	work      sync.WaitGroup
}

func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

func (w *world) listen(cert tls.Certificate) *quicNode {
	w.t.Helper()
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		w.t.Fatal(err)
	}
	n := &quicNode{addr: socket.LocalAddr().String(), socket: socket, transport: &quic.Transport{Conn: socket}}
	l, err := n.transport.Listen(&tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{protocol}}, &quic.Config{})
	if err != nil {
		w.t.Fatal(err)
	}
	n.work.Go(func() {
		for {
			q, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			n.work.Go(func() { w.serveQUIC(n.addr, q) })
		}
	})
	w.t.Cleanup(n.kill)
	return n
}

func (w *world) serveQUIC(addr string, q *quic.Conn) {
	commands, err := q.AcceptStream(context.Background())
	if err != nil {
		return
	}
	events, err := q.OpenUniStream()
	if err != nil {
		w.t.Error(err)
		return
	}
	w.mu.Lock()
	s := w.session(addr, commands, events, func() { _ = q.CloseWithError(wire.CloseShuttingDown, "") })
	w.mu.Unlock()
	s.serve()
}

// kill ends the node without a word, as kill -9 does.
func (n *quicNode) kill() {
	_ = n.socket.Close()
	_ = n.transport.Close()
	n.work.Wait()
}

// A client finds the node that lives, follows and sends, and goes on with
// another node soon after its own was killed.
func TestQUIC(t *testing.T) {
	cert, roots := certificate(t)
	w := newWorld(t)
	dead, a, b := w.listen(cert), w.listen(cert), w.listen(cert)
	dead.kill()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	start := time.Now()
	c, err := Dial(ctx, Config{Addrs: []string{dead.addr, a.addr, b.addr}, Token: token, RootCAs: roots})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if took := time.Since(start); took > dialWithin/2 {
		t.Errorf("a dead node cost %v", took)
	}
	f := follow(t, c, 0)
	if _, err := c.Publish(ctx, Message{Room: "r", Content: "1"}); err != nil {
		t.Fatal(err)
	}
	next(t, f, 1, 1)
	start = time.Now()
	a.kill()
	if _, err := c.Publish(ctx, Message{Room: "r", Content: "2"}); err != nil {
		t.Fatal(err)
	}
	next(t, f, 2, 2)
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("a killed node cost %v", took)
	}
	if node, _ := c.Node(); node != b.addr {
		t.Errorf("the node is %s", node)
	}
}

func TestQUICStranger(t *testing.T) {
	cert, _ := certificate(t)
	_, roots := certificate(t)
	w := newWorld(t)
	n := w.listen(cert)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	start := time.Now()
	c, err := Dial(ctx, Config{Addrs: []string{n.addr}, Token: token, RootCAs: roots})
	if err == nil {
		c.Close()
	}
	if !badCertificate(err) || time.Since(start) > 5*time.Second {
		t.Errorf("Dial = %v after %v", err, time.Since(start))
	}
}
