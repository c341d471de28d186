package mesh

import (
	"compress/gzip"
	"encoding/csv"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/starling-im/starling/geo"
)

// cities are places with the round trips between them, and how much those vary.
type cities struct {
	names    []string
	rtt, dev map[[2]string]time.Duration
}

// theCities are the 240 of net/net_wonder_rtt.csv.gz in the folder STARLING_DATA, or
// the regions of package geo, whose round trips vary here by a twentieth.
func theCities(t testing.TB) *cities {
	t.Helper()
	c := &cities{rtt: make(map[[2]string]time.Duration), dev: make(map[[2]string]time.Duration)}
	folder := os.Getenv("STARLING_DATA")
	if folder == "" {
		table := geo.Pops()
		c.names = table.Regions()
		for _, a := range c.names {
			for _, b := range c.names {
				c.rtt[[2]string{a, b}], _ = table.RTT(a, b)
				c.dev[[2]string{a, b}] = c.rtt[[2]string{a, b}] / 20
			}
		}
		return c
	}
	f, err := os.Open(filepath.Join(folder, "net", "net_wonder_rtt.csv.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(z).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, row := range rows[1:] { // src, dst, rtt_avg_ms, rtt_min_ms, rtt_max_ms, mdev_ms, …
		if !seen[row[0]] {
			seen[row[0]] = true
			c.names = append(c.names, row[0])
		}
		for _, key := range [][2]string{{row[1], row[0]}, {row[0], row[1]}} { // a pair that was measured one way only
			if _, ok := c.rtt[key]; !ok || key[0] == row[0] {
				c.rtt[key], c.dev[key] = milliseconds(t, row[2]), milliseconds(t, row[5])
			}
		}
	}
	return c
}

func milliseconds(t testing.TB, s string) time.Duration {
	t.Helper()
	ms, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(ms * float64(time.Millisecond))
}

// packetHead is what UDP over IPv4 adds to a packet, in bytes.
const packetHead = 28

// gossipWorld carries gossip between nodes in cities as gossipNet does: packets by
// name, some of which are lost, and streams over links, which lose nothing but come
// later instead.
type gossipWorld struct {
	cities *cities
	loss   float64

	mu      sync.Mutex
	rand    *rand.Rand
	nodes   map[string]*gossipPort
	cut     func(a, b string) bool // nil = nobody is cut off
	cutAt   time.Time
	packets int64 // bytes
	streams int64 // bytes
}

// gossipPort is one node's transport.
type gossipPort struct {
	w          *gossipWorld
	name, city string
	packets    chan *memberlist.Packet
	streams    chan net.Conn
	died       time.Time // zero = lives
}

var _ memberlist.NodeAwareTransport = (*gossipPort)(nil)

func (w *gossipWorld) port(name, city string) *gossipPort {
	p := &gossipPort{w: w, name: name, city: city, packets: make(chan *memberlist.Packet, gossipQueue), streams: make(chan net.Conn, gossipQueue)}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nodes[name] = p
	return p
}

// part cuts nodes off from each other, until it is called with nil.
func (w *gossipWorld) part(cut func(a, b string) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut, w.cutAt = cut, time.Now()
}

// reaches reports whether packets arrive; the caller holds the lock.
func (w *gossipWorld) reaches(a, b string) bool {
	from, to := w.nodes[a], w.nodes[b]
	return to != nil && from.died.IsZero() && to.died.IsZero() && (w.cut == nil || !w.cut(a, b))
}

func (w *gossipWorld) reachable(a, b string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reaches(a, b)
}

// linked reports whether there is a link: those to whom nothing arrives any more end
// after linkIdle.
func (w *gossipWorld) linked(a, b string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	to := w.nodes[b]
	switch {
	case w.reaches(a, b):
		return true
	case to == nil:
		return false
	case !to.died.IsZero():
		return time.Since(to.died) < linkIdle
	}
	return time.Since(w.cutAt) < linkIdle
}

// delay is how long something takes one way; the caller holds the lock.
func (w *gossipWorld) delay(a, b string) time.Duration {
	key := [2]string{w.nodes[a].city, w.nodes[b].city}
	d := float64(w.cities.rtt[key]) + w.rand.NormFloat64()*float64(w.cities.dev[key])
	return max(time.Millisecond, time.Duration(d/2))
}

func (p *gossipPort) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	w, now := p.w, time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.packets += int64(len(b) + packetHead)
	if !w.reaches(p.name, to.Name) || w.rand.Float64() < w.loss {
		return now, nil
	}
	b, target := append([]byte(nil), b...), w.nodes[to.Name]
	time.AfterFunc(w.delay(p.name, to.Name), func() {
		if !w.reachable(p.name, to.Name) {
			return
		}
		select {
		case target.packets <- &memberlist.Packet{Buf: b, From: addressed(p.name), Timestamp: time.Now()}:
		default: // as the socket of a node that does not read
		}
	})
	return now, nil
}

func (p *gossipPort) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if !p.w.reachable(p.name, to.Name) {
		time.Sleep(timeout)
		return nil, os.ErrDeadlineExceeded
	}
	near, nearWire := net.Pipe()
	farWire, far := net.Pipe()
	go p.w.carry(p.name, to.Name, nearWire, farWire)
	go p.w.carry(to.Name, p.name, farWire, nearWire)
	p.w.mu.Lock()
	target, after := p.w.nodes[to.Name], p.w.delay(p.name, to.Name)
	p.w.mu.Unlock()
	time.AfterFunc(after, func() {
		if !p.w.reachable(p.name, to.Name) {
			_ = far.Close()
			return
		}
		target.streams <- streamConn{far, addressed(p.name)}
	})
	return streamConn{near, addressed(to.Name)}, nil
}

// carry moves what a writes to b, later; what is lost on the way comes one round trip
// after. It ends with either.
func (w *gossipWorld) carry(a, b string, from, to net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		w.mu.Lock()
		w.streams += int64(n)
		ok, after := w.reaches(a, b), w.delay(a, b)
		if w.rand.Float64() < w.loss {
			after += w.cities.rtt[[2]string{w.nodes[a].city, w.nodes[b].city}]
		}
		w.mu.Unlock()
		if err != nil && err != io.EOF || n == 0 {
			time.Sleep(after)
			return
		}
		time.Sleep(after)
		if !ok {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// streamConn is a stream as memberlist wants it.
type streamConn struct {
	net.Conn
	remote addressed
}

func (c streamConn) RemoteAddr() net.Addr { return c.remote }

func (p *gossipPort) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return net.IPv6zero, nowherePort, nil
}
func (p *gossipPort) PacketCh() <-chan *memberlist.Packet { return p.packets }
func (p *gossipPort) StreamCh() <-chan net.Conn           { return p.streams }

// Shutdown ends the streams that nobody has taken.
func (p *gossipPort) Shutdown() error {
	for {
		select {
		case s := <-p.streams:
			_ = s.Close()
		default:
			return nil
		}
	}
}

func (p *gossipPort) WriteTo(b []byte, addr string) (time.Time, error) {
	return p.WriteToAddress(b, memberlist.Address{Name: addr})
}

func (p *gossipPort) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return p.DialAddressTimeout(memberlist.Address{Name: addr}, timeout)
}
