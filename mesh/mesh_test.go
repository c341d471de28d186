package mesh

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/starling-im/starling/internal/simnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	addrA = "10.0.0.1:7400"
	addrB = "10.0.0.2:7400"
	addrC = "10.0.0.3:7400"
)

// wan takes 40 ms one way.
func wan(netip.Addr, netip.Addr) time.Duration { return 40 * time.Millisecond }

// three starts the nodes a, b and c, which know a's address only.
func (w *world) three(prepare ...func(*Mesh)) (a, b, c *node) {
	a = start(w.t, w.config("a", addrA), prepare...)
	b = start(w.t, w.config("b", addrB, addrA), prepare...)
	c = start(w.t, w.config("c", addrC, addrA), prepare...)
	for _, n := range []*node{a, b, c} {
		n.wait(20*time.Second, "three nodes with links", func(v *View) bool {
			for _, m := range v.Members {
				if m.State != Alive || m.ID != n.cfg.Node && !m.Linked {
					return false
				}
			}
			return len(v.Members) == 3
		})
	}
	return a, b, c
}

func TestThreeNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, simnet.Options{Latency: wan})
		a, b, c := w.three(func(m *Mesh) { m.Handle(StreamRelay, echo) })
		a.wait(10*time.Second, "round-trip time of c", func(v *View) bool {
			m, _ := v.Member("c")
			return m.RTT > 70*time.Millisecond && m.RTT < 120*time.Millisecond && m.Version == "v1" && m.Addr == addrC
		})
		// Streams work both ways, whoever dialled the link.
		for _, pair := range []struct{ from, to *node }{{a, b}, {b, a}, {c, a}, {b, c}} {
			s, err := pair.from.Open(t.Context(), pair.to.cfg.Node, StreamRelay)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 5)
			if _, err := io.ReadFull(s, buf); err != nil || string(buf) != "hello" {
				t.Fatalf("%s to %s: %q, %v", pair.from.cfg.Node, pair.to.cfg.Node, buf, err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		// A node that leaves is not one that failed, and everybody knows at once.
		c.shutdown()
		a.wait(time.Second, "c left", is("c", Left))
		b.wait(time.Second, "c left", is("c", Left))
	})
}

func TestOpenWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, simnet.Options{})
		b := start(t, w.config("b", addrB, addrA), func(m *Mesh) { m.Handle(StreamRaft, echo) })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := b.Open(ctx, "a", StreamRaft); !errors.Is(err, ErrNoLink) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("without a peer: %v", err)
		}
		opened := make(chan error, 1)
		go func() {
			_, err := b.Open(t.Context(), "a", StreamRaft)
			opened <- err
		}()
		start(t, w.config("a", addrA, addrB), func(m *Mesh) { m.Handle(StreamRaft, echo) })
		if err := <-opened; err != nil {
			t.Fatal(err)
		}
	})
}

func TestPartition(t *testing.T) {
	for _, length := range []time.Duration{30 * time.Second, 10 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, simnet.Options{Latency: wan})
			a, b, c := w.three()
			w.net.Cut([]string{"10.0.0.1", "10.0.0.2"}, []string{"10.0.0.3"})
			began := time.Now()
			a.wait(time.Minute, "c failed", is("c", Failed))
			b.wait(time.Minute, "c failed", is("c", Failed))
			c.wait(time.Minute, "a failed", is("a", Failed))
			c.wait(time.Minute, "b failed", is("b", Failed))
			t.Logf("noticed after %v", time.Since(began))
			time.Sleep(length)
			w.net.Heal()
			began = time.Now()
			a.wait(time.Minute, "c alive", linked("b", "c"))
			b.wait(time.Minute, "c alive", linked("a", "c"))
			c.wait(time.Minute, "all alive", linked("a", "b"))
			t.Logf("healed after %v", time.Since(began))
		})
	}
}

func TestRestartElsewhere(t *testing.T) {
	for _, id := range []string{"a", "c"} { // the side that dials, and the one that waits
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, simnet.Options{})
			a, b, c := w.three(func(m *Mesh) { m.Handle(StreamRelay, echo) })
			map[string]*node{"a": a, "c": c}[id].kill()
			n := start(t, w.config(id, "10.0.0.9:7400", addrB), func(m *Mesh) { m.Handle(StreamRelay, echo) })
			began := time.Now()
			b.wait(20*time.Second, "known at the new address", func(v *View) bool {
				m, _ := v.Member(id)
				// The link to the old address goes only when there is one to the new.
				l := b.table.to(id)
				return m.Addr == "10.0.0.9:7400" && m.State == Alive && l != nil && l.conn.RemoteAddr().String() == m.Addr
			})
			t.Logf("%s known again after %v", id, time.Since(began))
			n.wait(20*time.Second, "links", linked("b"))
			s, err := b.Open(t.Context(), id, StreamRelay)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestForgedAddress has gossip tell lies about where a node is: an address
// where nobody is, and one where another node answers. The link stays.
func TestForgedAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, simnet.Options{})
		a, _, _ := w.three()
		before := a.table.to("c")
		lie := uint64(time.Now().UnixNano())
		for _, addr := range []string{"10.0.0.66:7400", addrB} {
			lie++
			a.table.alive("c", meta{instance: lie, region: "eu", addr: addr}, true)
			time.Sleep(time.Minute)
			if m, _ := a.View().Member("c"); m.Addr != addr {
				t.Fatalf("c is believed to be at %s", m.Addr)
			}
			if a.table.to("c") != before || before.conn.Context().Err() != nil {
				t.Fatalf("the link to c was given up for one at %s", addr)
			}
		}
		a.waitRefused(time.Second, ErrOtherNode)
		// The truth again, and then the end of the link: it comes back.
		a.table.alive("c", meta{instance: lie + 1, region: "eu", addr: addrC}, true)
		_ = before.conn.CloseWithError(0, "")
		a.wait(10*time.Second, "a new link", func(v *View) bool {
			l := a.table.to("c")
			return l != nil && l != before
		})
	})
}

// TestNewStartsNothing ends without Run: a goroutine that is left would be
// found by the bubble.
func TestNewStartsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, simnet.Options{})
		cfg := w.config("a", addrA, addrB)
		synctest.Wait()
		before := runtime.NumGoroutine()
		if _, err := New(cfg); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if after := runtime.NumGoroutine(); after > before {
			t.Errorf("%d goroutines, %d before", after, before)
		}
	})
}

func TestStaticPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, simnet.Options{})
		peers := []Member{{ID: "a", Region: "eu", Addr: addrA}, {ID: "b", Region: "us", Addr: addrB}}
		cfg := w.config("a", addrA)
		cfg.Peers = peers
		a := start(t, cfg)
		if m, ok := a.View().Member("b"); !ok || m.State != Unknown || m.Region != "us" {
			t.Fatalf("b at first: %+v", m)
		}
		time.Sleep(time.Minute)
		cfg = w.config("b", addrB)
		cfg.Peers = peers
		b := start(t, cfg)
		a.wait(10*time.Second, "b", linked("b"))
		b.wait(10*time.Second, "a", linked("a"))
	})
}

func TestLossyNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, simnet.Options{Latency: wan, Loss: 0.05, Seed: 7})
		a, b, c := w.three()
		time.Sleep(2 * time.Minute)
		a.wait(20*time.Second, "all alive", linked("b", "c"))
		b.wait(20*time.Second, "all alive", linked("a", "c"))
		c.wait(20*time.Second, "all alive", linked("a", "b"))
	})
}
