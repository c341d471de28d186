package mesh

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/starling-im/starling/identity"
	"github.com/starling-im/starling/internal/simnet"
	"github.com/starling-im/starling/wire"
)

// greet answers a client on its first stream with the name of the node.
func greet(node string) func(context.Context, *quic.Conn, func(func())) {
	return func(ctx context.Context, c *quic.Conn, _ func(func())) {
		s, err := c.AcceptStream(ctx)
		if err == nil {
			_, _ = io.WriteString(s, node)
			_ = s.Close()
			<-c.Context().Done()
		}
		_ = c.CloseWithError(wire.CloseShuttingDown, "")
	}
}

// visit connects as a client does, and returns who answered.
func visit(t *testing.T, tr *quic.Transport, addr string, conf *tls.Config) (node string, resumed bool) {
	t.Helper()
	to, err := new(resolver).resolve(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	c, err := tr.Dial(t.Context(), to, conf, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.CloseWithError(0, "") }()
	s, err := c.OpenStreamSync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), c.ConnectionState().TLS.DidResume
}

// TestClientResumesElsewhere shows that nodes share the keys of tickets, and
// that one server name is good for all of them.
func TestClientResumesElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, simnet.Options{})
		for id, addr := range map[string]string{"a": addrA, "b": addrB} {
			cfg := w.config(id, addr)
			cfg.Clients = greet(id)
			start(t, cfg)
		}
		synctest.Wait()
		conf := &tls.Config{
			NextProtos: []string{ALPNClient}, ServerName: identity.ServerName(cluster),
			RootCAs: credentials(t, w.ca, "x").Roots, ClientSessionCache: tls.NewLRUClientSessionCache(4),
		}
		tr := &quic.Transport{Conn: w.net.Conn(addrC)}
		t.Cleanup(func() { tr.Close() })
		if node, resumed := visit(t, tr, addrA, conf); node != "a" || resumed {
			t.Errorf("first: %q, resumed %v", node, resumed)
		}
		if node, resumed := visit(t, tr, addrB, conf); node != "b" || !resumed {
			t.Errorf("then: %q, resumed %v", node, resumed)
		}
	})
}

// TestBulkOverWAN moves large frames both ways over a link with a round trip
// of 150 ms: its windows must grow on the side that listens, too.
func TestBulkOverWAN(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 16 * wire.NodeFrame
		w := newWorld(t, simnet.Options{Latency: func(_, _ netip.Addr) time.Duration { return 75 * time.Millisecond }})
		got := make(chan struct{})
		sink := func(m *Mesh) {
			m.Handle(StreamSnapshot, func(_ context.Context, _ string, s *Stream) {
				if n, err := io.Copy(io.Discard, s); err != nil || n != size {
					t.Errorf("got %d bytes, %v", n, err)
				}
				got <- struct{}{}
			})
		}
		a := start(t, w.config("a", addrA), sink)
		b := start(t, w.config("b", addrB, addrA), sink)
		a.wait(10*time.Second, "link", linked("b"))
		b.wait(10*time.Second, "link", linked("a"))
		for _, pair := range []struct{ from, to *node }{{a, b}, {b, a}} {
			s, err := pair.from.Open(t.Context(), pair.to.cfg.Node, StreamSnapshot)
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			for range size / wire.NodeFrame {
				if _, err := s.Write(make([]byte, wire.NodeFrame)); err != nil {
					t.Fatal(err)
				}
			}
			_ = s.Close()
			<-got
			took := time.Since(began)
			t.Logf("%s to %s: %.1f MiB/s", pair.from.cfg.Node, pair.to.cfg.Node, float64(size>>20)/took.Seconds())
			if took > 15*time.Second {
				t.Errorf("%s to %s took %v", pair.from.cfg.Node, pair.to.cfg.Node, took)
			}
		}
	})
}

// TestCloseCutsWrite closes a stream under a write that the peer never reads.
func TestCloseCutsWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, simnet.Options{})
		ended := make(chan error, 1)
		a := start(t, w.config("a", addrA))
		start(t, w.config("b", addrB, addrA), func(m *Mesh) {
			m.Handle(StreamRaft, func(ctx context.Context, node string, s *Stream) {
				<-s.Context().Done() // the peer has stopped reading
				_, err := io.Copy(io.Discard, s)
				ended <- err
			})
		})
		s, err := a.Open(t.Context(), "b", StreamRaft)
		if err != nil {
			t.Fatal(err)
		}
		wrote := make(chan error, 1)
		go func() {
			_, err := s.Write(make([]byte, 8*wire.NodeFrame))
			wrote <- err
		}()
		time.Sleep(time.Second)
		_ = s.Close()
		if err := <-wrote; err == nil {
			t.Error("the write was not cut off")
		}
		if err := <-ended; err == nil {
			t.Error("the peer takes half a message for a whole one")
		}
	})
}

// TestLoopback runs two nodes on real sockets.
func TestLoopback(t *testing.T) {
	var library, hints bytes.Buffer
	standard := log.Writer()
	log.SetOutput(&library)
	t.Cleanup(func() { log.SetOutput(standard) })
	ca := newAuthority(t, cluster)
	var peers []Member
	var configs []Config
	for _, id := range []string{"a", "b"} {
		conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		addr := conn.LocalAddr().String()
		peers = append(peers, Member{ID: id, Region: "eu", Addr: strings.Replace(addr, "127.0.0.1", "localhost", 1)})
		configs = append(configs, Config{
			Node: id, Region: "eu", Cluster: cluster, Advertise: addr, Conn: conn,
			Credentials: credentials(t, ca, id), Secret: gossipKey, GossipKeys: [][]byte{gossipKey}, Clients: greet(id),
		})
	}
	configs[0].Log = slog.New(slog.NewTextHandler(&hints, nil))
	nodes := make(map[string]*node)
	for _, cfg := range configs {
		cfg.Peers = peers
		nodes[cfg.Node] = start(t, cfg, func(m *Mesh) { m.Handle(StreamRaft, echo) })
	}
	a, b := nodes["a"], nodes["b"]
	a.wait(10*time.Second, "link", linked("b"))
	b.wait(10*time.Second, "link", linked("a"))
	s, err := b.Open(t.Context(), "a", StreamRaft)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(s, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	b.shutdown()
	a.wait(time.Second, "b left", is("b", Left))
	a.shutdown()
	if strings.Contains(library.String(), "buffer") {
		t.Errorf("quic-go wrote to the standard log: %s", library.String())
	}
	t.Log(hints.String())
}
