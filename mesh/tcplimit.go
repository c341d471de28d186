package mesh

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
)

const (
	// tcpMax bounds the connections to the TCP port, of which tcpKept are kept for
	// members, and tcpFrom those of one IPv4 address or IPv6 /64 that is no member's.
	tcpMax  = 4096
	tcpKept = 1024
	tcpFrom = 64
)

// LimitTCP returns the listener of the TCP port with its limits: what comes beyond
// them is closed at once.
func (m *Mesh) LimitTCP(l net.Listener) net.Listener {
	return &tcpLimit{Listener: l, m: m, from: make(map[netip.Prefix]int)}
}

type tcpLimit struct {
	net.Listener
	m *Mesh

	mu   sync.Mutex
	all  int
	from map[netip.Prefix]int // of those that are not 0
}

func (l *tcpLimit) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := origin(c.RemoteAddr())
		if l.begin(from, l.m.isMember(c.RemoteAddr())) {
			return &tcpConn{Conn: c, end: sync.OnceFunc(func() { l.end(from) })}, nil
		}
		l.m.meter.limit.Add(1)
		_ = c.Close()
	}
}

func (l *tcpLimit) begin(from netip.Prefix, member bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= tcpMax || !member && (l.all >= tcpMax-tcpKept || l.from[from] >= tcpFrom) {
		return false
	}
	l.all++
	l.from[from]++
	return true
}

func (l *tcpLimit) end(from netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.from[from]--; l.from[from] == 0 {
		delete(l.from, from)
	}
}

// tcpConn is counted until it is closed, or others count it.
type tcpConn struct {
	net.Conn
	end func()
}

// Released says that others count the connection from now on.
func (c *tcpConn) Released() { c.end() }

// SyscallConn implements syscall.Conn.
func (c *tcpConn) SyscallConn() (syscall.RawConn, error) {
	s, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return s.SyscallConn()
}

func (c *tcpConn) Close() error {
	c.end()
	return c.Conn.Close()
}

// isMember reports whether a member says that it is at the host of an address: whoever
// dials by TCP does so from any port.
func (m *Mesh) isMember(addr net.Addr) bool {
	host := addrPort(addr).Addr()
	for _, p := range m.View().Members {
		if p.State.Here() && m.resolver.remembered(p.Addr).Addr() == host {
			return true
		}
	}
	return false
}
