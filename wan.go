package starling

import (
	"net"
	"sync"
	"time"

	"github.com/starling-im/starling/geo"
)

// wan is a socket whose packets to nodes of other regions take half the
// round-trip time that was measured between the two places. It keeps order
// and drops what exceeds its buffer, as a router would.
type wan struct {
	net.PacketConn
	ways   map[string]*way // by the address of the other node
	closed chan struct{}
	once   sync.Once
}

// way is what is under way to one node.
type way struct {
	queue chan delayed
	delay time.Duration
	carry sync.Once
}

type delayed struct {
	at   time.Time
	data []byte
	to   net.Addr
}

// wanQueue bounds the packets on their way to one node.
const wanQueue = 16 << 10

func newWAN(conn net.PacketConn, cfg Config) net.PacketConn {
	w := &wan{PacketConn: conn, ways: make(map[string]*way), closed: make(chan struct{})}
	for _, p := range cfg.Peers {
		rtt, ok := geo.Pops().RTT(cfg.Region, p.Region)
		if !ok || p.Region == cfg.Region {
			continue
		}
		addr, err := net.ResolveUDPAddr("udp", p.Addr)
		if err != nil {
			continue
		}
		w.ways[addr.String()] = &way{queue: make(chan delayed, wanQueue), delay: rtt / 2}
	}
	return w
}

// WriteTo implements net.PacketConn.
func (w *wan) WriteTo(b []byte, to net.Addr) (int, error) {
	way, ok := w.ways[to.String()]
	if !ok {
		return w.PacketConn.WriteTo(b, to)
	}
	way.carry.Do(func() { go w.carry(way) })
	select {
	case way.queue <- delayed{time.Now(), append([]byte(nil), b...), to}:
	default:
	}
	return len(b), nil
}

// carry brings packets to one node, each the same time after it was sent.
func (w *wan) carry(way *way) {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		var p delayed
		select {
		case p = <-way.queue:
		case <-w.closed:
			return
		}
		t.Reset(time.Until(p.at.Add(way.delay)))
		select {
		case <-t.C:
		case <-w.closed:
			return
		}
		// A packet that cannot be sent is a lost packet.
		_, _ = w.PacketConn.WriteTo(p.data, p.to)
	}
}

// Close implements net.PacketConn.
func (w *wan) Close() error {
	w.once.Do(func() { close(w.closed) })
	return w.PacketConn.Close()
}
