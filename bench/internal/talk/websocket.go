package talk

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"

	"github.com/gobwas/ws"
)

// A socket is a WebSocket whose messages are binary.
type socket struct {
	*line
	body scratch
	mask [4]byte
}

// upgrade makes a connection a WebSocket.
func upgrade(ctx context.Context, c net.Conn, config *tls.Config, addr, path, protocol string) (*socket, error) {
	t, err := encrypt(ctx, c, config)
	if err != nil {
		return nil, err
	}
	d := ws.Dialer{Protocols: []string{protocol}}
	early, hand, err := d.Upgrade(t, &url.URL{Scheme: "wss", Host: addr, Path: path})
	if err != nil {
		return nil, err
	}
	if hand.Protocol != protocol {
		return nil, fmt.Errorf("the server speaks %q, not %q", hand.Protocol, protocol)
	}
	s := &socket{line: newLine(t)}
	_, _ = rand.Read(s.mask[:])
	if early != nil { // what came with the answer
		s.in = bufio.NewReaderSize(io.MultiReader(io.LimitReader(early, int64(early.Buffered())), t), readBuffer)
	}
	return s, nil
}

// putMessage adds one binary message to what the next flush writes.
func (s *socket) putMessage(add func([]byte) []byte) error { return s.putFrame(ws.OpBinary, add) }

func (s *socket) putFrame(op ws.OpCode, add func([]byte) []byte) error {
	payload := add(nil)
	return s.put(func(out []byte) []byte {
		w := &appender{out}
		_ = ws.WriteHeader(w, ws.Header{Fin: true, OpCode: op, Masked: true, Mask: s.mask, Length: int64(len(payload))})
		ws.Cipher(payload, s.mask, 0)
		return append(w.b, payload...)
	})
}

// Beat lets the server hear that the client is there.
func (s *socket) Beat() error {
	if err := s.putFrame(ws.OpPing, func(out []byte) []byte { return out }); err != nil {
		return err
	}
	return s.Flush()
}

// An appender is a Writer to a slice.
type appender struct{ b []byte }

func (a *appender) Write(p []byte) (int, error) {
	a.b = append(a.b, p...)
	return len(p), nil
}

// message reads the next message, which is good until the next call. Messages
// in fragments are not of these servers' habit.
func (s *socket) message() ([]byte, error) {
	for {
		h, err := ws.ReadHeader(s.in)
		if err != nil {
			return nil, err
		}
		if h.Length > maxMessage || !h.Fin {
			return nil, fmt.Errorf("a WebSocket frame of %d bytes, the last one: %v", h.Length, h.Fin)
		}
		body := s.body.of(int(h.Length))
		if _, err := io.ReadFull(s.in, body); err != nil {
			return nil, err
		}
		switch h.OpCode {
		case ws.OpBinary:
			return body, nil
		case ws.OpPing:
			if err := s.putFrame(ws.OpPong, func(out []byte) []byte { return append(out, body...) }); err != nil {
				return nil, err
			}
			if err := s.Flush(); err != nil {
				return nil, err
			}
		case ws.OpPong:
		case ws.OpClose:
			code, reason := ws.ParseCloseFrameData(body)
			return nil, fmt.Errorf("the server closes with %d: %s", code, reason)
		default:
			return nil, errors.New("a WebSocket message that is not binary")
		}
	}
}
