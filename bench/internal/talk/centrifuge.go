package talk

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/centrifugal/protocol"
)

// A centrifugeConn speaks Centrifuge's protocol in its binary form over a
// WebSocket.
type centrifugeConn struct {
	*socket
	encoder *protocol.ProtobufCommandEncoder
}

// centrifugePath is where the bench's server of Centrifuge has its WebSocket.
const centrifugePath = "/connection/websocket"

// The ids of commands other than publishing, whose ids follow these.
const (
	centrifugeConnect = 1 + iota
	centrifugeFollow
	centrifugeBefore
)

func greetCentrifuge(ctx context.Context, c net.Conn, config *tls.Config, addr string) (Conn, error) {
	s, err := upgrade(ctx, c, config, addr, centrifugePath, "centrifuge-protobuf")
	if err != nil {
		return nil, err
	}
	f := &centrifugeConn{socket: s, encoder: protocol.NewProtobufCommandEncoder()}
	err = f.ask(&protocol.Command{Id: centrifugeConnect, Connect: &protocol.ConnectRequest{}}, nil)
	return f, err
}

// put adds a command to what the next flush writes.
func (f *centrifugeConn) command(c *protocol.Command) error {
	b, err := f.encoder.Encode(c)
	if err != nil {
		return err
	}
	return f.putMessage(func(out []byte) []byte { return append(out, b...) })
}

// ask sends a command and reads up to its answer.
func (f *centrifugeConn) ask(c *protocol.Command, h *Handler) error {
	err := f.command(c)
	if err == nil {
		err = f.Flush()
	}
	for answered := false; err == nil && !answered; {
		err = f.next(h, func(r *protocol.Reply) error {
			answered = r.Id == c.Id
			return refusal(r)
		})
	}
	return err
}

func refusal(r *protocol.Reply) error {
	if r.Error != nil {
		return fmt.Errorf("the server answers with %d: %s", r.Error.Code, r.Error.Message)
	}
	return nil
}

func (f *centrifugeConn) Follow(rooms []string, _ uint64, h *Handler) error {
	for _, room := range rooms {
		err := f.ask(&protocol.Command{Id: centrifugeFollow, Subscribe: &protocol.SubscribeRequest{Channel: room}}, h)
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *centrifugeConn) Publish(id uint64, _ uint32, room string, content []byte) error {
	return f.command(&protocol.Command{Id: centrifugeBefore + uint32(id), Publish: &protocol.PublishRequest{Channel: room, Data: content}})
}

func (f *centrifugeConn) Read(h *Handler) error {
	for {
		err := f.next(h, func(r *protocol.Reply) error {
			h.Acked(uint64(r.Id-centrifugeBefore), refusal(r))
			return nil
		})
		if err != nil {
			return err
		}
	}
}

// next reads one WebSocket message, which holds one reply or more.
func (f *centrifugeConn) next(h *Handler, answer func(*protocol.Reply) error) error {
	b, err := f.message()
	if err != nil {
		return err
	}
	for replies := protocol.NewProtobufReplyDecoder(b); ; {
		r, err := replies.Decode()
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		switch {
		case r == nil:
		case r.Push != nil:
			if r.Push.Disconnect != nil {
				return fmt.Errorf("the server disconnects with %d: %s", r.Push.Disconnect.Code, r.Push.Disconnect.Reason)
			}
			if r.Push.Pub != nil {
				h.Message(r.Push.Pub.Data, 0)
			}
		case r.Id != 0:
			if err := answer(r); err != nil {
				return err
			}
		default: // is the client there?
			if err := f.command(&protocol.Command{}); err != nil {
				return err
			}
			if err := f.Flush(); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
	}
}
