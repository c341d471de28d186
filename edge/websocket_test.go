package edge

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/starling-im/starling/wire"
)

// A session over TLS: what comes right behind the request counts, a message is a part of
// the stream however it is cut, and pings are answered in between.
func TestWebSocketSession(t *testing.T) {
	h := openTCP(t, echo)
	large := strings.Repeat("x", 30_000)
	g := h.enter(binary(say(2, "early")))
	if f := g.hear(); f.Id != 2 || f.GetPublish().Content != "early" {
		t.Errorf("heard %v", f)
	}
	p := say(3, large)
	both := append(say(4, "four"), say(5, "five")...)
	g.write(
		frame(ws.OpBinary, false, p[:1]), frame(ws.OpContinuation, false, p[1:200]), frame(ws.OpPing, true, []byte("you?")),
		frame(ws.OpContinuation, false, nil), frame(ws.OpContinuation, true, p[200:]), binary(nil), binary(both[:3]), frame(ws.OpPong, true, nil), binary(both[3:]))
	if f := g.heard(); f.Header.OpCode != ws.OpPong || string(f.Payload) != "you?" {
		t.Errorf("heard %+v %q", f.Header, f.Payload)
	}
	for id, want := range map[uint64]string{3: large} {
		if f := g.hear(); f.Id != id || f.GetPublish().Content != want {
			t.Errorf("heard %v", f)
		}
	}
	for id := uint64(4); id <= 5; id++ {
		if f := g.hear(); f.Id != id {
			t.Errorf("heard %v", f)
		}
	}
	if s := h.Stats(); s.WebSocket != 1 || s.QUIC != 0 {
		t.Errorf("%+v", s)
	}
	g.write(frame(ws.OpClose, true, ws.NewCloseFrameBody(1000, "bye")))
	if code := g.goodbye(); code != wire.CloseNormal {
		t.Errorf("closed with %d", code)
	}
}

// Who breaks the rules hears why, also when much of what it sent is unread.
func TestWebSocketRefuses(t *testing.T) {
	unmasked := func() []byte {
		var b bytes.Buffer
		_ = ws.WriteFrame(&b, ws.NewBinaryFrame(say(2, "x")))
		return b.Bytes()
	}()
	reserved := binary(say(2, "x"))
	reserved[0] |= 0x40
	oversize := say(2, "x")
	copy(oversize[2:6], []byte{0x7f, 0xff, 0xff, 0xff})
	for name, said := range map[string][]byte{
		"unmasked":           unmasked,
		"extension":          reserved,
		"text":               frame(ws.OpText, true, say(2, "x")),
		"unknown":            frame(5, true, nil),
		"unknown control":    frame(0xb, true, nil),
		"continues nothing":  frame(ws.OpContinuation, true, say(2, "x")),
		"begins in another":  append(frame(ws.OpBinary, false, say(2, "x")[:3]), binary(say(3, "x"))...),
		"ping in parts":      frame(ws.OpPing, false, nil),
		"long ping":          frame(ws.OpPing, true, make([]byte, 126)),
		"oversize":           binary(oversize),
		"another version":    binary([]byte("GET / HTTP/1.1")),
		"a node's frame":     binary([]byte{wire.Version, 1, 0, 0, 0, 0}),
		"length beyond 2^63": {0x82, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			h := openTCP(t, func(_ context.Context, c Client) error {
				_, err := c.Frames.Frame()
				return err
			})
			g := h.enter(said, make([]byte, 300_000))
			if code := g.goodbye(); code != wire.CloseProtocol {
				t.Errorf("closed with %d", code)
			}
			if s := h.Stats(); s.Ended[wire.CodeProtocol]+s.Ended[wire.CodeTooLarge] != 1 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// What is no request for this door is answered, and the connection closed.
func TestWebSocketHandshake(t *testing.T) {
	h := openTCP(t, echo)
	for name, c := range map[string]struct {
		old, new string
		status   int
	}{
		"no subprotocol":      {"Sec-WebSocket-Protocol: a, im.1.pb\r\n", "", http.StatusBadRequest},
		"another subprotocol": {"im.1.pb", "im.1.json", http.StatusBadRequest},
		"no upgrade":          {"Upgrade: websocket\r\n", "", http.StatusBadRequest},
		"another version":     {"Version: 13", "Version: 12", http.StatusUpgradeRequired},
		"no key":              {"Key: A", "Key: ", http.StatusBadRequest},
	} {
		raw, err := h.dial()
		if err != nil {
			t.Fatal(err)
		}
		conn := tls.Client(raw, &tls.Config{RootCAs: h.roots, ServerName: "example.com"})
		asked := strings.Replace(request, c.old, c.new, 1)
		if _, err := io.WriteString(conn, strings.Replace(asked, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1)); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		in := bufio.NewReader(conn)
		r, err := http.ReadResponse(in, nil)
		if err != nil || r.StatusCode != c.status {
			t.Errorf("%s: %v, %v", name, r, err)
			continue
		}
		_, _ = io.Copy(io.Discard, r.Body)
		if _, err := in.ReadByte(); err == nil || errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
			t.Errorf("%s: the connection stays open: %v", name, err)
		}
		_ = raw.Close()
	}
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// A client has 5 s for its Hello, and 60 s for each further frame, be it a ping.
func TestWebSocketSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := openPipes(t, echo)
		began := time.Now()
		if code := h.come().goodbye(); code != wire.CloseOverloaded || time.Since(began).Round(time.Second) != wire.AuthenticateWithin {
			t.Errorf("without a Hello: closed with %d after %v", code, time.Since(began))
		}
		g := h.enter()
		for range 3 {
			time.Sleep(wire.IdleTimeout * 3 / 4)
			g.write(frame(ws.OpPing, true, nil))
			if f := g.heard(); f.Header.OpCode != ws.OpPong {
				t.Fatalf("heard %+v", f.Header)
			}
		}
		began = time.Now()
		if code := g.goodbye(); code != wire.CloseIdle || time.Since(began).Round(time.Second) != wire.IdleTimeout {
			t.Errorf("closed with %d after %v", code, time.Since(began))
		}
	})
}

// sender has what Send needs of a client.
type sender interface {
	Commands
	Send(buf []byte, sent func(error)) (bool, error)
}

// A client that reads nothing for a while holds up no Send; what was sent and written
// meanwhile is whole and in order once it reads again.
func TestWebSocketSlowReader(t *testing.T) {
	read := make(chan struct{})
	h := openTCP(t, func(_ context.Context, c Client) error {
		to := c.Commands.(sender)
		sent := make(chan error, 1)
		next := 0
		one := func() (bool, error) {
			next++
			return to.Send(append(make([]byte, wire.Headroom), say(uint64(next), strings.Repeat("e", 30_000))...), func(err error) { sent <- err })
		}
		for {
			done, err := one()
			if err != nil {
				return err
			}
			if !done {
				break
			}
		}
		_ = to.SetWriteDeadline(time.Now().Add(time.Minute))
		wrote := make(chan error, 1)
		go func() {
			_, err := to.Write(say(1<<20, "a reply"))
			wrote <- err
		}()
		close(read)
		if err := errors.Join(<-sent, <-wrote); err != nil {
			return err
		}
		// A deadline that is left of a wait, and over, is no matter.
		_ = to.(*webSocket).conn.NetConn().SetWriteDeadline(past)
		for range 10 {
			if done, err := one(); err != nil {
				return err
			} else if !done {
				if err := <-sent; err != nil {
					return err
				}
			}
		}
		if _, err := to.Write(say(1<<21, strconv.Itoa(next))); err != nil {
			return err
		}
		_, err := c.Frames.Frame()
		return err
	})
	g := h.enter()
	<-read
	events, replies, all := uint64(0), 0, ""
	for all == "" {
		switch f := g.hear(); {
		case f.Id == 1<<20:
			replies++
		case f.Id == 1<<21:
			all = f.GetPublish().GetContent()
		case f.Id != events+1 || len(f.GetPublish().GetContent()) != 30_000:
			t.Fatalf("after %d comes %d with %d bytes", events, f.Id, len(f.GetPublish().GetContent()))
		default:
			events++
		}
	}
	if all != fmt.Sprint(events) || replies != 1 {
		t.Errorf("%d of %s events came, and %d replies", events, all, replies)
	}
}

// How long a client may take nothing is counted from its own pause, not from the last
// reply's deadline.
func TestWebSocketStall(t *testing.T) {
	for _, pause := range []time.Duration{wire.WriteStall * 9 / 10, wire.WriteStall * 11 / 10} {
		t.Run(fmt.Sprint(pause), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				result := make(chan error, 1)
				h := openPipes(t, func(_ context.Context, c Client) error {
					time.Sleep(time.Minute) // the deadline of the Welcome is long over
					sent := make(chan error, 1)
					done, err := c.Commands.(sender).Send(append(make([]byte, wire.Headroom), say(2, "x")...), func(err error) { sent <- err })
					if !done {
						err = <-sent
					}
					result <- err
					return io.EOF
				})
				g := h.enter()
				time.Sleep(time.Minute + pause)
				if pause < wire.WriteStall {
					if f := g.hear(); f.Id != 2 {
						t.Errorf("heard %v", f)
					}
				}
				if err := <-result; (err == nil) != (pause < wire.WriteStall) || err != nil && !isTimeout(err) {
					t.Errorf("%v", err)
				}
				if pause < wire.WriteStall {
					g.goodbye()
				}
			})
		})
	}
}

// The end of the node ends a Send that waits, and is told to who reads.
func TestWebSocketEndsWithTheNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		result := make(chan error, 1)
		h := openPipes(t, func(ctx context.Context, c Client) error {
			if f, err := c.Frames.Frame(); err != nil || f.Id != 2 {
				return err // the end
			}
			sent := make(chan error, 1)
			if done, err := c.Commands.(sender).Send(append(make([]byte, wire.Headroom), say(2, "x")...), func(err error) { sent <- err }); done {
				result <- err
			} else {
				result <- <-sent
			}
			return context.Cause(ctx)
		})
		idle, stuck := h.enter(), h.enter(binary(say(2, "send")))
		_ = stuck
		synctest.Wait()
		began := time.Now()
		h.cancel()
		if code := idle.goodbye(); code != wire.CloseShuttingDown {
			t.Errorf("closed with %d", code)
		}
		if err := <-result; !isTimeout(err) {
			t.Errorf("the Send ended with %v", err)
		}
		h.Wait()
		if took := time.Since(began); took > 2*lastWords {
			t.Errorf("it took %v", took)
		}
	})
}

// What is kept of a peer that reads nothing is bounded.
func TestEagerIsBounded(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	e := &eager{Conn: near}
	e.begin()
	n := 0
	for ; n < 100; n++ {
		if _, err := e.Write(make([]byte, 64<<10)); err != nil {
			if wire.Code(err) != wire.CodeSlowReader {
				t.Error(err)
			}
			break
		}
	}
	if n != eagerMost/(64<<10) {
		t.Errorf("it took %d writes", n)
	}
}

// What a client says may come in pieces, with a wait before each.
func TestWebSocketInPieces(t *testing.T) {
	h := openTCP(t, echo)
	whole := h.dial
	h.dial = func() (net.Conn, error) {
		c, err := whole()
		return byByte{c}, err
	}
	g := h.enter()
	for id := uint64(2); id < 20; id++ {
		g.write(frame(ws.OpPing, true, nil), binary(say(id, "hi")))
		if f := g.heard(); f.Header.OpCode != ws.OpPong {
			t.Errorf("heard %+v", f.Header)
		}
		if f := g.hear(); f.Id != id {
			t.Errorf("heard %v instead of %d", f, id)
		}
	}
	g.write(frame(ws.OpClose, true, ws.NewCloseFrameBody(1000, "bye")))
	if code := g.goodbye(); code != wire.CloseNormal {
		t.Errorf("closed with %d", code)
	}
}

// byByte writes every byte by itself.
type byByte struct{ net.Conn }

func (c byByte) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		_, err = c.Conn.Write(p[n : n+1])
		n++
	}
	return n, err
}
