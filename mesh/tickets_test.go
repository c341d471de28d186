package mesh

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/starling-im/starling/identity"
	"github.com/starling-im/starling/internal/simnet"
)

// handshake makes a TLS connection over a pipe, and reports whether it goes on with
// an earlier session.
func handshake(t *testing.T, server, client *tls.Config) bool {
	t.Helper()
	return connect(t, server, client).DidResume
}

func connect(t *testing.T, server, client *tls.Config) tls.ConnectionState {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	go func() {
		c := tls.Server(far, server)
		_, _ = c.Write([]byte("x"))
		_ = c.Close()
	}()
	c := tls.Client(near, client)
	if _, err := c.Read(make([]byte, 1)); err != nil { // the ticket comes before
		t.Fatal(err)
	}
	return c.ConnectionState()
}

// Who comes back in a crowd goes on with a session that was made with ML-KEM without making
// it again; who comes the first time, or does not know X25519 alone, makes all of it.
func TestCrowdTLS(t *testing.T) {
	config := &tls.Config{Certificates: []tls.Certificate{credentials(t, newAuthority(t, cluster), "a").Cert}}
	m := &Mesh{tickets: tickets{secret: []byte("secret")}}
	crowd := m.ResumeTLS(config)
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if Resumes(hello) {
			return crowd, nil
		}
		return nil, nil
	}
	visitor := &tls.Config{InsecureSkipVerify: true, ServerName: "x", ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	for i, want := range []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.X25519} {
		if s := connect(t, config, visitor); s.DidResume != (i > 0) || s.CurveID != want {
			t.Errorf("visit %d: resumed %v, by %v", i, s.DidResume, s.CurveID)
		}
	}
	visitor.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	foreign := &tls.Config{Certificates: config.Certificates}
	(&tickets{secret: []byte("another secret")}).use(foreign)
	connect(t, foreign, visitor)
	near, far := net.Pipe()
	go func() { _ = tls.Server(far, config).Handshake(); _ = far.Close() }()
	if err := tls.Client(near, visitor).Handshake(); err == nil {
		t.Error("who has a ticket that is not good came in without ML-KEM")
	}
	for i, want := range []tls.CurveID{tls.X25519MLKEM768, tls.X25519} {
		if s := connect(t, config, visitor); s.DidResume != (i > 0) || s.CurveID != want {
			t.Errorf("visit %d after that: resumed %v, by %v", i, s.DidResume, s.CurveID)
		}
	}
	visitor.CurvePreferences = []tls.CurveID{tls.X25519MLKEM768}
	if s := connect(t, config, visitor); s.CurveID != tls.X25519MLKEM768 {
		t.Errorf("without X25519: by %v", s.CurveID)
	}
}

// Tickets are good at each node of the cluster, for a day at least and two at most,
// also where a clock is ahead; net/http clones the config, and that must not matter.
func TestTickets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cert := credentials(t, newAuthority(t, cluster), "a").Cert
		serverOf := func(secret string) *tls.Config {
			c := &tls.Config{Certificates: []tls.Certificate{cert}}
			(&tickets{secret: []byte(secret)}).use(c)
			return c.Clone()
		}
		one, two, foreign := serverOf("secret"), serverOf("secret"), serverOf("another secret")
		visitor := func() *tls.Config {
			return &tls.Config{InsecureSkipVerify: true, ServerName: "x", ClientSessionCache: tls.NewLRUClientSessionCache(1)}
		}
		for _, c := range []struct {
			name    string
			to      *tls.Config
			after   time.Duration
			resumes bool
		}{
			{"another node", two, 0, true},
			{"a day later", two, 24*time.Hour - time.Minute, true},
			{"two days later", two, 48*time.Hour + time.Minute, false},
			{"another cluster", foreign, 0, false},
		} {
			client := visitor()
			if handshake(t, one, client) {
				t.Errorf("%s: the first visit was not the first", c.name)
			}
			time.Sleep(c.after)
			if got := handshake(t, c.to, client); got != c.resumes {
				t.Errorf("%s: resumed %v", c.name, got)
			}
		}
		ahead := &tickets{secret: []byte("secret"), day: time.Now().Unix()/86400 + 1}
		ahead.keys.SetSessionTicketKeys([][32]byte{derive(ahead.secret, "session ticket "+time.Now().UTC().AddDate(0, 0, 1).Format(time.DateOnly))})
		early := &tls.Config{Certificates: []tls.Certificate{cert}, WrapSession: ahead.keys.EncryptTicket}
		client := visitor()
		handshake(t, early, client)
		if !handshake(t, one, client) {
			t.Error("a ticket of a node whose clock is ahead was not good")
		}
	})
}

// A client of a node that was killed and started again learns of it within a round
// trip of its next packet; and no other node can be made to say so.
func TestResetFromTheAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rtt = 150 * time.Millisecond
		w := newWorld(t, simnet.Options{Latency: func(_, _ netip.Addr) time.Duration { return rtt / 2 }})
		cfg := w.config("a", addrA)
		cfg.Clients = greet("a")
		a := start(t, cfg)
		synctest.Wait()
		tr := &quic.Transport{Conn: w.net.Conn(addrC)}
		t.Cleanup(func() { tr.Close() })
		c, err := tr.Dial(t.Context(), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addrA)), &tls.Config{
			NextProtos: []string{ALPNClient}, ServerName: identity.ServerName(cluster), RootCAs: credentials(t, w.ca, "x").Roots,
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		s, err := c.OpenStreamSync(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * rtt)
		a.kill()
		cfg.Conn = w.net.Conn(addrA)
		start(t, cfg)
		synctest.Wait()
		began := time.Now()
		if _, err := s.Write(make([]byte, 64)); err != nil {
			t.Fatal(err)
		}
		<-c.Context().Done()
		var reset *quic.StatelessResetError
		if took := time.Since(began); !errors.As(context.Cause(c.Context()), &reset) || took > rtt {
			t.Errorf("after %v: %v", took, context.Cause(c.Context()))
		}
		other := w.config("b", addrB)
		if *other.resetKey() == *cfg.resetKey() {
			t.Error("another address has the same key")
		}
	})
}

// A client whose address one node has seen need not prove it to another that is crowded.
func TestAddressIsProvedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rtt = 100 * time.Millisecond
		w := newWorld(t, simnet.Options{Latency: func(_, _ netip.Addr) time.Duration { return rtt / 2 }})
		nodes := map[string]*node{}
		for id, addr := range map[string]string{"a": addrA, "b": addrB} {
			cfg := w.config(id, addr)
			cfg.Clients = greet(id)
			nodes[id] = start(t, cfg)
		}
		synctest.Wait()
		for range handshakesFromRetry {
			nodes["b"].handshakes.begin(net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addrC)), func(netip.AddrPort) bool { return false })
		}
		conf := &tls.Config{NextProtos: []string{ALPNClient}, ServerName: identity.ServerName(cluster), RootCAs: credentials(t, w.ca, "x").Roots}
		tr := &quic.Transport{Conn: w.net.Conn(addrC)}
		t.Cleanup(func() { tr.Close() })
		proofs := quic.NewLRUTokenStore(1, 4)
		dial := func(addr string) time.Duration {
			began := time.Now()
			c, err := tr.Dial(t.Context(), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)), conf, &quic.Config{TokenStore: proofs})
			if err != nil {
				t.Fatal(err)
			}
			took := time.Since(began)
			time.Sleep(2 * rtt)
			_ = c.CloseWithError(0, "")
			return took
		}
		if took := dial(addrB); took < 2*rtt {
			t.Errorf("the address was not to be proved: the handshake took %v", took)
		}
		proofs = quic.NewLRUTokenStore(1, 4)
		dial(addrA)
		if took := dial(addrB); took >= 2*rtt {
			t.Errorf("the address was to be proved again: the handshake took %v", took)
		}
	})
}
