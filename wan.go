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
	queues map[string]chan delayed // by the address of the other node
	closed chan struct{}
	once   sync.Once
}

type delayed struct {
	at   time.Time
	data []byte
	to   net.Addr
}

// wanQueue bounds the packets on their way to one node.
const wanQueue = 16 << 10

func newWAN(conn net.PacketConn, cfg Config) net.PacketConn {
	w := &wan{PacketConn: conn, queues: make(map[string]chan delayed), closed: make(chan struct{})}
	for _, p := range cfg.Peers {
		rtt, ok := geo.Pops().RTT(cfg.Region, p.Region)
		if !ok || p.Region == cfg.Region {
			continue
		}
		addr, err := net.ResolveUDPAddr("udp", p.Addr)
		if err != nil {
			continue
		}
		q := make(chan delayed, wanQueue)
		w.queues[addr.String()] = q
		go w.carry(q, rtt/2)
	}
	return w
}

// WriteTo implements net.PacketConn.
func (w *wan) WriteTo(b []byte, to net.Addr) (int, error) {
	q, ok := w.queues[to.String()]
	if !ok {
		return w.PacketConn.WriteTo(b, to)
	}
	select {
	case q <- delayed{time.Now(), append([]byte(nil), b...), to}:
	default:
	}
	return len(b), nil
}

// carry brings packets to one node, each the same time after it was sent.
func (w *wan) carry(q chan delayed, delay time.Duration) {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		var p delayed
		select {
		case p = <-q:
		case <-w.closed:
			return
		}
		t.Reset(time.Until(p.at.Add(delay)))
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
