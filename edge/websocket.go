package edge

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gobwas/ws"

	"github.com/starling-im/starling/wire"
)

// WebSocket returns the handler that makes requests of HTTP/1.1 over TLS clients'
// connections, which are served until they or ctx end.
func (d *Door) WebSocket(ctx context.Context) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !offers(r) {
			http.Error(w, "the subprotocol is "+wire.WebSocketProtocol, http.StatusBadRequest)
			return
		}
		up := ws.HTTPUpgrader{Protocol: func(p string) bool { return p == wire.WebSocketProtocol }}
		conn, rw, _, err := up.Upgrade(r, w)
		c, ok := conn.(*tls.Conn)
		if err != nil || !ok { // it has been told, but nobody closes the connection any more
			if conn != nil {
				_ = conn.Close()
			}
			return
		}
		// What serves HTTP, its stack and its buffers, is let go.
		early, _ := rw.Reader.Peek(rw.Reader.Buffered())
		s := newWebSocket(c, bytes.Clone(early))
		if released, ok := innermost(c).(interface{ Released() }); ok {
			released.Released()
		}
		if !d.begin(func() { d.serveWebSocket(ctx, s) }) {
			_ = conn.Close()
		}
	})
}

// offers reports whether a client speaks what this door does.
func offers(r *http.Request) bool {
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		for p := range strings.SplitSeq(line, ",") {
			if strings.TrimSpace(p) == wire.WebSocketProtocol {
				return true
			}
		}
	}
	return false
}

// begin runs f, unless somebody waits for the end of all.
func (d *Door) begin(f func()) bool {
	d.places.mu.Lock()
	defer d.places.mu.Unlock()
	if d.places.shut {
		return false
	}
	d.serving.Go(f)
	return true
}

// Wait lets nobody in over WebSocket any more, and waits until all are gone. The ctx of
// WebSocket has ended.
func (d *Door) Wait() {
	d.places.shutDown()
	d.serving.Wait()
}

func (d *Door) serveWebSocket(ctx context.Context, s *webSocket) {
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		s.interrupt()
	})
	d.serve(ctx, line{
		transport: overWebSocket, remote: s.conn.RemoteAddr(),
		commands: func(context.Context) (Commands, error) { return s, nil },
	}, d.serving.Go, func(err error) {
		if !stop() {
			<-interrupted // it must not cut the goodbye
		}
		d.closeWebSocket(ctx, s, err)
	})
}

func (d *Door) closeWebSocket(ctx context.Context, s *webSocket, err error) {
	e := wire.AsError(err)
	code := wire.CloseCode(e)
	var broken net.Error
	switch {
	case errors.Is(err, io.EOF):
		code, e = wire.CloseNormal, nil
	case ctx.Err() != nil:
		code, e = wire.CloseShuttingDown, wire.Errorf(wire.CodeShuttingDown, "the node is going away")
	case errors.As(err, &broken) && broken.Timeout():
		code, e = wire.CloseIdle, nil
	case errors.As(err, &broken):
		code, e = wire.CloseNormal, nil
	default:
		d.cfg.Log.Debug("session ended", "remote", s.conn.RemoteAddr().String(), "code", e.Code, "reason", e.Message)
	}
	s.hangUp(code, e)
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
	tcp  *eager // below conn; nil: Send gives its bytes to a goroutine

	// Of the reader.
	early  []byte // came with the request, or while it was awaited
	first  [ws.MinHeaderSize]byte
	open   bool // a message has more fragments
	header ws.Header
	at     int64 // of the payload

	mu     sync.Mutex
	reads  time.Time // the reader's deadline; zero = none
	writes time.Time // that of Writes
	cut    bool      // it was past when it was set: nobody waits any more
	busy   bool      // somebody writes, or what was written has yet to go
	own    bool      // and has WriteStall for it, whatever the deadline of Writes
	idle   chan struct{}
}

func newWebSocket(c *tls.Conn, early []byte) *webSocket {
	s := &webSocket{conn: c, early: early}
	if s.tcp, _ = c.NetConn().(*eager); s.tcp != nil {
		s.tcp.begin()
	}
	return s
}

// Read reads of the payload of binary messages. A message's end is no boundary.
func (s *webSocket) Read(p []byte) (int, error) {
	if err := s.Await(); err != nil {
		return 0, err
	}
	n, err := s.raw(p[:min(int64(len(p)), s.header.Length-s.at)])
	ws.Cipher(p[:n], s.header.Mask, int(s.at%4))
	s.at += int64(n)
	return n, err
}

// raw reads what came early first.
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

// Await waits for the next payload of a binary message, and answers what comes between.
func (s *webSocket) Await() error {
	for s.at == s.header.Length {
		if err := s.wait(); err != nil {
			return err
		}
		if err := s.next(); err != nil {
			return err
		}
	}
	return nil
}

// wait waits for something to come, not for ever. It does so above TLS, whose stack is
// deep: a goroutine keeps for years the one on which it waits.
func (s *webSocket) wait() error {
	if err := s.bound(); err != nil || s.tcp == nil || len(s.early) > 0 {
		return err
	}
	n, err := s.tcp.glance(s.conn, s.first[:])
	switch {
	case n > 0:
		s.early = s.first[:n]
		return nil
	case err == errNothing:
		return s.tcp.readable()
	}
	return err
}

// next reads a header, and what is no message's payload.
func (s *webSocket) next() error {
	h, err := ws.ReadHeader(rawReader{s})
	switch {
	case errors.Is(err, ws.ErrHeaderLengthMSB), errors.Is(err, ws.ErrHeaderLengthUnexpected):
		return wire.Errorf(wire.CodeProtocol, "a WebSocket frame of a length that there is not")
	case err != nil:
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
	return wire.Errorf(wire.CodeProtocol, "WebSocket messages are binary, %s, and one after the other", wire.WebSocketProtocol)
}

// bound bounds the silence before the next header.
func (s *webSocket) bound() error {
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
		return s.write(ws.OpPong, payload, true)
	case ws.OpPong:
		return nil
	}
	return wire.Errorf(wire.CodeProtocol, "a WebSocket frame of kind %d", h.OpCode)
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
