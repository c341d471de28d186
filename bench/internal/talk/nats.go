package talk

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
)

// A natsConn speaks the lines of NATS: INFO before TLS, CONNECT, SUB, PUB and
// MSG.
type natsConn struct {
	*line
	body scratch
}

func greetNATS(ctx context.Context, c net.Conn, config *tls.Config) (Conn, error) {
	// Byte by byte, since what follows the line is TLS.
	info, b := []byte(nil), make([]byte, 1)
	for !bytes.HasSuffix(info, []byte("\r\n")) {
		if _, err := c.Read(b); err != nil {
			return nil, err
		}
		info = append(info, b[0])
	}
	if !bytes.HasPrefix(info, []byte("INFO ")) {
		return nil, fmt.Errorf("the server began with %q", info)
	}
	t, err := encrypt(ctx, c, config)
	if err != nil {
		return nil, err
	}
	n := &natsConn{line: newLine(t)}
	err = n.say(func(out []byte) []byte {
		return append(out, `CONNECT {"verbose":false,"pedantic":false,"tls_required":true,"name":"bench","lang":"go","version":"1","protocol":1,"echo":true}`+"\r\n"...)
	})
	if err == nil {
		err = n.until(nil)
	}
	return n, err
}

// until asks the server for a sign of life, which comes when it has done all
// that was asked before, and reads up to that.
func (n *natsConn) until(h *Handler) error {
	err := n.say(func(out []byte) []byte { return append(out, "PING\r\n"...) })
	for err == nil {
		var pong bool
		if pong, err = n.next(h); pong {
			return err
		}
	}
	return err
}

func (n *natsConn) Follow(rooms []string, _ uint64, h *Handler) error {
	for i, room := range rooms {
		err := n.put(func(out []byte) []byte { return fmt.Appendf(out, "SUB %s %d\r\n", room, i+1) })
		if err != nil {
			return err
		}
	}
	return n.until(h)
}

func (n *natsConn) Publish(_ uint64, _ uint32, room string, content []byte) error {
	return n.put(func(out []byte) []byte {
		out = append(append(append(out, "PUB "...), room...), ' ')
		out = append(strconv.AppendInt(out, int64(len(content)), 10), "\r\n"...)
		return append(append(out, content...), "\r\n"...)
	})
}

func (n *natsConn) Read(h *Handler) error {
	for {
		if _, err := n.next(h); err != nil {
			return err
		}
	}
}

// next reads one thing that the server says.
func (n *natsConn) next(h *Handler) (pong bool, err error) {
	text, err := n.in.ReadSlice('\n')
	if err != nil {
		return false, err
	}
	switch {
	case bytes.HasPrefix(text, []byte("MSG ")):
		return false, n.message(text, h)
	case bytes.HasPrefix(text, []byte("PING")):
		return false, n.say(func(out []byte) []byte { return append(out, "PONG\r\n"...) })
	case bytes.HasPrefix(text, []byte("PONG")):
		return true, nil
	case bytes.HasPrefix(text, []byte("-ERR")):
		return false, fmt.Errorf("the server says %q", text)
	}
	return false, nil // INFO again
}

// message reads what follows "MSG subject sid length".
func (n *natsConn) message(text []byte, h *Handler) error {
	text = bytes.TrimRight(text, "\r\n")
	length := 0
	for _, b := range text[bytes.LastIndexByte(text, ' ')+1:] {
		if b < '0' || b > '9' || length > maxMessage {
			return fmt.Errorf("a message begins with %q", text)
		}
		length = 10*length + int(b-'0')
	}
	body := n.body.of(length + 2)
	if _, err := io.ReadFull(n.in, body); err != nil {
		return err
	}
	if !bytes.HasSuffix(body, []byte("\r\n")) {
		return errors.New("a message does not end with its line")
	}
	h.Message(body[:length], 0)
	return nil
}

// maxMessage is the longest message that is believed, in bytes.
const maxMessage = 1 << 20
