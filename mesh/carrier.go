package mesh

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/starling-im/starling/identity"
)

// alpnCarrier is the protocol of carriers, over TLS.
const alpnCarrier = "carrier/1"

const (
	// carrierIdle is how long a carrier stays without packets: a link over it sends some
	// each linkKeepAlive.
	carrierIdle = 4 * linkKeepAlive
	// carrierStall bounds the wait for a neighbour that takes no packets.
	carrierStall = linkIdle
)

// carrier carries the packets of tunnels to a neighbour over TLS on TCP, where UDP does
// not get through.
type carrier struct {
	conn *tls.Conn
	name identity.Name
}

// dialCarrier makes the carrier to whoever is at an address, or to one node if it is
// named, and begins to carry.
func (t *tunnels) dialCarrier(ctx context.Context, addr, node string) (*carrier, error) {
	raw, err := t.m.cfg.DialTCP(ctx, addr)
	if err != nil {
		return nil, err
	}
	c := &carrier{conn: tls.Client(raw, t.m.dialTLS(alpnCarrier, node))}
	if err := c.shake(ctx, t.m.cfg.Cluster); err != nil {
		_ = raw.Close()
		return nil, err
	}
	if !t.m.running(func(ctx context.Context) { t.carry(ctx, c) }) {
		_ = raw.Close()
		return nil, context.Canceled
	}
	return c, nil
}

// shake finds out who is at the other end.
func (c *carrier) shake(ctx context.Context, cluster string) error {
	err := c.conn.HandshakeContext(ctx)
	if err != nil {
		return err
	}
	// In TLS 1.3 the dialling side is done before the other has looked at its
	// certificate: QUIC's handshake over the carrier shows whether it was liked.
	state := c.conn.ConnectionState()
	if state.NegotiatedProtocol != alpnCarrier || len(state.PeerCertificates) == 0 {
		return fmt.Errorf("mesh: no carrier at %s", c.conn.RemoteAddr())
	}
	c.name, err = identity.NameOf(state.PeerCertificates[0], cluster)
	return err
}

// serveCarrier serves one that a neighbour has dialled, until it ends.
func (m *Mesh) serveCarrier(conn *tls.Conn) {
	defer conn.Close()
	c := &carrier{conn: conn}
	ctx, cancel := context.WithTimeout(context.Background(), dialWithin)
	defer cancel()
	if err := c.shake(ctx, m.cfg.Cluster); err != nil {
		return
	}
	done := make(chan struct{})
	if m.running(func(ctx context.Context) { defer close(done); m.tunnels.carry(ctx, c) }) {
		<-done
	}
}

// carry carries packets both ways until the carrier, its use or ctx ends.
func (t *tunnels) carry(ctx context.Context, c *carrier) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = c.conn.Close() })()
	node := c.name.Node
	p := newPipe(node, c)
	if old := t.add(p); old != nil && old.carrier != nil {
		_ = old.carrier.conn.Close()
	}
	t.m.cutNotAdmitted() // what was found out since its handshake
	t.m.log.Info("carrier up", "peer", node, "addr", c.conn.RemoteAddr().String())
	t.m.wg.Go(func() {
		defer cancel()
		p.write(ctx, stalling{c.conn})
	})
	t.read(node, idling{c.conn})
	cancel()
	t.drop(p)
	t.m.log.Info("carrier down", "peer", node)
}

// add makes p the pipe to its node, and returns the one that it replaces.
func (t *tunnels) add(p *pipe) *pipe {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.pipes[p.node]
	t.pipes[p.node] = p
	return old
}

// carriers returns those that there are.
func (t *tunnels) carriers() (all []*carrier) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.pipes {
		if p.carrier != nil {
			all = append(all, p.carrier)
		}
	}
	return all
}

// closeCarrier ends the carrier to a node, as when there is a link without it.
func (t *tunnels) closeCarrier(node string) {
	t.mu.Lock()
	p := t.pipes[node]
	t.mu.Unlock()
	if p != nil && p.carrier != nil {
		_ = p.carrier.conn.Close()
	}
}

// stalling bounds each write, idling each read.
type stalling struct{ net.Conn }

func (c stalling) Write(b []byte) (int, error) {
	_ = c.SetWriteDeadline(time.Now().Add(carrierStall))
	return c.Conn.Write(b)
}

type idling struct{ net.Conn }

func (c idling) Read(b []byte) (int, error) {
	_ = c.SetReadDeadline(time.Now().Add(carrierIdle))
	return c.Conn.Read(b)
}
