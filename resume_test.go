package starling_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/edge"
	"github.com/starling-im/starling/geo"
	"github.com/starling-im/starling/identity"
)

// noted keeps when a client said what.
type noted struct {
	slog.Handler
	at chan time.Time // of "no session"
}

func (n noted) Enabled(context.Context, slog.Level) bool { return true }

func (n noted) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "no session" {
		n.at <- r.Time
	}
	return nil
}

// A client whose node died has the next event from another node one round trip
// after it has a connection: two after it has noticed. It is resumed, by TLS too:
// nobody is asked for a token.
func TestBackWithinARoundTrip(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "fra", "iad", "sin")
		for _, p := range w.peers {
			w.start(p.ID)
		}
		const room = "~iad/r"
		sender := w.dial("alice", 1)
		_, err := sender.Publish(t.Context(), client.Message{Room: room, Content: "first"})
		ok(t, err)

		tr := &quic.Transport{Conn: w.net.Conn("10.0.0.99:9000")}
		log, tokens, resumed := noted{slog.DiscardHandler, make(chan time.Time, 8)}, 0, false
		bob, err := client.Dial(t.Context(), client.Config{
			Addrs: []string{w.peers[0].Addr, w.peers[1].Addr}, RootCAs: w.roots, ServerName: identity.ServerName("sim"), Log: slog.New(log), Device: "phone",
			Token: func(context.Context) (string, error) {
				tokens++
				return edge.Mint(w.key, edge.Claims{User: "bob", Expires: time.Now().Add(time.Hour)})
			},
			Dial: func(ctx context.Context, addr string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
				c, err := tr.Dial(ctx, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)), tc, qc)
				if err == nil {
					resumed = c.ConnectionState().TLS.DidResume
				}
				return c, err
			},
		})
		ok(t, err)
		f, err := bob.Follow(t.Context(), room, 0)
		ok(t, err)
		_, err = f.Next(t.Context())
		ok(t, err)

		w.kill("fra-1", 0)
		ack, err := sender.Publish(t.Context(), client.Message{Room: room, Content: "second"})
		ok(t, err)
		acked := time.Now()
		lost := <-log.at // as its probe has no answer
		if acked.After(lost) {
			t.Fatal("the event was there later than the client wanted it")
		}
		for e := (client.Event{}); e.Seq < ack.Seq; {
			e, err = f.Next(t.Context())
			ok(t, err)
		}
		rtt, _ := geo.Pops().RTT("fra", "iad")
		t.Logf("the round trip is %v, the event came %v after the node was given up", rtt, time.Since(lost))
		if took := time.Since(lost); took > 2*rtt+rtt/4 {
			t.Errorf("the next event came %v after the node was given up; the round trip is %v", took, rtt)
		}
		synctest.Wait() // the event may have overtaken Welcome
		if node, _ := bob.Node(); node != "iad-1" || tokens != 1 || !resumed {
			t.Errorf("it is at %s; %d tokens were asked for; TLS resumed: %v", node, tokens, resumed)
		}
		ok(t, bob.Close())
		ok(t, sender.Close())
		_ = tr.Close()
		w.stopAll()
	})
}

// A phone on a bad path loses one connection after the other, without a word to the node. The
// next one takes the place of the one before, so that they do not add up.
func TestLostConnectionsDoNotAddUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "fra")
		w.start("fra-1")
		ok(t, w.dial("alice", 0).Close()) // the node lets clients in
		var path net.PacketConn
		dials := 0
		lost := noted{slog.DiscardHandler, make(chan time.Time, 1024)}
		bob, err := client.Dial(t.Context(), client.Config{
			Addrs: []string{w.peers[0].Addr}, RootCAs: w.roots, ServerName: identity.ServerName("sim"), Log: slog.New(lost),
			Token: func(context.Context) (string, error) {
				return edge.Mint(w.key, edge.Claims{User: "bob", Expires: time.Now().Add(time.Hour)})
			},
			Dial: func(ctx context.Context, addr string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
				dials++
				path = w.net.Conn(fmt.Sprintf("10.0.0.99:%d", 9000+dials))
				return (&quic.Transport{Conn: path}).Dial(ctx, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)), tc, qc)
			},
		})
		ok(t, err)
		for range 20 {
			_, err := bob.Publish(t.Context(), client.Message{Room: "~fra/r", Content: "x"})
			ok(t, err)
			_ = path.Close()
			<-lost.at
		}
		_, err = bob.Publish(t.Context(), client.Message{Room: "~fra/r", Content: "x"})
		ok(t, err)
		time.Sleep(time.Second) // what lost its place has had its last words
		if n := w.nodes["fra-1"].node.Stats().Sessions; n != 1 {
			t.Errorf("the node has %d connections of one session", n)
		}
		ok(t, bob.Close())
		w.stopAll()
	})
}

// On the TCP port, too, a client goes on with the TLS session that it has with another node.
func TestTLSResumesOnTCP(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "fra", "iad")
		config := &tls.Config{RootCAs: w.roots, ServerName: identity.ServerName("sim"), ClientSessionCache: tls.NewLRUClientSessionCache(1)}
		for i, p := range w.peers {
			port := newMemoryPort()
			w.before = func(n *starling.Node) { n.ServeHTTP(port) }
			w.start(p.ID)
			near, far := net.Pipe()
			port.conns <- far
			c := tls.Client(near, config)
			_, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n")
			ok(t, err)
			_, err = http.ReadResponse(bufio.NewReader(c), nil)
			ok(t, err)
			if resumed := c.ConnectionState().DidResume; resumed != (i > 0) {
				t.Errorf("%s: resumed %v", p.ID, resumed)
			}
			_ = near.Close()
		}
		w.stopAll()
	})
}

// TestCrowdResumes has more clients come than is usual in a second: who resumes among them
// does so by X25519 alone, and in the protocol that it asks for.
func TestCrowdResumes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "fra")
		port := newMemoryPort()
		w.before = func(n *starling.Node) { n.ServeHTTP(port) }
		w.start(w.peers[0].ID)
		come := func(config *tls.Config, says string) tls.ConnectionState {
			near, far := net.Pipe()
			defer near.Close()
			port.conns <- far
			c := tls.Client(near, config)
			_, err := io.WriteString(c, says)
			ok(t, err)
			_, err = c.Read(make([]byte, 1)) // the ticket comes before
			ok(t, err)
			return c.ConnectionState()
		}
		for protocol, says := range map[string]string{
			"h2":       "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\x00\x00\x00\x04\x00\x00\x00\x00\x00", // and no settings
			"http/1.1": "GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n",
		} {
			config := &tls.Config{RootCAs: w.roots, ServerName: identity.ServerName("sim"), NextProtos: []string{protocol}, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
			time.Sleep(time.Second)
			for visit := range 100 {
				want := tls.X25519MLKEM768
				if visit >= 50 {
					want = tls.X25519
				}
				if s := come(config, says); s.DidResume != (visit > 0) || s.CurveID != want || s.NegotiatedProtocol != protocol {
					t.Fatalf("visit %d: resumed %v, by %v, over %q", visit, s.DidResume, s.CurveID, s.NegotiatedProtocol)
				}
			}
		}
		w.stopAll()
	})
}
