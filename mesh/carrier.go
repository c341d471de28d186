package mesh

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/starling-im/starling/identity"
)

// alpnCarrier is the protocol of carriers, over TLS.
const alpnCarrier = "carrier/1"

const (
	// carrierStall bounds the wait for a neighbour that takes no packets, carrierIdle for
	// one that sends none: a link over a carrier has some each linkKeepAlive, and TCP by
	// itself notices after a quarter of an hour that nothing gets through any more.
	carrierStall = linkIdle
	carrierIdle  = 4 * linkKeepAlive
)

// carrier carries the packets of tunnels to a neighbour over TLS on TCP, where UDP does
// not get through.
type carrier struct {
	conn *tls.Conn
	name identity.Name
}

// dialCarrier makes sure that there is a carrier to a node, or to whoever is at an
// address if none is named, and returns the node's id.
func (t *tunnels) dialCarrier(ctx context.Context, addr, node string) (string, error) {
	if t.carrierTo(node) != nil {
		return node, nil
	}
	raw, err := t.m.cfg.DialTCP(ctx, addr)
	if err != nil {
		return "", err
	}
	c := &carrier{conn: tls.Client(raw, t.m.dialTLS(alpnCarrier, node))}
	if err := c.shake(ctx, t.m.cfg.Cluster); err != nil {
		_ = raw.Close()
		return "", err
	}
	if t.carrierTo(c.name.Node) != nil {
		_ = raw.Close()
		return c.name.Node, nil
	}
	p := t.add(c)
	if !t.m.running(func(ctx context.Context) { t.carry(ctx, p) }) {
		t.drop(p)
		_ = raw.Close()
		return "", net.ErrClosed
	}
	return c.name.Node, nil
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
	if m.running(func(ctx context.Context) { defer close(done); m.tunnels.carry(ctx, m.tunnels.add(c)) }) {
		<-done
	}
}

// carry carries packets both ways until the carrier, its use or ctx ends.
func (t *tunnels) carry(ctx context.Context, p *pipe) {
	c := p.carrier
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = c.conn.Close() })()
	t.m.cutNotAdmitted() // what was found out since its handshake
	t.m.log.Info("carrier up", "peer", p.node, "addr", c.conn.RemoteAddr().String())
	t.m.wg.Go(func() {
		defer cancel()
		p.write(ctx, timed{c.conn})
	})
	t.read(p.node, p, timed{c.conn})
	cancel()
	t.drop(p)
	t.m.log.Info("carrier down", "peer", p.node)
}

// add puts a carrier before what else there is to its node: both sides may dial one at once.
func (t *tunnels) add(c *carrier) *pipe {
	p := newPipe(c.name.Node, c)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pipes[p.node] = append([]*pipe{p}, t.pipes[p.node]...)
	return p
}

// prefer has packets go over the carrier that one came over. Where both sides have dialled
// one at once, each could else send over one and hear over the other, and give the one
// up over which nothing comes.
func (t *tunnels) prefer(p *pipe) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := t.pipes[p.node]
	if i := slices.Index(all, p); i > 0 {
		copy(all[1:], all[:i])
		all[0] = p
	}
}

// carrierTo returns a carrier to a node, nil if there is none.
func (t *tunnels) carrierTo(node string) *carrier {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.pipes[node] {
		if p.carrier != nil {
			return p.carrier
		}
	}
	return nil
}

// carriers returns those that there are.
func (t *tunnels) carriers() (all []*carrier) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, pipes := range t.pipes {
		for _, p := range pipes {
			if p.carrier != nil {
				all = append(all, p.carrier)
			}
		}
	}
	return all
}

// closeCarriers ends the carriers to a node, as when there is a link without them, or when
// they are mute: without TLS's farewell, which would wait for the writer.
func (t *tunnels) closeCarriers(node string) {
	for _, c := range t.carriers() {
		if c.name.Node == node {
			_ = c.conn.NetConn().Close()
		}
	}
}

// timed bounds each read and write.
type timed struct{ net.Conn }

func (c timed) Read(b []byte) (int, error) {
	_ = c.SetReadDeadline(time.Now().Add(carrierIdle))
	return c.Conn.Read(b)
}

func (c timed) Write(b []byte) (int, error) {
	_ = c.SetWriteDeadline(time.Now().Add(carrierStall))
	return c.Conn.Write(b)
}
