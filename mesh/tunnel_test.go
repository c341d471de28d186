package mesh

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling/internal/simnet"
)

const (
	addrBox1 = "10.0.1.1:7400"
	addrBox2 = "10.0.1.2:7400"
)

// boxes are three nodes in the open and two boxes that cannot be dialled: firewalls in
// front of them let only answers in, which the network of the test does by cutting the
// boxes from each other, and from all nodes but those they may dial.
func (w *world) boxes(mayDial ...string) (open [3]*node, box [2]*node) {
	w.net.Cut([]string{"10.0.1.1"}, []string{"10.0.1.2"})
	for i, addr := range []string{addrA, addrB, addrC} {
		if len(mayDial) > 0 && !bytes.Contains([]byte(mayDial[0]), []byte{"abc"[i]}) {
			w.net.Cut([]string{"10.0.1.1", "10.0.1.2"}, []string{addr[:len("10.0.0.1")]})
		}
		open[i] = start(w.t, w.config(string("abc"[i]), addr, addrA), echoes)
	}
	for i, addr := range []string{addrBox1, addrBox2} {
		cfg := w.config("box-"+string("12"[i]), addr, addrA)
		cfg.Outbound = true
		box[i] = start(w.t, cfg, echoes)
	}
	return open, box
}

func echoes(m *Mesh) { m.Handle(StreamRelay, echo) }

// says makes sure that a stream goes from one node to another, within a time.
func (n *node) says(to string, within time.Duration) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	s, err := n.Open(ctx, to, StreamRelay)
	if err != nil {
		n.t.Fatalf("%s to %s: %v", n.cfg.Node, to, err)
	}
	defer s.Close()
	_ = s.SetReadDeadline(time.Now().Add(within))
	if _, err := s.Write([]byte("hello")); err != nil {
		n.t.Fatalf("%s to %s: %v", n.cfg.Node, to, err)
	}
	if _, err := io.ReadFull(s, make([]byte, 5)); err != nil {
		n.t.Fatalf("%s to %s: %v", n.cfg.Node, to, err)
	}
}

// TestBoxes has two nodes that nobody can dial: they have links to all, to each other
// through their parents, and stay alive for gossip; one parent dies and nothing ends.
func TestBoxes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, simnet.Options{})
		open, box := w.boxes()
		for _, n := range append(open[:], box[:]...) {
			var others []string
			for _, id := range []string{"a", "b", "c", "box-1", "box-2"} {
				if id != n.cfg.Node {
					others = append(others, id)
				}
			}
			n.wait(20*time.Second, "all linked", linked(others...))
		}
		open[2].says("box-1", time.Second)
		box[0].says("box-2", time.Second)
		box[0].wait(5*time.Second, "box-2 behind its parents", func(v *View) bool {
			m, _ := v.Member("box-2")
			return m.Outbound && len(m.Parents) == 3 && m.Path != PathUDP && m.Path != PathTCP
		})
		time.Sleep(5 * time.Minute) // nobody is taken for dead
		box[0].wait(0, "all there", linked("a", "b", "c", "box-2"))
		open[1].wait(0, "all there", linked("a", "c", "box-1", "box-2"))

		before := box[0].table.to("box-2")
		for _, parent := range open[:2] {
			parent.kill()
			began := time.Now()
			box[0].says("box-2", 3*time.Second)
			t.Logf("a parent dies: heard after %v", time.Since(began))
		}
		if box[0].table.to("box-2") != before {
			t.Error("the link of the boxes was made anew")
		}
	})
}

// TestFewParents has boxes that may dial two nodes only: the third is reached through those.
func TestFewParents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, simnet.Options{})
		open, box := w.boxes("ab")
		box[0].wait(30*time.Second, "all linked", linked("a", "b", "c", "box-2"))
		open[2].wait(30*time.Second, "all linked", linked("a", "b", "box-1", "box-2"))
		open[2].says("box-2", time.Second)
		box[1].says("c", time.Second)
		time.Sleep(5 * time.Minute)
		open[2].wait(0, "all there", linked("a", "b", "box-1", "box-2"))
		box[1].wait(0, "all there", linked("a", "b", "c", "box-1"))
	})
}

// overTCP lets a node serve and dial carriers, over connections in memory.
type overTCP struct {
	nodes map[string]*node
	mu    sync.Mutex
	conns []*mutable
}

func (o *overTCP) config(cfg Config) Config {
	cfg.DialTCP = o.dial
	return cfg
}

func (o *overTCP) dial(_ context.Context, addr string) (net.Conn, error) {
	o.mu.Lock()
	to := o.nodes[addr]
	o.mu.Unlock()
	if to == nil {
		return nil, io.ErrClosedPipe
	}
	near, far := net.Pipe()
	here, there := &mutable{Conn: near}, &mutable{Conn: far}
	o.mu.Lock()
	o.conns = append(o.conns, here, there)
	o.mu.Unlock()
	go func() {
		c := tls.Server(there, &tls.Config{GetConfigForClient: to.TCPConfig})
		_ = c.Handshake()
		to.ServeTCP(c)
	}()
	return here, nil
}

// pairOverTCP starts two nodes with carriers; b finds a.
func (w *world) pairOverTCP() (a, b *node, tcp *overTCP) {
	tcp = &overTCP{nodes: make(map[string]*node)}
	a = start(w.t, tcp.config(w.config("a", addrA)), echoes)
	tcp.add(addrA, a)
	b = start(w.t, tcp.config(w.config("b", addrB, addrA)), echoes)
	tcp.add(addrB, b)
	return a, b, tcp
}

// TestUDPDropped loses all packets between two nodes for good: their link goes on over
// TCP within seconds, and over UDP again when that is back.
func TestUDPDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, simnet.Options{})
		a, b, tcp := w.pairOverTCP()
		a.wait(5*time.Second, "linked", linked("b"))
		on := func(path string) func(*View) bool {
			return func(v *View) bool { m, _ := v.Member("b"); return m.Path == path }
		}
		w.net.Cut([]string{"10.0.0.1"}, []string{"10.0.0.2"})
		began := time.Now()
		s, err := a.Open(t.Context(), "b", StreamRelay)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = s.Write([]byte("hello")) // so that there is something to be heard
		a.wait(10*time.Second, "over TCP", on(PathTCP))
		t.Logf("over TCP after %v", time.Since(began))
		b.says("a", time.Second)
		if p, err := ProbeTCP(t.Context(), tcp.dial, addrA); err != nil || p.Node != "a" || p.Region != "eu" || p.Cluster != cluster || p.Clock.Abs() > p.RTT {
			t.Errorf("a probe by TCP: %+v, %v", p, err)
		}
		if p, err := ProbeUDP(t.Context(), w.net.Conn("10.0.0.2:9"), addrA); err == nil {
			t.Errorf("a probe by UDP: %+v", p)
		}
		if p, err := ProbeUDP(t.Context(), w.net.Conn("10.0.0.9:9"), addrA); err != nil || p.Node != "a" || p.Seen != "10.0.0.9:9" || p.RTT != 2*time.Millisecond || p.Clock != 0 {
			t.Errorf("a probe by UDP: %+v, %v", p, err)
		}
		time.Sleep(5 * time.Minute)
		a.wait(0, "alive over TCP", linked("b"))
		b.wait(0, "alive over TCP", linked("a"))
		w.net.Heal()
		a.wait(2*straightEvery, "over UDP again", on(PathUDP))
		a.says("b", time.Second)
		b.shutdown()
		a.wait(5*time.Second, "b left", is("b", Left))
	})
}

// TestMuteCarrier has TCP say nothing any more, without an end: the carrier is given up,
// and the link comes back over another one.
func TestMuteCarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, simnet.Options{})
		w.net.Cut([]string{"10.0.0.1"}, []string{"10.0.0.2"})
		a, _, tcp := w.pairOverTCP()
		a.wait(20*time.Second, "linked", linked("b"))
		a.says("b", time.Second)
		link := a.table.to("b")
		tcp.mute()
		a.wait(2*muteFor+dialWithin, "linked by another link", func(*View) bool {
			l := a.table.to("b")
			return l != nil && l != link
		})
		a.says("b", time.Second)
	})
}

func (o *overTCP) add(addr string, n *node) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.nodes[addr] = n
}

// mute has all connections of now deliver nothing any more.
func (o *overTCP) mute() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range o.conns {
		c.mute.Store(true)
	}
}

// mutable is a connection that can become mute.
type mutable struct {
	net.Conn
	mute atomic.Bool
}

func (c *mutable) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 4242} }

func (c *mutable) Write(b []byte) (int, error) {
	if c.mute.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// TestRefusedInTunnel has a box come over its parents to a node that does not let it in
// any more: that is told with its reason, as where it comes by itself.
func TestRefusedInTunnel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, simnet.Options{})
		open, box := w.boxes("ab")
		box[0].wait(30*time.Second, "all linked", linked("a", "b", "c"))
		c := open[2]
		c.Admit(Admission{Revoked: map[string]bool{"box-1": true}})
		c.mu.Lock()
		c.refused = nil // the link that there was
		c.mu.Unlock()
		c.waitRefused(20*time.Second, ErrRevoked)
	})
}

// TestCarriersOfBothSides has two nodes dial a carrier to each other at one moment, as
// seeds of each other do: neither is given up while the other side sends over it.
func TestCarriersOfBothSides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, simnet.Options{})
		w.net.Cut([]string{"10.0.0.1"}, []string{"10.0.0.2"})
		tcp := &overTCP{nodes: make(map[string]*node)}
		slowly := func(cfg Config) Config {
			cfg.DialTCP = func(ctx context.Context, addr string) (net.Conn, error) {
				time.Sleep(10 * time.Millisecond)
				return tcp.dial(ctx, addr)
			}
			return cfg
		}
		a := start(t, slowly(w.config("a", addrA, addrB)), echoes)
		b := start(t, slowly(w.config("b", addrB, addrA)), echoes)
		tcp.add(addrA, a)
		tcp.add(addrB, b)
		a.wait(20*time.Second, "linked", linked("b"))
		link, carriers := a.table.to("b"), len(a.tunnels.carriers())
		time.Sleep(5 * time.Minute)
		if a.table.to("b") != link {
			t.Errorf("the link was made anew, over %d carriers at first", carriers)
		}
	})
}

// TestLinkEndsWhileUDPIsTried has a link over TCP end just while its node looks whether
// UDP works again: it is dialled anew at once.
func TestLinkEndsWhileUDPIsTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, simnet.Options{})
		w.net.Cut([]string{"10.0.0.1"}, []string{"10.0.0.2"})
		a, b, _ := w.pairOverTCP()
		a.wait(20*time.Second, "linked", linked("b"))
		time.Sleep(straightEvery + lookEvery/2)
		_ = b.table.to("a").conn.CloseWithError(closeMoved, "")
		a.wait(time.Second, "its end", func(v *View) bool { m, _ := v.Member("b"); return !m.Linked })
		a.wait(2*tcpAfter, "linked again", linked("b"))
	})
}
