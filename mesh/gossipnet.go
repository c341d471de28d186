package mesh

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/quic-go/quic-go"

	"github.com/starling-im/starling/wire"
)

// nowhere stands in for the address of every node in memberlist, which holds a
// node to its address until it has been dead for a while. Here the name of a
// node decides where a packet goes, and the node's own description, which may
// change at any time, says where that is.
const (
	nowhere     = "[::]:1"
	nowherePort = 1
)

// gossipNet is memberlist's network: packets beside QUIC's on the socket,
// streams over links, or over a short connection where there is no link.
// A name with a colon in it is no node but the address of a seed.
type gossipNet struct {
	m       *Mesh
	ctx     context.Context
	stop    context.CancelFunc
	packets chan *memberlist.Packet
	streams chan net.Conn
}

var _ memberlist.NodeAwareTransport = (*gossipNet)(nil)

func newGossipNet(m *Mesh) *gossipNet {
	t := &gossipNet{m: m, packets: make(chan *memberlist.Packet, gossipQueue), streams: make(chan net.Conn)}
	t.ctx, t.stop = context.WithCancel(context.Background())
	return t
}

// receive reads gossip from the socket until Shutdown. memberlist's encrypted
// packets begin with the version of their encryption, 0 or 1, and so cannot be
// taken for QUIC's, which have one of the two top bits set.
func (t *gossipNet) receive(over *quic.Transport) {
	for {
		buf := make([]byte, gossipPacket)
		n, from, err := over.ReadNonQUICPacket(t.ctx, buf)
		if err != nil {
			return
		}
		t.m.gossiped(from, n)
		select {
		case t.packets <- &memberlist.Packet{Buf: buf[:n], From: from, Timestamp: time.Now()}:
		default: // more of it comes all the time
			t.m.meter.dropped.Add(1)
		}
	}
}

func (t *gossipNet) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return net.IPv6zero, nowherePort, nil
}

func (t *gossipNet) PacketCh() <-chan *memberlist.Packet { return t.packets }
func (t *gossipNet) StreamCh() <-chan net.Conn           { return t.streams }

// Shutdown ends what waits; it does not wait for memberlist's own goroutines.
func (t *gossipNet) Shutdown() error {
	t.stop()
	return nil
}

// where returns the address of a node or seed; "" for a node not heard of.
func (m *Mesh) where(name string) string {
	if strings.Contains(name, ":") {
		return name
	}
	member, _ := m.View().Member(name)
	return member.Addr
}

// WriteToAddress reports no errors: memberlist would end a probe on one without
// suspecting anybody, but a packet that cannot be sent is a packet lost.
func (t *gossipNet) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	if err := t.m.sendGossip(t.ctx, to.Name, b); err != nil {
		t.m.meter.unsent.Add(1)
		t.m.log.Debug("gossip packet not sent", "peer", to.Name, "err", err)
	} else {
		t.m.meter.gossip(to.Name).add(len(b), 1)
	}
	return time.Now(), nil
}

// sendGossip sends one packet the way that the link to the node goes.
func (m *Mesh) sendGossip(ctx context.Context, node string, b []byte) error {
	member, _ := m.View().Member(node)
	l := m.table.to(node)
	var err error
	switch {
	case l != nil && l.tunnelled(), l == nil && member.Outbound:
		_, err = m.tunnels.transport.WriteTo(b, nodeAddr(node))
	case member.Outbound: // at the address that its packets come from
		_, err = m.transport.WriteTo(b, l.conn.RemoteAddr())
	default:
		var to *net.UDPAddr
		if to, err = m.resolver.resolve(ctx, m.where(node)); err == nil {
			_, err = m.transport.WriteTo(b, to)
		}
	}
	return err
}

func (t *gossipNet) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Name: addr})
}

func (t *gossipNet) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Name: addr}, timeout)
}

func (t *gossipNet) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	if l := t.m.table.to(to.Name); l != nil {
		s, err := openStream(ctx, l, StreamGossip)
		if err != nil {
			return nil, err
		}
		return t.conn(to.Name, s, nil), nil
	}
	conn, node, err := t.m.dial(ctx, t.m.where(to.Name), alpnJoin, "")
	if err != nil {
		return nil, err
	}
	s, err := openStream(ctx, t.m.newLink(node, conn), StreamGossip)
	if err != nil {
		_ = conn.CloseWithError(wire.CloseNormal, "")
		return nil, err
	}
	return t.conn(node, s, conn), nil
}

// serve hands a stream of gossip to memberlist and waits until it has closed it.
func (t *gossipNet) serve(ctx context.Context, node string, s *Stream) {
	c := t.conn(node, s, nil)
	select {
	case t.streams <- c:
		<-c.closed
	case <-ctx.Done():
	case <-t.ctx.Done():
	}
}

// gossipConn is a stream as memberlist wants it.
type gossipConn struct {
	*Stream
	local, remote addressed
	own           func() // closes the connection that was made for this stream only; or nil
	once          sync.Once
	closed        chan struct{}
}

func (t *gossipNet) conn(node string, s *Stream, own *quic.Conn) *gossipConn {
	c := &gossipConn{
		Stream: s, closed: make(chan struct{}),
		local: addressed(t.m.cfg.Node), remote: addressed(node),
	}
	if own != nil {
		stop := context.AfterFunc(t.ctx, func() { _ = c.Close() })
		c.own = func() {
			stop()
			_ = own.CloseWithError(wire.CloseNormal, "")
		}
	}
	return c
}

func (c *gossipConn) LocalAddr() net.Addr  { return c.local }
func (c *gossipConn) RemoteAddr() net.Addr { return c.remote }

func (c *gossipConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// Close ends the stream, and the connection that was made for it: the side
// that dialled closes last, after it has read the whole answer.
func (c *gossipConn) Close() error {
	err := c.Stream.Close()
	c.once.Do(func() {
		close(c.closed)
		if c.own != nil {
			c.own()
		}
	})
	return err
}
