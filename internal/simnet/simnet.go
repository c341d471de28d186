// Package simnet is a packet network for tests in synctest bubbles: nodes are
// given a net.PacketConn each, and the test decides how long packets take,
// which are lost, and who is cut off from whom.
//
// It promises that nothing leaves the bubble, and that packets between two
// addresses keep their order while their latency is the same and there is no
// Jitter. Packets that are under way when a cut begins still arrive. Outcomes
// repeat in story, not bit by bit.
package simnet

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// drain is how long, in the bubble's time, the end of a test waits for timers
// of libraries that have no way to stop them.
const drain = 2 * time.Minute

// Options describe a network. The zero value delivers every packet after 1 ms.
type Options struct {
	// Latency is the time that a packet takes one way.
	Latency func(from, to netip.Addr) time.Duration
	// Line is how much the way from one host to another carries; nil = anything.
	Line func(from, to netip.Addr) Line
	// Loss is the part of the packets that is lost, 0 to 1; short for a Noise.
	Loss float64
	// Ordered are the hosts between which all goes in one stream; nil = none.
	Ordered Ordered
	// Seed decides which packets meet something.
	Seed uint64
}

// Noise is what happens to packets everywhere. Each part of them is 0 to 1.
type Noise struct {
	Loss    float64       // never arrive
	Replay  float64       // arrive a second time, up to a second later
	Corrupt float64       // arrive with one bit turned over
	Jitter  time.Duration // arrive up to this later, so that they overtake each other
	// Most is the size in bytes, without the headers of UDP and IP, above which a packet
	// never arrives; 0 = none.
	Most int
}

// replayWithin bounds how late a packet comes again.
const replayWithin = time.Second

// Net is a network. Its methods are safe for concurrent use.
type Net struct {
	t    testing.TB
	opts Options

	mu    sync.Mutex
	rand  *rand.Rand
	noise Noise
	conns map[netip.AddrPort]*Conn
	cuts  map[path]cut
	busy  map[path]time.Time // until when lines carry what they were given
	lost  int

	carriages map[path]*carriage
}

type path struct{ from, to netip.Addr }

// cut loses all packets, or those in every second period from since on.
type cut struct {
	since  time.Time
	period time.Duration // 0 = all
}

func (c cut) loses(now time.Time) bool {
	return c.period == 0 || now.Sub(c.since)/c.period%2 == 0
}

// New makes a network that lasts until the end of the test. It must be called
// inside of the bubble.
func New(t testing.TB, opts Options) *Net {
	n := &Net{
		t: t, opts: opts, rand: rand.New(rand.NewPCG(opts.Seed, 0)), noise: Noise{Loss: opts.Loss},
		conns: make(map[netip.AddrPort]*Conn), cuts: make(map[path]cut), busy: make(map[path]time.Time), carriages: make(map[path]*carriage),
	}
	if n.opts.Latency == nil {
		n.opts.Latency = func(netip.Addr, netip.Addr) time.Duration { return time.Millisecond }
	}
	t.Cleanup(n.close)
	return n
}

// Cut loses all packets between each host of a and each of b, both ways, until
// Heal. Hosts are IP addresses.
func (n *Net) Cut(a, b []string) {
	n.CutOneWay(a, b)
	n.CutOneWay(b, a)
}

// CutOneWay loses all packets from each host of from to each of to.
func (n *Net) CutOneWay(from, to []string) { n.cut(from, to, cut{}) }

// Flap cuts a from b and heals it again, in turn each for a period, until Heal.
func (n *Net) Flap(a, b []string, period time.Duration) {
	c := cut{time.Now(), period}
	n.cut(a, b, c)
	n.cut(b, a, c)
}

func (n *Net) cut(from, to []string, c cut) {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, f := range from {
		for _, t := range to {
			n.cuts[path{n.host(f), n.host(t)}] = c
		}
	}
}

// Make replaces the noise that there is.
func (n *Net) Make(noise Noise) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.noise = noise
}

func (n *Net) host(addr string) netip.Addr {
	n.t.Helper()
	a, err := netip.ParseAddr(addr)
	if err != nil {
		n.t.Fatalf("simnet: %v", err)
	}
	return a
}

// Heal ends all cuts; noise stays.
func (n *Net) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cuts)
}

// Lost returns how many packets were lost to Loss, to cuts, to full queues and
// for want of a socket at their address.
func (n *Net) Lost() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lost
}

// send sends a packet on its way.
func (n *Net) send(p packet) {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.conns[p.to]
	way, now := path{p.from.addr.Addr(), p.to.Addr()}, time.Now()
	cut, isCut := n.cuts[way]
	gone := c == nil || isCut && cut.loses(now) || n.noise.Most > 0 && len(p.data) > n.noise.Most || !n.enters(way, len(p.data), now)
	if !gone && n.ordered(way) {
		n.carry(way, p, now)
		return
	}
	if gone || n.happens(n.noise.Loss) {
		n.lost++
		return
	}
	if n.happens(n.noise.Corrupt) && len(p.data) > 0 {
		p.data[n.rand.IntN(len(p.data))] ^= 1 << n.rand.IntN(8)
	}
	if n.happens(n.noise.Replay) {
		twin := p
		time.AfterFunc(time.Duration(n.rand.Int64N(int64(replayWithin))), func() { n.again(way, twin) })
	}
	p.arrives = now.Add(n.latency(way))
	c.take(p)
}

// again gives a late packet to whoever has the address now.
func (n *Net) again(way path, p packet) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c := n.conns[p.to]; c != nil {
		p.arrives = time.Now().Add(n.latency(way))
		c.take(p)
	}
}

// happens is called with the lock held. It asks chance only if there is one,
// so that quiet networks of one seed stay alike.
func (n *Net) happens(part float64) bool { return part > 0 && n.rand.Float64() < part }

// latency is how long what enters a way now is on it; n is locked.
func (n *Net) latency(way path) time.Duration {
	late := time.Duration(0)
	if n.noise.Jitter > 0 {
		late = time.Duration(n.rand.Int64N(int64(n.noise.Jitter)))
	}
	return n.leaves(way) + n.opts.Latency(way.from, way.to) + late
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
		_ = c.Close()
	}
}
