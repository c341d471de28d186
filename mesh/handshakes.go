package mesh

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"

	"github.com/quic-go/quic-go"
)

// errBusy refuses a handshake while too many are in progress.
var errBusy = errors.New("mesh: too many handshakes")

// handshakes counts the handshakes in progress, in all and by where they come
// from: one address must not keep the others out. Connections that have come
// to be do not count, but for those of strangers with a question.
type handshakes struct {
	mu   sync.Mutex
	all  int
	from map[netip.Prefix]int // of those that are not 0
}

// origin is whom a limit holds for: an IPv4 address, or the /64 that a single
// host of IPv6 has to choose from.
func origin(addr net.Addr) netip.Prefix {
	ip := addrPort(addr).Addr()
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	p, _ := ip.Prefix(bits) // what is no address of IP is one origin
	return p
}

func addrPort(addr net.Addr) netip.AddrPort {
	var a netip.AddrPort
	switch u := addr.(type) {
	case *net.UDPAddr:
		a = u.AddrPort()
	case *net.TCPAddr:
		a = u.AddrPort()
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// begin counts a handshake unless there are too many already. An address that
// is exempt is bounded only by what the node as a whole bears.
func (h *handshakes) begin(addr net.Addr, exempt func(netip.AddrPort) bool) bool {
	from := origin(addr)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all >= handshakesMax || h.from[from] >= handshakesFrom && !exempt(addrPort(addr)) {
		return false
	}
	if h.from == nil {
		h.from = make(map[netip.Prefix]int)
	}
	h.all++
	h.from[from]++
	return true
}

func (h *handshakes) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.all
}

func (h *handshakes) end(addr net.Addr) {
	from := origin(addr)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all--
	if h.from[from]--; h.from[from] == 0 {
		delete(h.from, from)
	}
}

// crowded reports whether who comes from addr must prove first that it does.
// So a forged address does not use up the handshakes of its owner.
func (h *handshakes) crowded(addr net.Addr) bool {
	from := origin(addr)
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.all > handshakesRetry || h.from[from] >= handshakesFromRetry
}

// isPeer reports whether a member is known at an address. A node has one
// socket, so that the port tells it from clients on the same host.
func (m *Mesh) isPeer(addr netip.AddrPort) bool {
	if !addr.IsValid() { // of a tunnel, and as that of a member whose name is not resolved yet
		return false
	}
	for _, p := range m.View().Members {
		if m.resolver.remembered(p.Addr) == addr {
			return true
		}
	}
	return false
}

// attempt is a handshake in progress, or one that has come to its end.
type attempt struct {
	remote net.Addr
	node   bool // it asked for a protocol of nodes
	ended  bool // the first of accepted and failed counts
}

type attemptKey struct{}

// beginHandshake counts a handshake, and arranges that its failure is noticed:
// quic-go itself reports only those that succeed.
func (m *Mesh) beginHandshake(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	if !m.handshakes.begin(info.RemoteAddr, m.isPeer) {
		m.meter.limit.Add(1)
		return nil, errBusy
	}
	_, tunnelled := info.RemoteAddr.(nodeAddr) // where only nodes speak
	a := &attempt{remote: info.RemoteAddr, node: tunnelled}
	context.AfterFunc(ctx, func() { m.endHandshake(a, context.Cause(ctx)) })
	return context.WithValue(ctx, attemptKey{}, a), nil
}

// endHandshake is called when a handshake was accepted (err = nil) and when its
// connection has ended.
func (m *Mesh) endHandshake(a *attempt, err error) {
	m.mu.Lock()
	first := !a.ended
	a.ended = true
	node := a.node
	m.mu.Unlock()
	if !first {
		return
	}
	m.handshakes.end(a.remote)
	var transport *quic.TransportError
	if errors.As(err, &transport) && !transport.Remote && transport.ErrorCode == quic.ConnectionRefused {
		m.meter.queue.Add(1)
	}
	if err := refusal(err); node && isRefusal(err) {
		m.refuse(a.remote, err)
	}
}
