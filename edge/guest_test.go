package edge

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/starling-im/starling/wire"
)

// house has a door that is reached over WebSocket.
type house struct {
	*testing.T
	*Door
	server *httptest.Server
	roots  *x509.CertPool
	dial   func() (net.Conn, error)
	cancel context.CancelFunc
}

// open opens a door at a listener, to which dial connects. Serve is what its sessions do.
func open(t *testing.T, l net.Listener, dial func() (net.Conn, error), serve func(context.Context, Client) error, change ...func(*Config)) *house {
	cfg := Config{Serve: func(c Client) func(context.Context) error {
		return func(ctx context.Context) error { return serve(ctx, c) }
	}, Key: func(kid string) (Key, bool, bool) { return key, kid == key.ID, true }}
	for _, f := range change {
		f(&cfg)
	}
	h := &house{T: t, dial: dial, Door: New(cfg)}
	ctx, cancel := context.WithCancel(t.Context())
	h.cancel = cancel
	h.server = httptest.NewUnstartedServer(h.WebSocket(ctx))
	_ = h.server.Listener.Close()
	h.server.Listener = EagerListener(l)
	h.server.StartTLS()
	h.roots = x509.NewCertPool()
	h.roots.AddCert(h.server.Certificate())
	t.Cleanup(func() {
		cancel()
		h.server.Close()
		h.Wait()
		if n := h.Sessions(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
		if p := &h.places; len(p.strangers)+len(p.sessions)+len(p.users)+len(p.apps) > 0 {
			t.Errorf("of those who are gone is left: %v %v %v %v", p.strangers, p.sessions, p.users, p.apps)
		}
	})
	return h
}

// openTCP opens a door at a TCP port.
func openTCP(t *testing.T, serve func(context.Context, Client) error, change ...func(*Config)) *house {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return open(t, l, func() (net.Conn, error) { return net.Dial("tcp", l.Addr().String()) }, serve, change...)
}

// pipes is a listener within a bubble.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p pipes) Close() error {
	select {
	case <-p.done:
	default:
		close(p.done)
	}
	return nil
}

func (pipes) Addr() net.Addr { return addr("192.0.2.1") }

func openPipes(t *testing.T, serve func(context.Context, Client) error) *house {
	p := pipes{make(chan net.Conn), make(chan struct{})}
	return open(t, p, func() (net.Conn, error) {
		near, far := net.Pipe()
		p.conns <- far
		return near, nil
	}, serve)
}

// guest is a client by hand.
type guest struct {
	*house
	net.Conn
	in *bufio.Reader
}

const request = "GET /ws HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: a, im.1.pb\r\n\r\n"

// come asks for a WebSocket, and says more in the same write.
func (h *house) come(more ...[]byte) *guest {
	h.Helper()
	raw, err := h.dial()
	if err != nil {
		h.Fatal(err)
	}
	c := tls.Client(raw, &tls.Config{RootCAs: h.roots, ServerName: "example.com"})
	h.Cleanup(func() { _ = raw.Close() })
	g := &guest{h, c, bufio.NewReader(c)}
	g.write(append([][]byte{[]byte(request)}, more...)...)
	r, err := http.ReadResponse(g.in, nil)
	if err != nil || r.StatusCode != http.StatusSwitchingProtocols || r.Header.Get("Sec-WebSocket-Protocol") != wire.WebSocketProtocol {
		h.Fatalf("%+v, %v", r, err)
	}
	return g
}

// enter comes in and hears the welcome.
func (h *house) enter(more ...[]byte) *guest {
	h.Helper()
	g := h.come(append([][]byte{binary(h.hello())}, more...)...)
	if f := g.hear(); f.GetWelcome() == nil {
		h.Fatalf("heard %v", f)
	}
	return g
}

func (h *house) hello() []byte {
	token := mint(h.T, key, Claims{User: "alice", ActAs: "*", Expires: time.Now().Add(time.Hour)})
	return wire.AppendMessage(nil, &wire.Frame{Id: 1, Body: &wire.Frame_Hello{Hello: &wire.Hello{Token: token}}})
}

func (g *guest) write(parts ...[]byte) {
	if _, err := g.Conn.Write(bytes.Join(parts, nil)); err != nil {
		g.Error(err)
	}
}

// frame is one of a client's.
func frame(op ws.OpCode, fin bool, payload []byte) []byte {
	f := ws.MaskFrame(ws.NewFrame(op, fin, bytes.Clone(payload)))
	var b bytes.Buffer
	_ = ws.WriteFrame(&b, f)
	return b.Bytes()
}

// binary is a whole message.
func binary(payload []byte) []byte { return frame(ws.OpBinary, true, payload) }

// heard is the next frame of WebSocket.
func (g *guest) heard() ws.Frame {
	g.Helper()
	_ = g.SetReadDeadline(time.Now().Add(5 * time.Minute))
	header, err := ws.ReadHeader(g.in)
	if err != nil {
		g.Fatal(err)
	}
	f := ws.Frame{Header: header, Payload: make([]byte, min(header.Length, 1<<20))}
	if _, err := io.ReadFull(g.in, f.Payload); err != nil {
		g.Fatal(err)
	}
	if f.Header.Masked || f.Header.Rsv != 0 || !f.Header.Fin {
		g.Errorf("the node's frame has the header %+v", f.Header)
	}
	return f
}

// hear is the next message, which is one frame.
func (g *guest) hear() *wire.Frame {
	g.Helper()
	f := g.heard()
	if f.Header.OpCode != ws.OpBinary {
		g.Fatalf("heard %+v %q", f.Header, f.Payload)
	}
	one, err := wire.NewReader(bytes.NewReader(f.Payload), wire.ClientFrame).Frame()
	if err != nil {
		g.Fatal(err)
	}
	return one
}

// goodbye is the close code that comes next, after words of why; then the connection ends.
func (g *guest) goodbye() uint64 {
	g.Helper()
	for {
		f := g.heard()
		if f.Header.OpCode != ws.OpClose {
			continue
		}
		code, why := ws.ParseCloseFrameData(f.Payload)
		if !code.IsApplicationSpec() && !code.IsPrivateSpec() || strings.ToValidUTF8(why, "") != why {
			g.Errorf("closed with %d %q", code, why)
		}
		if _, err := g.in.ReadByte(); !errors.Is(err, io.EOF) {
			g.Errorf("after the goodbye comes %v", err)
		}
		return uint64(code)
	}
}

// say is a frame of the protocol with some content.
func say(id uint64, content string) []byte {
	return wire.AppendMessage(nil, &wire.Frame{Id: id, Body: &wire.Frame_Publish{Publish: &wire.Publish{Content: content}}})
}

// echo answers each frame with itself.
func echo(_ context.Context, c Client) error {
	for {
		f, err := c.Frames.Frame()
		if err != nil {
			return err
		}
		if _, err := c.Commands.Write(wire.AppendMessage(nil, f)); err != nil {
			return err
		}
	}
}
