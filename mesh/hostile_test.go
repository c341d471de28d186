package mesh

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/starling-im/starling/identity"
	"github.com/starling-im/starling/internal/simnet"
)

// handmade is signed by the authority. Without a URI it is a client's: it names no
// node.
func handmade(t *testing.T, ca *identity.Authority, uris ...*url.URL) *tls.Certificate {
	t.Helper()
	text, err := ca.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	authority, err := tls.X509KeyPair(ca.PEM(), text)
	if err != nil {
		t.Fatal(err)
	}
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "b"}, DNSNames: []string{"b", identity.ServerName(cluster)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, URIs: uris,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, authority.Leaf, key.Public(), authority.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der, authority.Certificate[0]}, PrivateKey: key}
}

// knock dials a protocol of nodes with a certificate, and returns what comes of it.
func knock(t *testing.T, w *world, from, to, alpn string, cert *tls.Certificate) (*quic.Conn, error) {
	t.Helper()
	tr := &quic.Transport{Conn: w.net.Conn(from)}
	t.Cleanup(func() { tr.Close() })
	conf := &tls.Config{NextProtos: []string{alpn}, ServerName: identity.ServerName(cluster), RootCAs: credentials(t, w.ca, "x").Roots}
	if cert != nil {
		// Also one that the server did not ask for.
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	addr, err := new(resolver).resolve(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := tr.Dial(t.Context(), addr, conf, dialConfig())
	if err != nil {
		return nil, refusal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := conn.AcceptUniStream(ctx); err != nil {
		return nil, refusal(err)
	}
	return conn, nil
}

func TestHostilePeers(t *testing.T) {
	issue := func(t *testing.T, ca *identity.Authority, node string) *tls.Certificate {
		id := credentials(t, ca, node)
		return &id.Cert
	}
	cases := []struct {
		name string
		alpn string
		cert func(t *testing.T, w *world) *tls.Certificate
		ours error // as the node reports it
		hers error // as the peer learns it
	}{
		{"no certificate", ALPNLink, func(*testing.T, *world) *tls.Certificate { return nil }, ErrNoCertificate, ErrNoCertificate},
		{"no certificate, joining", alpnJoin, func(*testing.T, *world) *tls.Certificate { return nil }, ErrNoCertificate, ErrNoCertificate},
		{"other CA", ALPNLink, func(t *testing.T, w *world) *tls.Certificate {
			return issue(t, newAuthority(t, cluster), "b")
		}, ErrForeignCertificate, ErrForeignCertificate},
		{"other cluster under the same root", ALPNLink, func(t *testing.T, w *world) *tls.Certificate {
			return handmade(t, w.ca, &url.URL{Scheme: "spiffe", Host: "other", Path: "/node/b"})
		}, ErrOtherCluster, ErrRefused},
		{"client's", ALPNLink, func(t *testing.T, w *world) *tls.Certificate {
			return handmade(t, w.ca)
		}, ErrNotNode, ErrRefused},
		{"client's, joining", alpnJoin, func(t *testing.T, w *world) *tls.Certificate {
			return handmade(t, w.ca)
		}, ErrNotNode, ErrRefused},
		{"this node's own id", ALPNLink, func(t *testing.T, w *world) *tls.Certificate { return issue(t, w.ca, "m") }, ErrSameNode, ErrRefused},
		{"the side that waits", ALPNLink, func(t *testing.T, w *world) *tls.Certificate { return issue(t, w.ca, "z") }, ErrNotDialler, ErrNotDialler},
		{"expired", ALPNLink, func(t *testing.T, w *world) *tls.Certificate {
			cert := credentialsAt(t, w.ca, "b", time.Now().Add(-2*identity.NodeLife)).Cert
			return &cert
		}, ErrExpired, ErrExpired},
		{"no region", ALPNLink, func(t *testing.T, w *world) *tls.Certificate {
			return handmade(t, w.ca, &url.URL{Scheme: "spiffe", Host: cluster, Path: "/node/b"})
		}, ErrOtherRegion, ErrRefused},
		{"revoked", ALPNLink, func(t *testing.T, w *world) *tls.Certificate { return issue(t, w.ca, "bad") }, ErrRevoked, ErrRefused},
		{"of nobody whom the cluster knows", ALPNLink, func(t *testing.T, w *world) *tls.Certificate { return issue(t, w.ca, "c") }, ErrNotMember, ErrRefused},
		{"the id of a node with another key", ALPNLink, func(t *testing.T, w *world) *tls.Certificate { return issue(t, w.ca, "d") }, ErrOtherKey, ErrRefused},
		{"good", ALPNLink, func(t *testing.T, w *world) *tls.Certificate { return issue(t, w.ca, "b") }, nil, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, simnet.Options{})
				n := start(t, w.config("m", addrA))
				n.Admit(Admission{
					Nodes: map[string]Admitted{
						"b": {Region: "eu"}, "bad": {Region: "eu"}, "z": {Region: "eu"},
						"d": {Region: "eu", Key: credentials(t, w.ca, "d").Cert.Leaf.PublicKey.(*ecdsa.PublicKey)},
					},
					Revoked: map[string]bool{"bad": true},
				})
				synctest.Wait()
				if c.ours != nil && c.alpn == ALPNLink && c.ours != ErrNotDialler {
					n.refusesCarrier(c.cert(t, w), c.ours)
				}
				_, err := knock(t, w, addrB, addrA, c.alpn, c.cert(t, w))
				if !errors.Is(err, c.hers) {
					t.Errorf("the peer learns %v, not %v", err, c.hers)
				}
				if c.ours != nil {
					n.waitRefused(time.Second, c.ours)
				}
				if m, ok := n.View().Member("b"); c.ours != nil && ok {
					t.Errorf("the view has %+v", m)
				}
				if got := n.inHandshake(); got != 0 {
					t.Errorf("%d handshakes in progress", got)
				}
			})
		})
	}
}

// refusesCarrier makes sure that one comes over TCP no further than over UDP.
func (n *node) refusesCarrier(cert *tls.Certificate, ours error) {
	n.t.Helper()
	here, there := net.Pipe()
	defer here.Close()
	served := make(chan error, 1)
	go func() {
		c := tls.Server(there, &tls.Config{GetConfigForClient: n.TCPConfig})
		served <- c.Handshake()
		_ = c.Close()
	}()
	conf := &tls.Config{NextProtos: []string{alpnCarrier}, InsecureSkipVerify: true}
	if cert != nil {
		conf.Certificates = []tls.Certificate{*cert}
	}
	go func() { _, _ = io.Copy(io.Discard, tls.Client(here, conf)) }()
	if err := <-served; !errors.Is(err, ours) {
		n.t.Errorf("a carrier gets %v, not %v", err, ours)
	}
	n.waitRefused(time.Second, ours)
	n.mu.Lock()
	n.refused = nil
	n.mu.Unlock()
}

// TestHostileSeed has a node dial what is not of its cluster.
func TestHostileSeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, simnet.Options{})
		cfg := w.config("b", addrB)
		cfg.Credentials = credentials(t, newAuthority(t, cluster), "b")
		b := start(t, cfg)
		a := start(t, w.config("a", addrA, addrB))
		a.waitRefused(10*time.Second, ErrForeignCertificate)
		// It expected c there, but b answers.
		cfg = w.config("c", addrC)
		cfg.Peers = []Member{{ID: "x", Addr: "10.0.0.4:7400"}}
		c := start(t, cfg)
		start(t, w.config("y", "10.0.0.4:7400"))
		c.waitRefused(10*time.Second, ErrOtherNode)
		for _, n := range []*node{a, b} {
			if v := n.View(); len(v.Members) != 1 {
				t.Errorf("%s sees %+v", n.cfg.Node, v.Members)
			}
		}
	})
}

// TestSilentSeed joins at a node that never answers; the mesh still ends in time.
func TestSilentSeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, simnet.Options{})
		ident := credentials(t, w.ca, "b")
		tr := &quic.Transport{Conn: w.net.Conn(addrB)}
		t.Cleanup(func() { tr.Close() })
		l, err := tr.Listen(&tls.Config{
			NextProtos: []string{ALPNLink, alpnJoin}, Certificates: []tls.Certificate{ident.Cert}, ClientAuth: tls.RequireAnyClientCert,
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		a := start(t, w.config("a", addrA, addrB))
		conn, err := l.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := sendWelcome(conn); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.AcceptStream(t.Context()); err != nil {
			t.Fatal(err)
		}
		a.shutdown()
		<-conn.Context().Done()
	})
}

func TestWrongGossipKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, simnet.Options{})
		a := start(t, w.config("a", addrA))
		cfg := w.config("b", addrB, addrA)
		cfg.GossipKeys = [][]byte{[]byte("another key, of thirty-two bytes")}
		b := start(t, cfg)
		a.waitRefused(10*time.Second, ErrGossipKey)
		b.waitRefused(10*time.Second, ErrGossipKey)
		if m, _ := a.View().Member("b"); m.State == Alive {
			t.Errorf("a holds b for alive: %+v", m)
		}
		// Garbage on the socket that is no QUIC is gossip with a wrong key, too.
		junk := w.net.Conn(addrC)
		to, _ := new(resolver).resolve(t.Context(), addrA)
		if _, err := junk.WriteTo(make([]byte, 100), to); err != nil {
			t.Fatal(err)
		}
		if _, err := junk.WriteTo([]byte{1}, to); err != nil {
			t.Fatal(err)
		}
	})
}

func TestHostileStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, simnet.Options{})
		a := start(t, w.config("a", addrA))
		start(t, w.config("b", addrB, addrA))
		a.wait(10*time.Second, "link", linked("b"))
		for _, c := range []struct {
			header []byte
			want   error
		}{
			{[]byte{streamVersion, 99}, ErrUnknownKind},
			{[]byte{streamVersion, 0}, ErrUnknownKind},
			{[]byte{0, StreamGossip}, ErrUnknownKind},
			{[]byte{streamVersion + 1, StreamGossip}, ErrNewerVersion},
			{[]byte{streamVersion}, context.DeadlineExceeded}, // says too little: given up, the link lives
		} {
			qs, err := a.table.to("b").conn.OpenStreamSync(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			s := &Stream{s: qs}
			if _, err := s.Write(c.header); err != nil {
				t.Fatal(err)
			}
			_, err = s.Read(make([]byte, 1))
			var reset *quic.StreamError
			if !errors.Is(err, c.want) && !(errors.Is(c.want, context.DeadlineExceeded) && errors.As(err, &reset)) {
				t.Errorf("header %v: %v, not %v", c.header, err, c.want)
			}
		}
		if v := a.View(); !linked("b")(v) {
			t.Errorf("the link is gone: %+v", v.Members)
		}
	})
}

func TestTwoProcessesWithOneID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, simnet.Options{})
		a, b, c := w.three()
		start(t, w.config("c", "10.0.0.9:7400", addrB))
		c.waitRefused(10*time.Second, ErrSameNode)
		time.Sleep(time.Minute)
		for _, n := range []*node{a, b} {
			if m, _ := n.View().Member("c"); m.Addr != "10.0.0.9:7400" {
				t.Errorf("%s sees c at %s, not where it started last", n.cfg.Node, m.Addr)
			}
		}
	})
}

func TestBadConfig(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, simnet.Options{})
		for _, c := range []struct {
			change func(*Config)
			want   error
		}{
			{func(c *Config) { c.Node = "a/b" }, ErrBadName},
			{func(c *Config) { c.Cluster = "" }, ErrBadName},
			{func(c *Config) { c.Node = "b" }, ErrOtherNode},
			{func(c *Config) { c.Cluster = "other" }, ErrOtherCluster},
			{func(c *Config) { c.Secret = c.Secret[:16] }, ErrGossipKey},
			{func(c *Config) { c.Credentials.Cert = tls.Certificate{} }, ErrNoCertificate},
			{func(c *Config) { c.Peers = []Member{{ID: "x:1"}} }, ErrBadName},
		} {
			cfg := w.config("a", addrA)
			c.change(&cfg)
			if _, err := New(cfg); !errors.Is(err, c.want) {
				t.Errorf("%v, not %v", err, c.want)
			}
		}
	})
}
