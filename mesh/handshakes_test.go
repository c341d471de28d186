package mesh

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/starling-im/starling/identity"
	"github.com/starling-im/starling/internal/simnet"
)

func TestOrigin(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.1":        "192.0.2.1/32",
		"127.0.0.1":        "127.0.0.1/32",
		"::ffff:192.0.2.1": "192.0.2.1/32",
		"2001:db8:1:2::3":  "2001:db8:1:2::/64",
		"::1":              "::/64",
	} {
		if got := origin(&net.UDPAddr{IP: net.ParseIP(addr), Port: 9}).String(); got != want {
			t.Errorf("origin of %s is %s, not %s", addr, got, want)
		}
	}
	if got := origin(addressed("x")); got.IsValid() {
		t.Errorf("origin of a name is %v", got)
	}
	m := &Mesh{table: newTable(Member{ID: "a"}, []Member{{ID: "b", Addr: "not-resolved.example:1"}})}
	if m.isPeer(addrPort(nodeAddr("x"))) {
		t.Error("what comes through tunnels is taken for a member whose name is not resolved")
	}
}

// TestHandshakesFromOneAddress fills what one address may have in progress:
// other addresses and a known peer at the same one are still let in, and
// connections do not count.
func TestHandshakesFromOneAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, simnet.Options{})
		cfg := w.config("m", addrA)
		cfg.Clients = greet("m")
		cfg.Peers = []Member{{ID: "c", Addr: addrC}}
		n := start(t, cfg)
		synctest.Wait()
		to, _ := new(resolver).resolve(t.Context(), addrA)
		conf := &tls.Config{NextProtos: []string{ALPNClient}, ServerName: identity.ServerName(cluster), RootCAs: credentials(t, w.ca, "x").Roots}
		dial := func(from string, conf *tls.Config) func(context.Context) error {
			tr := &quic.Transport{Conn: w.net.Conn(from)}
			t.Cleanup(func() { tr.Close() })
			return func(ctx context.Context) error {
				_, err := tr.Dial(ctx, to, conf, dialConfig())
				return err
			}
		}
		arrived, proceed := make(chan struct{}), make(chan struct{})
		slow := conf.Clone()
		slow.VerifyConnection = func(tls.ConnectionState) error {
			arrived <- struct{}{}
			<-proceed
			return nil
		}
		dialSlow := dial("10.0.0.3:1", slow)
		done := make(chan error, handshakesFrom)
		for range handshakesFrom {
			go func() { done <- dialSlow(t.Context()) }()
			<-arrived
		}
		if got := n.inHandshake(); got != handshakesFrom {
			t.Fatalf("%d handshakes in progress", got)
		}
		var refused *quic.TransportError
		if err := dial("10.0.0.3:2", conf)(t.Context()); !errors.As(err, &refused) || refused.ErrorCode != quic.ConnectionRefused {
			t.Errorf("one too many: %v", err)
		}
		if s := n.Stats(); s.RefusedByLimit == 0 || s.Handshakes != handshakesFrom {
			t.Errorf("counted: %+v", s)
		}
		for _, from := range []string{addrB, addrC} {
			if err := dial(from, conf)(t.Context()); err != nil {
				t.Errorf("from %s: %v", from, err)
			}
		}
		close(proceed)
		for range handshakesFrom {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		tr := &quic.Transport{Conn: w.net.Conn("10.0.0.3:3")}
		t.Cleanup(func() { tr.Close() })
		if node, _ := visit(t, tr, addrA, conf); node != "m" { // while there are as many connections
			t.Errorf("%q answers", node)
		}
		time.Sleep(time.Second) // a client is done before the node is, and its last packet may be lost
		synctest.Wait()
		if got := n.inHandshake(); got != 0 {
			t.Errorf("%d handshakes in progress at the end", got)
		}
	})
}

// TestStrangersWithQuestions has one address connect again and again to ask something
// without a certificate, and not ask: it is bounded as if it did not end its handshakes.
func TestStrangersWithQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, simnet.Options{})
		cfg := w.config("m", addrA)
		cfg.Enroll = func(context.Context, net.Addr, []byte) []byte { return nil }
		n := start(t, cfg)
		synctest.Wait()
		to, _ := new(resolver).resolve(t.Context(), addrA)
		tr := &quic.Transport{Conn: w.net.Conn("10.0.0.3:1")}
		t.Cleanup(func() { tr.Close() })
		enroll := probeTLS()
		enroll.NextProtos = []string{alpnEnroll}
		for i := range handshakesFrom {
			if _, err := tr.Dial(t.Context(), to, []*tls.Config{probeTLS(), enroll}[i%2], dialConfig()); err != nil {
				t.Fatal(err)
			}
		}
		var refused *quic.TransportError
		if _, err := tr.Dial(t.Context(), to, probeTLS(), dialConfig()); !errors.As(err, &refused) || refused.ErrorCode != quic.ConnectionRefused {
			t.Errorf("one too many: %v", err)
		}
		if _, err := ProbeUDP(t.Context(), w.net.Conn("10.0.0.4:1"), addrA); err != nil {
			t.Errorf("from another address: %v", err)
		}
		time.Sleep(enrollWithin)
		synctest.Wait()
		if got := n.inHandshake(); got != 0 {
			t.Errorf("%d count when their time is over", got)
		}
	})
}
