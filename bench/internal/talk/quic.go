package talk

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"
	"google.golang.org/protobuf/encoding/protowire"
)

// What Starling's own client asks of QUIC.
const (
	quicKeepAlive = 5 * time.Second
	quicIdle      = 10 * time.Second
	// quicHeartbeat is how often it asks something, so that a node that was killed and
	// started again tells at once that it does not know the connection.
	quicHeartbeat = 2 * time.Second
)

// quic begins a session over QUIC, from a socket of its own as a client on a
// machine of its own has it.
func (d *Dialer) quic(ctx context.Context, config *tls.Config, at Place) (Conn, error) {
	c, err := at.udp().DialContext(ctx, "udp", d.target.Addr)
	if err != nil {
		return nil, err
	}
	udp := &udpSocket{c.(*net.UDPConn), at.Deaf}
	transport := &quic.Transport{Conn: udp}
	closeAll := func() { _ = transport.Close(); _ = udp.Close() }
	config = config.Clone()
	config.NextProtos = []string{"im/1"}
	q, err := transport.Dial(ctx, udp.RemoteAddr(), config, &quic.Config{
		HandshakeIdleTimeout: dialWithin, KeepAlivePeriod: quicKeepAlive, MaxIdleTimeout: quicIdle,
		MaxIncomingStreams: -1, MaxIncomingUniStreams: 4, DisablePathMTUDiscovery: true,
		InitialStreamReceiveWindow: uint64(at.Takes), MaxStreamReceiveWindow: uint64(at.Takes),
		InitialConnectionReceiveWindow: 2 * uint64(at.Takes), MaxConnectionReceiveWindow: 2 * uint64(at.Takes),
	})
	if err != nil {
		closeAll()
		return nil, err
	}
	commands, err := q.OpenStreamSync(ctx)
	if err != nil {
		closeAll()
		return nil, err
	}
	s := d.overQUIC(q, commands)
	s.close = func() { _ = q.CloseWithError(3000, ""); closeAll() }
	_ = commands.SetReadDeadline(time.Now().Add(dialWithin))
	if err := s.hello(d.target.Token); err != nil {
		s.close()
		return nil, err
	}
	go heartbeat(q, commands)
	return s, commands.SetReadDeadline(time.Time{})
}

// heartbeat asks whether the node is there, in a packet that is long enough for an answer
// by one that has forgotten the connection (RFC 9000, section 10.3), until the connection ends.
func heartbeat(q *quic.Conn, commands *quic.Stream) {
	ping := protowire.AppendBytes(protowire.AppendTag(nil, pingPadding, protowire.BytesType), make([]byte, 24))
	frame := appendFrame(nil, heartbeatFrame, framePing, ping)
	tick := time.NewTicker(quicHeartbeat)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			_, _ = commands.Write(frame)
		case <-q.Context().Done():
			return
		}
	}
}

// udp dials from the place.
func (at Place) udp() *net.Dialer {
	if at.From == nil {
		return new(net.Dialer)
	}
	return &net.Dialer{LocalAddr: &net.UDPAddr{IP: at.From}}
}

func (d *Dialer) overQUIC(q *quic.Conn, commands *quic.Stream) *starlingConn {
	s := d.newStarling()
	var out []byte
	s.put = func(add func([]byte) []byte) error { out = add(out); return nil }
	s.beat = func() error { return nil }
	s.flush = func() error {
		if len(out) == 0 {
			return nil
		}
		_, err := commands.Write(out)
		out = out[:0]
		return err
	}
	answers := bufio.NewReaderSize(commands, 512)
	var asked, heard scratch
	s.answer = func() ([]byte, error) { return nextFrame(answers, &asked) }
	var events *bufio.Reader
	s.events = func() ([]byte, error) {
		if events == nil {
			stream, err := q.AcceptUniStream(context.Background())
			if err != nil {
				return nil, err
			}
			events = bufio.NewReaderSize(stream, readBuffer)
		}
		return nextFrame(events, &heard)
	}
	return s
}

// A udpSocket is connected to one node, so that the system says when nobody
// listens there.
type udpSocket struct {
	udp  *net.UDPConn
	deaf func() // holds up reads; nil = nothing does
}

func (s *udpSocket) ReadFrom(p []byte) (int, net.Addr, error) {
	if s.deaf != nil {
		s.deaf()
	}
	n, err := s.udp.Read(p)
	return n, s.udp.RemoteAddr(), err
}

func (s *udpSocket) WriteTo(p []byte, _ net.Addr) (int, error) {
	n, err := s.udp.Write(p)
	if errors.Is(err, syscall.ENOBUFS) {
		return len(p), nil // as good as lost on the way
	}
	return n, err
}

func (s *udpSocket) Close() error                       { return s.udp.Close() }
func (s *udpSocket) LocalAddr() net.Addr                { return s.udp.LocalAddr() }
func (s *udpSocket) RemoteAddr() net.Addr               { return s.udp.RemoteAddr() }
func (s *udpSocket) SetDeadline(t time.Time) error      { return s.udp.SetDeadline(t) }
func (s *udpSocket) SetReadDeadline(t time.Time) error  { return s.udp.SetReadDeadline(t) }
func (s *udpSocket) SetWriteDeadline(t time.Time) error { return s.udp.SetWriteDeadline(t) }
func (s *udpSocket) SetReadBuffer(n int) error          { _ = s.udp.SetReadBuffer(n); return nil }
func (s *udpSocket) SetWriteBuffer(n int) error         { _ = s.udp.SetWriteBuffer(n); return nil }
