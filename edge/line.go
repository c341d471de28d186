package edge

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/starling-im/starling/wire"
)

// A line is a client's connection, whatever carries it.
type line struct {
	transport transport
	remote    net.Addr
	// commands opens the stream that the client speaks on.
	commands func(context.Context) (Commands, error)
	// events opens the stream for events; nil: they go with the answers.
	events func(context.Context) (Stream, error)
	// datagram sends what may be lost, and may wait while much is unsent; nil: the client
	// takes none.
	datagram func([]byte) error
	// gone is closed when the connection has ended; nil: a close does not overtake words.
	gone <-chan struct{}
}

// quicLine is a line over a QUIC connection.
func quicLine(conn *quic.Conn) line {
	var datagram func([]byte) error
	if conn.ConnectionState().SupportsDatagrams.Remote {
		datagram = conn.SendDatagram
	}
	return line{
		transport: overQUIC, datagram: datagram,
		remote:   conn.RemoteAddr(),
		commands: func(ctx context.Context) (Commands, error) { return conn.AcceptStream(ctx) },
		events: func(ctx context.Context) (Stream, error) {
			s, err := conn.OpenUniStreamSync(ctx)
			return &quicEvents{SendStream: s}, err
		},
		gone: conn.Context().Done(),
	}
}

// refuse tells the client why, as far as it still listens. It waits a moment
// for the client to go: a close right away would overtake the words.
func (d *Door) refuse(l line, commands Commands, id uint64, err error) {
	var e *wire.Error
	if !errors.As(err, &e) {
		return
	}
	d.stats.refused.count(e.Code)
	_ = commands.SetWriteDeadline(time.Now().Add(lastWords))
	if _, err := commands.Write(wire.AppendMessage(nil, &wire.Frame{Id: id, Body: &wire.Frame_Error{Error: e}})); err != nil {
		return
	}
	_ = commands.Close()
	linger(l.gone)
}

// linger waits a moment for the client to go.
func linger(gone <-chan struct{}) {
	if gone == nil {
		return
	}
	t := time.NewTimer(lastWords)
	defer t.Stop()
	select {
	case <-gone:
	case <-t.C:
	}
}

// lastWords is how long a refused client may take to hear why.
const lastWords = 200 * time.Millisecond

// quicEvents is a stream of events to which one goroutine can send for many clients.
type quicEvents struct {
	*quic.SendStream
	lent int // bytes that were queued since a write last waited for the peer

	mu  sync.Mutex
	cut bool // the session is over
}

// SetWriteDeadline bounds writes, also the one that is under way. One that is over when it
// is set cuts off all that come.
func (s *quicEvents) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut = s.cut || !t.IsZero() && t.Before(time.Now())
	return s.SendStream.SetWriteDeadline(t)
}

// bound gives the next write its time.
func (s *quicEvents) bound() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cut {
		return nil
	}
	return s.SendStream.SetWriteDeadline(time.Now().Add(wire.WriteStall))
}

// lentMost bounds what is queued for a client without waiting: quic-go itself would take
// all that the client's window allows, which a hostile one makes huge.
const lentMost = 32 << 10

// Send implements the Sender of package relay.
func (s *quicEvents) Send(buf []byte, sent func(error)) (done bool, err error) {
	p := buf[wire.Headroom:]
	if s.lent+len(p) <= lentMost {
		err := s.TryWriteAll(p)
		if !errors.Is(err, quic.ErrWouldBlock) {
			s.lent += len(p)
			return true, err
		}
	}
	s.lent = 0
	p = bytes.Clone(p)
	go func() {
		err := s.bound()
		if err == nil {
			_, err = s.Write(p)
		}
		sent(err)
	}()
	return false, nil
}
