package edge

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gobwas/ws"

	"github.com/starling-im/starling/wire"
)

// WebSocketProtocol is the subprotocol of frames in protobuf. The binary messages of
// a connection, one after the other, are what a QUIC client's stream of commands is;
// the node's messages hold whole frames each, events among them.
const WebSocketProtocol = "im.1.pb"

// WebSocket returns the handler that makes requests of HTTP/1.1 over TLS clients'
// connections, which are served until they or ctx end.
func (d *Door) WebSocket(ctx context.Context) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		up := ws.HTTPUpgrader{Protocol: func(p string) bool { return p == WebSocketProtocol }}
		conn, rw, _, err := up.Upgrade(r, w)
		if err != nil {
			return // it has been told
		}
		c, ok := conn.(*tls.Conn)
		if !ok {
			_ = conn.Close()
			return
		}
		// What serves HTTP, its stack and its buffers, is let go.
		early, _ := rw.Reader.Peek(rw.Reader.Buffered())
		s := newWebSocket(c, bytes.Clone(early))
		if released, ok := innermost(c).(interface{ Released() }); ok {
			released.Released()
		}
		if !d.begin(ctx, func() { d.serveWebSocket(ctx, s) }) {
			_ = conn.Close()
		}
	})
}

// begin runs f unless ctx has ended.
func (d *Door) begin(ctx context.Context, f func()) bool {
	d.places.mu.Lock()
	defer d.places.mu.Unlock()
	if ctx.Err() != nil {
		return false
	}
	d.serving.Go(f)
	return true
}

// ended is a context that is over.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// Wait waits until all that WebSocket's handler has let in are gone. Its ctx has ended.
func (d *Door) Wait() {
	d.begin(ended, nil) // nobody is about to begin after this
	d.serving.Wait()
}

func (d *Door) serveWebSocket(ctx context.Context, s *webSocket) {
	stop := context.AfterFunc(ctx, s.interrupt)
	d.serve(ctx, line{
		remote:   s.conn.RemoteAddr(),
		commands: func(context.Context) (Commands, error) { return s, nil },
		gone:     s.gone,
	}, d.serving.Go, func(err error) {
		stop()
		d.closeWebSocket(ctx, s, err)
	})
}

func (d *Door) closeWebSocket(ctx context.Context, s *webSocket, err error) {
	e := wire.AsError(err)
	var broken net.Error
	switch {
	case errors.Is(err, io.EOF):
		e = nil
	case ctx.Err() != nil:
		e = wire.Errorf(wire.CodeShuttingDown, "the node is going away")
	case errors.As(err, &broken):
		e = nil
	default:
		d.cfg.Log.Debug("session ended", "remote", s.conn.RemoteAddr(), "code", e.Code, "reason", e.Message)
	}
	s.hangUp(e)
}

// innermost is what a TLS connection runs over.
func innermost(c *tls.Conn) net.Conn {
	inner := c.NetConn()
	for {
		n, ok := inner.(interface{ NetConn() net.Conn })
		if !ok {
			return inner
		}
		inner = n.NetConn()
	}
}

// webSocket is a connection over WebSocket (RFC 6455), as the one stream of a client.
// One goroutine reads. Writes wait for the peer, Send does not.
type webSocket struct {
	conn *tls.Conn
	tcp  *Eager // below conn; nil: Send gives its bytes to a goroutine
	gone chan struct{}

	// Of the reader.
	early  []byte // came with the request
	open   bool   // a message has more fragments
	header ws.Header
	at     int64 // of the payload

	mu     sync.Mutex
	reads  time.Time // the reader's deadline; zero = none
	writes time.Time // the writers'
	busy   bool      // somebody writes, or what was written has yet to go
	idle   chan struct{}
}

func newWebSocket(c *tls.Conn, early []byte) *webSocket {
	s := &webSocket{conn: c, early: early, gone: make(chan struct{})}
	if s.tcp, _ = c.NetConn().(*Eager); s.tcp != nil {
		s.tcp.begin()
	}
	return s
}

// Read reads of the payload of binary messages. A message's end is no boundary.
func (s *webSocket) Read(p []byte) (int, error) {
	for s.at == s.header.Length {
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	n, err := s.raw(p[:min(int64(len(p)), s.header.Length-s.at)])
	ws.Cipher(p[:n], s.header.Mask, int(s.at))
	s.at += int64(n)
	return n, err
}

// raw reads what came with the request first.
func (s *webSocket) raw(p []byte) (int, error) {
	if len(s.early) > 0 {
		n := copy(p, s.early)
		if s.early = s.early[n:]; len(s.early) == 0 {
			s.early = nil
		}
		return n, nil
	}
	return s.conn.Read(p)
}

// rawReader makes raw an io.Reader.
type rawReader struct{ *webSocket }

func (r rawReader) Read(p []byte) (int, error) { return r.raw(p) }

// next reads up to the next payload of a binary message, and answers what comes between.
func (s *webSocket) next() error {
	if err := s.await(); err != nil {
		return err
	}
	h, err := ws.ReadHeader(rawReader{s})
	if err != nil {
		return err
	}
	s.header, s.at = ws.Header{}, 0
	switch {
	case !h.Masked || h.Rsv != 0:
		return wire.Errorf(wire.CodeProtocol, "a WebSocket frame of a client is masked, and without extensions")
	case h.OpCode.IsControl():
		return s.control(h)
	case h.OpCode == ws.OpBinary && !s.open, h.OpCode == ws.OpContinuation && s.open:
		s.header, s.open = h, !h.Fin
		return nil
	}
	return wire.Errorf(wire.CodeProtocol, "WebSocket messages are binary, %s, and one after the other", WebSocketProtocol)
}

// await bounds the silence before the next header.
func (s *webSocket) await() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	until := time.Now().Add(wire.IdleTimeout)
	if !s.reads.IsZero() && s.reads.Before(until) {
		until = s.reads
	}
	return s.conn.SetReadDeadline(until)
}

func (s *webSocket) control(h ws.Header) error {
	if !h.Fin || h.Length > ws.MaxControlFramePayloadSize {
		return wire.Errorf(wire.CodeProtocol, "a WebSocket control frame is short and whole")
	}
	payload := make([]byte, h.Length)
	if _, err := io.ReadFull(rawReader{s}, payload); err != nil {
		return err
	}
	ws.Cipher(payload, h.Mask, 0)
	switch h.OpCode {
	case ws.OpClose:
		return io.EOF
	case ws.OpPing:
		_, err := s.write(ws.OpPong, payload)
		return err
	}
	return nil
}

// Write writes whole frames as a message, and waits until they are on their way.
func (s *webSocket) Write(p []byte) (int, error) { return s.write(ws.OpBinary, p) }

func (s *webSocket) write(op ws.OpCode, p []byte) (int, error) {
	for !s.take() {
	}
	defer s.release()
	if err := s.put(op, append(make([]byte, wire.Headroom, wire.Headroom+len(p)), p...)); err != nil {
		return 0, err
	}
	if err := s.drain(); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Send writes buf[wire.Headroom:], whole frames, as a message without waiting for the peer;
// it uses the room before and keeps nothing. Done is false if not all is on its way
// yet: sent is called once it is, or cannot be, and until then there is to be no other
// Send. Writes take their turn.
func (s *webSocket) Send(buf []byte, sent func(error)) (done bool, err error) {
	if s.tcp == nil || !s.tryTake() {
		p := bytes.Clone(buf[wire.Headroom:])
		go func() {
			_, err := s.Write(p)
			sent(err)
		}()
		return false, nil
	}
	if err := s.put(ws.OpBinary, buf); err != nil || s.tcp.empty() {
		s.release()
		return true, err
	}
	go func() {
		err := s.drain()
		s.release()
		sent(err)
	}()
	return false, nil
}

// put writes buf[wire.Headroom:] with its header. It waits only where there is no Eager.
func (s *webSocket) put(op ws.OpCode, buf []byte) error {
	n := len(buf) - wire.Headroom
	at := wire.Headroom
	switch {
	case n < 126:
		at -= 2
		buf[at+1] = byte(n)
	case n < 1<<16:
		at -= 4
		buf[at+1], buf[at+2], buf[at+3] = 126, byte(n>>8), byte(n)
	default:
		at -= 10
		buf[at+1] = 127
		for i := range 8 {
			buf[at+2+i] = byte(uint64(n) >> (56 - 8*i))
		}
	}
	buf[at] = 0x80 | byte(op)
	if s.tcp == nil {
		s.mu.Lock()
		err := s.conn.SetWriteDeadline(s.deadline())
		s.mu.Unlock()
		if err != nil {
			return err
		}
	}
	_, err := s.conn.Write(buf[at:])
	return err
}

// drain waits until all that was put is on its way.
func (s *webSocket) drain() error {
	if s.tcp == nil {
		return nil
	}
	return s.tcp.drain(func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.tcp.SetWriteDeadline(s.deadline())
	})
}

// deadline is that of the next wait; s is locked.
func (s *webSocket) deadline() time.Time {
	stall := time.Now().Add(wire.WriteStall)
	if !s.writes.IsZero() && s.writes.Before(stall) {
		return s.writes
	}
	return stall
}

// tryTake takes the right to write, if nobody has it.
func (s *webSocket) tryTake() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy {
		return false
	}
	s.busy = true
	return true
}

// take waits for the right to write, or for a change of who has it.
func (s *webSocket) take() bool {
	s.mu.Lock()
	if !s.busy {
		s.busy = true
		s.mu.Unlock()
		return true
	}
	if s.idle == nil {
		s.idle = make(chan struct{})
	}
	idle := s.idle
	s.mu.Unlock()
	<-idle
	return false
}

func (s *webSocket) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = false
	if s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
}

// SetReadDeadline bounds reads, also the one that is under way.
func (s *webSocket) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads = t
	if t.IsZero() {
		t = time.Now().Add(wire.IdleTimeout)
	}
	return s.conn.SetReadDeadline(t)
}

// SetWriteDeadline bounds the waits of writes, also the one that is under way.
func (s *webSocket) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes = t
	if !s.busy {
		return nil
	}
	return s.conn.NetConn().SetWriteDeadline(s.deadline())
}

// interrupt ends reads and writes.
func (s *webSocket) interrupt() {
	_ = s.SetReadDeadline(past)
	_ = s.SetWriteDeadline(past)
}

var past = time.Unix(1, 0)

// Close does nothing: hangUp says the goodbye.
func (s *webSocket) Close() error { return nil }

// hangUp closes the connection, with a word of why if e is not nil.
func (s *webSocket) hangUp(e *wire.Error) {
	defer close(s.gone)
	defer s.conn.NetConn().Close()
	code, why := ws.StatusCode(wire.CloseNormal), ""
	if e != nil {
		code, why = ws.StatusCode(wire.CloseCode(e)), e.Error()
	}
	if most := ws.MaxControlFramePayloadSize - 2; len(why) > most {
		why = why[:most]
	}
	_ = s.SetWriteDeadline(time.Now().Add(lastWords))
	_, _ = s.write(ws.OpClose, ws.NewCloseFrameBody(code, why))
}
