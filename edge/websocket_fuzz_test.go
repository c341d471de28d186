package edge

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gobwas/ws"

	"github.com/starling-im/starling/wire"
)

// secure returns a TLS connection whose peer reads all, and says nothing.
func secure(f testing.TB) *tls.Conn {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.StartTLS()
	f.Cleanup(server.Close)
	near, far := net.Pipe()
	f.Cleanup(func() { _ = near.Close() })
	go func() {
		peer := tls.Client(far, &tls.Config{InsecureSkipVerify: true})
		_, _ = io.Copy(io.Discard, peer)
	}()
	c := tls.Server(near, server.TLS)
	if err := c.Handshake(); err != nil {
		f.Fatal(err)
	}
	return c
}

// payload is what a stream of WebSocket frames carries up to its first fault, as package ws
// reads it; whole says that the fault is none, but the end of a whole frame.
func payload(stream []byte) (carried []byte, whole bool) {
	open := false
	for in := bytes.NewReader(stream); ; {
		h, err := ws.ReadHeader(in)
		if err != nil {
			return carried, errors.Is(err, io.EOF)
		}
		if ws.CheckHeader(h, state(open)) != nil || h.OpCode == ws.OpText {
			return carried, false
		}
		p := make([]byte, min(h.Length, int64(in.Len())))
		_, _ = io.ReadFull(in, p)
		short := int64(len(p)) < h.Length
		if h.OpCode.IsControl() {
			if short || h.OpCode == ws.OpClose {
				return carried, false
			}
			continue
		}
		ws.Cipher(p, h.Mask, 0)
		carried = append(carried, p...)
		if short {
			return carried, false
		}
		open = !h.Fin
	}
}

func state(open bool) ws.State {
	if open {
		return ws.StateServerSide | ws.StateFragmented
	}
	return ws.StateServerSide
}

// FuzzWebSocketReader compares what the door makes of a client's bytes with what package
// ws does.
func FuzzWebSocketReader(f *testing.F) {
	for _, seed := range [][]byte{
		nil,
		binary([]byte("one")),
		append(frame(ws.OpBinary, false, []byte("one")), frame(ws.OpContinuation, true, []byte("two"))...),
		append(frame(ws.OpPing, true, []byte("you?")), binary(make([]byte, 200))...),
		frame(ws.OpBinary, true, make([]byte, 1000)),
		frame(ws.OpClose, true, ws.NewCloseFrameBody(1000, "")),
		frame(ws.OpText, true, nil),
		frame(0xb, true, []byte("pong?")),
		{0x82, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4},
		{0x82, 0x81},
	} {
		f.Add(seed, uint16(1000))
	}
	conn := secure(f)
	f.Fuzz(func(t *testing.T, stream []byte, at uint16) {
		want, whole := payload(stream)
		s := &webSocket{conn: conn, early: bytes.Clone(stream)}
		_ = s.SetReadDeadline(past) // after the stream comes nothing
		var got []byte
		var err error
		for p := make([]byte, int(at)+1); err == nil; {
			var n int
			n, err = s.Read(p)
			got = append(got, p[:n]...)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("read %d bytes, want %d", len(got), len(want))
		}
		var e *wire.Error
		if errors.As(err, &e) && (e.Code != wire.CodeProtocol || whole) {
			t.Errorf("%v", err)
		}
	})
}
