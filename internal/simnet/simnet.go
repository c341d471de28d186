// Package simnet is a packet network for tests in synctest bubbles: nodes are
// given a net.PacketConn each, and the test decides how long packets take,
// which are lost, and who is cut off from whom.
//
// It promises that nothing leaves the bubble, and that packets between two
// addresses keep their order while their latency is the same. Packets that are
// under way when a cut begins still arrive. Outcomes repeat in story, not bit
// by bit.
package simnet

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	quicsim "github.com/quic-go/quic-go/testutils/simnet"
)

// drain is how long, in the bubble's time, the end of a test waits for timers
// of libraries that have no way to stop them.
const drain = 2 * time.Minute

// Options describe a network. The zero value delivers every packet after 1 ms.
type Options struct {
	// Latency is the time that a packet takes one way.
	Latency func(from, to netip.Addr) time.Duration
	// Loss is the part of the packets that is lost, 0 to 1.
	Loss float64
	// Seed decides which ones.
	Seed uint64
}

// Net is a network. Its methods are safe for concurrent use.
type Net struct {
	t    testing.TB
	opts Options

	mu    sync.Mutex
	rand  *rand.Rand
	conns map[netip.AddrPort]*Conn
	cuts  map[path]bool
	lost  int
}

type path struct{ from, to netip.Addr }

// New makes a network that lasts until the end of the test. It must be called
// inside of the bubble.
func New(t testing.TB, opts Options) *Net {
	n := &Net{
		t: t, opts: opts, rand: rand.New(rand.NewPCG(opts.Seed, 0)),
		conns: make(map[netip.AddrPort]*Conn), cuts: make(map[path]bool),
	}
	if n.opts.Latency == nil {
		n.opts.Latency = func(netip.Addr, netip.Addr) time.Duration { return time.Millisecond }
	}
	t.Cleanup(n.close)
	return n
}

// Conn is a socket of the network.
type Conn struct {
	*quicsim.SimConn
	net  *Net
	addr netip.AddrPort
	link *quicsim.SimulatedLink
	once sync.Once
}

// Conn opens a socket at an address such as "10.0.0.1:7400". One that is open
// there already is closed, as if its process had died.
func (n *Net) Conn(addr string) *Conn {
	n.t.Helper()
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		n.t.Fatalf("simnet: %v", err)
	}
	n.mu.Lock()
	old := n.conns[at]
	n.mu.Unlock()
	if old != nil {
		old.Close()
	}
	link := &quicsim.SimulatedLink{UploadPacket: n, LatencyFunc: n.latency}
	c := &Conn{SimConn: quicsim.NewBlockingSimConn(net.UDPAddrFromAddrPort(at), link), net: n, addr: at, link: link}
	link.Start()
	n.mu.Lock()
	n.conns[at] = c
	n.mu.Unlock()
	return c
}

// Close closes the socket; packets under way to it are lost.
func (c *Conn) Close() error {
	c.once.Do(func() {
		c.net.mu.Lock()
		if c.net.conns[c.addr] == c {
			delete(c.net.conns, c.addr)
		}
		c.net.mu.Unlock()
		_ = c.SimConn.Close()
		_ = c.link.Close()
	})
	return nil
}

// Cut loses all packets between each host of a and each of b, both ways, until
// Heal. Hosts are IP addresses.
func (n *Net) Cut(a, b []string) {
	n.CutOneWay(a, b)
	n.CutOneWay(b, a)
}

// CutOneWay loses all packets from each host of from to each of to.
func (n *Net) CutOneWay(from, to []string) {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, f := range from {
		for _, t := range to {
			n.cuts[path{n.host(f), n.host(t)}] = true
		}
	}
}

func (n *Net) host(addr string) netip.Addr {
	n.t.Helper()
	a, err := netip.ParseAddr(addr)
	if err != nil {
		n.t.Fatalf("simnet: %v", err)
	}
	return a
}

// Heal ends all cuts.
func (n *Net) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cuts)
}

// Lost returns how many packets were lost to Loss, to cuts and for want of a
// socket at their address.
func (n *Net) Lost() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lost
}

// SendPacket and AddNode make Net the router of quic-go's simulated links.
func (n *Net) SendPacket(p quicsim.Packet) error {
	from, to := addrPort(p.From), addrPort(p.To)
	n.mu.Lock()
	c := n.conns[to]
	if c == nil || n.cuts[path{from.Addr(), to.Addr()}] || n.opts.Loss > 0 && n.rand.Float64() < n.opts.Loss {
		n.lost++
		n.mu.Unlock()
		return nil
	}
	n.mu.Unlock()
	c.link.RecvPacket(p)
	return nil
}

// AddNode does nothing: Conn keeps the sockets.
func (n *Net) AddNode(net.Addr, quicsim.PacketReceiver) {}

func (n *Net) latency(p quicsim.Packet) time.Duration {
	return n.opts.Latency(addrPort(p.From).Addr(), addrPort(p.To).Addr())
}

func addrPort(a net.Addr) netip.AddrPort {
	if u, ok := a.(*net.UDPAddr); ok {
		ap := u.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	ap, _ := netip.ParseAddrPort(a.String())
	return ap
}

// close runs in the bubble, after the test has ended what it started.
func (n *Net) close() {
	<-time.After(drain)
	n.mu.Lock()
	conns := make([]*Conn, 0, len(n.conns))
	for _, c := range n.conns {
		conns = append(conns, c)
	}
	n.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}
