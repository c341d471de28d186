package mesh

import (
	"net"
	"os"
	"sync"
	"time"
)

// A tunnel carries the packets of one pair of nodes that UDP does not reach: over the
// links of a third node, or over TLS on TCP. It carries packets and not streams, so that
// a link through it is a link like any other: QUIC from end to end, under the
// certificates of its two ends, and whoever passes its packets on cannot read them.

// nodeAddr is the address of a node in the tunnels: its id. So QUIC does not notice when
// another node begins to pass the packets on.
type nodeAddr string

func (nodeAddr) Network() string  { return "tunnel" }
func (a nodeAddr) String() string { return string(a) }

// tunnelConn is the socket of the tunnels, which a second quic.Transport is put on. As
// with UDP, a packet that cannot be sent is lost, and nobody is told.
type tunnelConn struct {
	self  nodeAddr
	send  func(packet)
	queue chan packet // for this node
	read  deadline
	once  sync.Once
	ended chan struct{}
}

func newTunnelConn(self string, send func(packet)) *tunnelConn {
	return &tunnelConn{self: nodeAddr(self), send: send, queue: make(chan packet, tunnelQueue), ended: make(chan struct{})}
}

// receive takes a packet for this node, unless too many wait already.
func (c *tunnelConn) receive(p packet) bool {
	select {
	case c.queue <- p:
		return true
	default:
		return false
	}
}

func (c *tunnelConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		expired, changed := c.read.wait()
		select {
		case p := <-c.queue:
			return copy(b, p.data), nodeAddr(p.from), nil
		case <-expired:
			return 0, nil, os.ErrDeadlineExceeded
		case <-changed:
		case <-c.ended:
			return 0, nil, net.ErrClosed
		}
	}
}

func (c *tunnelConn) WriteTo(b []byte, to net.Addr) (int, error) {
	c.send(packet{hops: tunnelHops, to: to.String(), from: string(c.self), data: append([]byte(nil), b...)})
	return len(b), nil
}

func (c *tunnelConn) Close() error {
	c.once.Do(func() { close(c.ended) })
	return nil
}

func (c *tunnelConn) LocalAddr() net.Addr                { return c.self }
func (c *tunnelConn) SetDeadline(t time.Time) error      { return c.SetReadDeadline(t) }
func (c *tunnelConn) SetWriteDeadline(time.Time) error   { return nil } // writes never wait
func (c *tunnelConn) SetReadDeadline(at time.Time) error { c.read.set(at); return nil }

// deadline is one that may be changed while somebody waits for it.
type deadline struct {
	mu      sync.Mutex
	at      time.Time
	changed chan struct{}
}

func (d *deadline) set(at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = at
	if d.changed != nil {
		close(d.changed)
		d.changed = nil
	}
}

// wait returns what happens at the deadline, and what is closed when there is another.
func (d *deadline) wait() (expired <-chan time.Time, changed <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.changed == nil {
		d.changed = make(chan struct{})
	}
	if !d.at.IsZero() {
		expired = time.After(time.Until(d.at))
	}
	return expired, d.changed
}
