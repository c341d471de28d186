package simnet

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
)

// mtu is the size in bytes, without the headers of UDP and IP, above which no packet
// goes anywhere.
const mtu = 1400

// Conn is a socket of the network. Packets lie in it from the moment they are sent, and
// are there for ReadFrom, of which one goes on at a time, when they arrive: no goroutine
// carries them.
type Conn struct {
	net  *Net
	addr netip.AddrPort
	at   *net.UDPAddr // the same

	news chan struct{} // there is something for a ReadFrom that waits

	mu       sync.Mutex
	coming   []packet // in the order in which they arrive
	deadline time.Time
	closed   bool
}

type packet struct {
	from    *Conn
	to      netip.AddrPort
	data    []byte
	arrives time.Time
}

// Conn opens a socket at an address such as "10.0.0.1:7400". One that is open
// there already is closed, as if its process had died.
func (n *Net) Conn(addr string) *Conn {
	n.t.Helper()
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		n.t.Fatalf("simnet: %v", err)
	}
	c := &Conn{net: n, addr: at, at: net.UDPAddrFromAddrPort(at), news: make(chan struct{}, 1)}
	n.mu.Lock()
	old := n.conns[at]
	n.conns[at] = c
	n.mu.Unlock()
	if old != nil {
		_ = old.Close()
	}
	return c
}

// Close closes the socket; packets under way to it are lost.
func (c *Conn) Close() error {
	c.net.mu.Lock()
	if c.net.conns[c.addr] == c {
		delete(c.net.conns, c.addr)
	}
	c.net.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed, c.coming = true, nil
	c.wake()
	return nil
}

// WriteTo implements net.PacketConn.
func (c *Conn) WriteTo(p []byte, to net.Addr) (int, error) {
	if c.isClosed() {
		return 0, net.ErrClosed
	}
	if len(p) <= mtu {
		c.net.send(packet{from: c, to: addrPort(to), data: slices.Clone(p)})
	}
	return len(p), nil
}

func (c *Conn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// take takes a packet that arrives later.
func (c *Conn) take(p packet) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	i := len(c.coming)
	for i > 0 && c.coming[i-1].arrives.After(p.arrives) {
		i--
	}
	c.coming = slices.Insert(c.coming, i, p)
	if i == 0 {
		c.wake()
	}
}

// wake is called with the lock held.
func (c *Conn) wake() {
	select {
	case c.news <- struct{}{}:
	default:
	}
}

// ReadFrom implements net.PacketConn.
func (c *Conn) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		got, wait, err := c.arrived()
		if err != nil {
			return 0, nil, err
		}
		if got != nil {
			return copy(p, got.data), got.from.at, nil
		}
		if wait.IsZero() {
			<-c.news
			continue
		}
		timer := time.NewTimer(time.Until(wait))
		select {
		case <-timer.C:
		case <-c.news:
			timer.Stop()
		}
	}
}

// arrived returns the packet that is there, or until when to wait; the zero time is for
// good.
func (c *Conn) arrived() (p *packet, wait time.Time, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.closed {
		return nil, wait, net.ErrClosed
	}
	if !c.deadline.IsZero() && !c.deadline.After(now) {
		return nil, wait, os.ErrDeadlineExceeded
	}
	if len(c.coming) == 0 {
		return nil, c.deadline, nil
	}
	first := c.coming[0]
	if first.arrives.After(now) {
		if c.deadline.IsZero() || first.arrives.Before(c.deadline) {
			return nil, first.arrives, nil
		}
		return nil, c.deadline, nil
	}
	c.coming[0] = packet{}
	c.coming = c.coming[1:]
	return &first, wait, nil
}

// LocalAddr implements net.PacketConn.
func (c *Conn) LocalAddr() net.Addr { return c.at }

// SetReadDeadline implements net.PacketConn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	c.wake()
	return nil
}

// SetDeadline implements net.PacketConn.
func (c *Conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetWriteDeadline does nothing, as nobody waits to write.
func (c *Conn) SetWriteDeadline(time.Time) error { return nil }

// SetReadBuffer and SetWriteBuffer do nothing: there is room for anything. QUIC complains
// of sockets without them.
func (c *Conn) SetReadBuffer(int) error  { return nil }
func (c *Conn) SetWriteBuffer(int) error { return nil }
