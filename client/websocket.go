package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/gobwas/ws"

	"github.com/starling-im/starling/wire"
)

// webSocketPath is where a node's WebSocket is; see package edge.
const webSocketPath = "/ws"

// connectWebSocket is connect over TCP: commands and events share one stream.
func (c Config) connectWebSocket(ctx context.Context, addr string) (*conn, error) {
	tc := c.tls(addr, "http/1.1")
	d := ws.Dialer{
		Protocols: []string{wire.WebSocketProtocol},
		NetDial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
		TLSClient: func(raw net.Conn, _ string) net.Conn { return tls.Client(raw, tc) },
	}
	raw, early, hs, err := d.Dial(ctx, "wss://"+addr+webSocketPath)
	if err != nil {
		return nil, err
	}
	if hs.Protocol != wire.WebSocketProtocol {
		_ = raw.Close()
		return nil, fmt.Errorf("client: %s does not speak %s", addr, wire.WebSocketProtocol)
	}
	s := &webSocket{Conn: raw, in: raw, stop: make(chan struct{})}
	if early != nil {
		b, _ := early.Peek(early.Buffered())
		s.in = io.MultiReader(bytes.NewReader(bytes.Clone(b)), raw)
		ws.PutReader(early)
	}
	var beats sync.WaitGroup
	beats.Go(s.beat)
	return &conn{commands: s, close: func() {
		close(s.stop)
		_ = raw.Close()
		beats.Wait()
	}}, nil
}

// webSocket is a connection over WebSocket (RFC 6455) as one stream: the payload of
// its binary messages.
type webSocket struct {
	net.Conn
	in   io.Reader
	stop chan struct{}

	left int64 // of the payload that is being read

	mu    sync.Mutex
	reads time.Time // the deadline of the session; zero = none

	writing sync.Mutex
	out     bytes.Buffer
}

// controlWithin bounds the write of a ping, a pong or a goodbye.
const controlWithin = time.Second

// webSocketClosed is the node's goodbye.
type webSocketClosed struct {
	code   uint64
	reason string
}

func (e *webSocketClosed) Error() string {
	return fmt.Sprintf("the node closed the connection with %d: %s", e.code, e.reason)
}

func (s *webSocket) Read(p []byte) (int, error) {
	for s.left == 0 {
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	n, err := s.in.Read(p[:min(int64(len(p)), s.left)])
	s.left -= int64(n)
	return n, err
}

// next reads up to the next payload of a binary message.
func (s *webSocket) next() error {
	if err := s.await(); err != nil {
		return err
	}
	h, err := ws.ReadHeader(s.in)
	switch {
	case err != nil:
		return err
	case h.Masked || h.Rsv != 0:
		return wire.Errorf(wire.CodeProtocol, "a WebSocket frame of a node is not masked, and without extensions")
	case h.OpCode == ws.OpBinary || h.OpCode == ws.OpContinuation:
		s.left = h.Length
		return nil
	case !h.OpCode.IsControl() || h.Length > ws.MaxControlFramePayloadSize:
		return wire.Errorf(wire.CodeProtocol, "a WebSocket frame of kind %d", h.OpCode)
	}
	payload := make([]byte, h.Length)
	if _, err := io.ReadFull(s.in, payload); err != nil {
		return err
	}
	switch h.OpCode {
	case ws.OpClose:
		code, reason := ws.ParseCloseFrameData(payload)
		return &webSocketClosed{uint64(code), reason}
	case ws.OpPing:
		return s.frame(ws.OpPong, payload)
	}
	return nil
}

// await gives a node up that has been silent for too long: it answers pings.
func (s *webSocket) await() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	until := time.Now().Add(idle)
	if !s.reads.IsZero() && s.reads.Before(until) {
		until = s.reads
	}
	return s.Conn.SetReadDeadline(until)
}

func (s *webSocket) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads = t
	if t.IsZero() {
		t = time.Now().Add(idle)
	}
	return s.Conn.SetReadDeadline(t)
}

func (s *webSocket) Write(p []byte) (int, error) {
	if err := s.frame(ws.OpBinary, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// frame writes a whole message.
func (s *webSocket) frame(op ws.OpCode, p []byte) error {
	h := ws.Header{Fin: true, OpCode: op, Masked: true, Length: int64(len(p))}
	_, _ = rand.Read(h.Mask[:])
	s.writing.Lock()
	defer s.writing.Unlock()
	if op.IsControl() { // the session bounds its own writes, and each only by itself
		if err := s.SetWriteDeadline(time.Now().Add(controlWithin)); err != nil {
			return err
		}
	}
	s.out.Reset()
	if err := ws.WriteHeader(&s.out, h); err != nil {
		return err
	}
	at := s.out.Len()
	s.out.Write(p)
	ws.Cipher(s.out.Bytes()[at:], h.Mask, 0)
	_, err := s.Conn.Write(s.out.Bytes())
	if s.out.Cap() > wire.ClientFrame {
		s.out = bytes.Buffer{}
	}
	return err
}

// Close says goodbye; the connection is closed by its owner.
func (s *webSocket) Close() error {
	_ = s.SetWriteDeadline(time.Now().Add(controlWithin)) // also of a write under way
	return s.frame(ws.OpClose, ws.NewCloseFrameBody(ws.StatusCode(wire.CloseNormal), ""))
}

// beat holds the bindings of NATs, and has the node answer something.
func (s *webSocket) beat() {
	tick := time.NewTicker(keepAlive)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if s.frame(ws.OpPing, nil) != nil {
				return
			}
		case <-s.stop:
			return
		}
	}
}
