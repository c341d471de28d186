package talk

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// The numbers of the fields of Starling's frames that are of use here; the
// schema is wire/im.proto in the folder above.
const (
	frameID      = 1
	frameHello   = 2
	frameWelcome = 3
	frameError   = 4
	framePublish = 5
	frameFollow  = 8
	frameEvents  = 11
	framePing    = 21

	helloToken = 1

	errorCode    = 1
	errorMessage = 2
	errorAfter   = 4

	publishRoom    = 1
	publishID      = 2
	publishKind    = 3
	publishType    = 4
	publishContent = 5
	publishAttempt = 7
	kindMessage    = 1

	followRoom     = 1
	followAfter    = 2
	followFromHead = 4

	pingPadding = 1

	eventsEvents = 2
	eventSeq     = 1
	eventContent = 5
)

// headerLen is the length of a frame's header: a version, flags, and the
// length of what follows in four bytes.
const headerLen = 6

// helloFrame is the id of the first frame; those of follows come next, and
// those of messages after these.
const (
	helloFrame  = 1
	firstFollow = 2
	firstSend   = 10_000

	heartbeatFrame = firstSend - 1
)

// A starlingConn speaks Starling's frames, over streams of QUIC or a WebSocket.
type starlingConn struct {
	put    func(add func([]byte) []byte) error
	flush  func() error
	answer func() ([]byte, error) // the next frame of the stream of commands
	events func() ([]byte, error) // and of that of events
	beat   func() error
	close  func()
	once   sync.Once
	prefix string // of the ids of messages
	follow uint64 // the id of the next follow
	buffer []byte
}

func (d *Dialer) newStarling() *starlingConn {
	return &starlingConn{prefix: d.prefix, follow: firstFollow}
}

// hello says who the client is and waits for the welcome.
func (s *starlingConn) hello(token string) error {
	hello := protowire.AppendTag(nil, helloToken, protowire.BytesType)
	hello = protowire.AppendString(hello, token)
	if err := s.send(helloFrame, frameHello, hello); err != nil {
		return err
	}
	if err := s.flush(); err != nil {
		return err
	}
	return s.await(helloFrame, nil)
}

// send puts a frame with one body.
func (s *starlingConn) send(id uint64, field protowire.Number, body []byte) error {
	return s.put(func(out []byte) []byte { return appendFrame(out, id, field, body) })
}

func appendFrame(out []byte, id uint64, field protowire.Number, body []byte) []byte {
	n := protowire.SizeTag(frameID) + protowire.SizeVarint(id) + protowire.SizeTag(field) + protowire.SizeBytes(len(body))
	out = binary.BigEndian.AppendUint32(append(out, 1, 0), uint32(n))
	out = protowire.AppendVarint(protowire.AppendTag(out, frameID, protowire.VarintType), id)
	return protowire.AppendBytes(protowire.AppendTag(out, field, protowire.BytesType), body)
}

// await reads answers up to the one with an id.
func (s *starlingConn) await(id uint64, h *Handler) error {
	for {
		frame, err := s.answer()
		if err != nil {
			return err
		}
		f, err := splitFrame(frame)
		switch {
		case err != nil:
			return err
		case f.field == frameError:
			return refused(f.body)
		case f.field == frameEvents:
			err = messages(f.body, h)
		case f.id == id:
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (s *starlingConn) Follow(rooms []string, after uint64, h *Handler) error {
	for _, room := range rooms {
		body := protowire.AppendString(protowire.AppendTag(nil, followRoom, protowire.BytesType), room)
		if after == 0 {
			body = protowire.AppendVarint(protowire.AppendTag(body, followFromHead, protowire.VarintType), 1)
		} else {
			body = protowire.AppendVarint(protowire.AppendTag(body, followAfter, protowire.VarintType), after)
		}
		id := s.follow
		s.follow++
		if err := s.send(id, frameFollow, body); err != nil {
			return err
		}
		if err := s.flush(); err != nil {
			return err
		}
		if err := s.await(id, h); err != nil {
			return err
		}
	}
	return nil
}

func (s *starlingConn) Publish(id uint64, attempt uint32, room string, content []byte) error {
	b := protowire.AppendString(protowire.AppendTag(s.buffer[:0], publishRoom, protowire.BytesType), room)
	b = protowire.AppendString(protowire.AppendTag(b, publishID, protowire.BytesType), s.prefix+strconv.FormatUint(id, 10))
	b = protowire.AppendVarint(protowire.AppendTag(b, publishKind, protowire.VarintType), kindMessage)
	b = protowire.AppendString(protowire.AppendTag(b, publishType, protowire.BytesType), "text")
	b = protowire.AppendBytes(protowire.AppendTag(b, publishContent, protowire.BytesType), content)
	if attempt > 0 {
		b = protowire.AppendVarint(protowire.AppendTag(b, publishAttempt, protowire.VarintType), uint64(attempt))
	}
	s.buffer = b
	return s.send(firstSend+id, framePublish, b)
}

func (s *starlingConn) Flush() error { return s.flush() }

// Read reads events if these have a stream of their own and some are followed,
// else answers, among which events are.
func (s *starlingConn) Read(h *Handler) error {
	from := s.answer
	if s.events != nil && h.Message != nil {
		from = s.events
	}
	for {
		frame, err := from()
		if err != nil {
			return err
		}
		f, err := splitFrame(frame)
		switch {
		case err != nil:
			return err
		case f.field == frameEvents:
			err = messages(f.body, h)
		case f.id == heartbeatFrame:
		case f.field == frameError && f.id >= firstSend:
			h.Acked(f.id-firstSend, refused(f.body))
		case f.field == frameError:
			return refused(f.body)
		case f.id >= firstSend:
			h.Acked(f.id-firstSend, nil)
		}
		if err != nil {
			return err
		}
	}
}

// Beat lets the node hear that the client is there; QUIC does so by itself.
func (s *starlingConn) Beat() error { return s.beat() }

func (s *starlingConn) Close() { s.once.Do(s.close) }

// A frame is an id and one body.
type frame struct {
	id    uint64
	field protowire.Number
	body  []byte
}

var errFrame = errors.New("a frame cannot be decoded")

func splitFrame(b []byte) (f frame, err error) {
	err = fields(b, func(n protowire.Number, v uint64, body []byte) error {
		if n == frameID {
			f.id = v
		} else if body != nil {
			f.field, f.body = n, body
		}
		return nil
	})
	return f, err
}

// fields calls got with each field of a message: its number, and its value or
// its bytes.
func fields(b []byte, got func(n protowire.Number, v uint64, body []byte) error) error {
	for len(b) > 0 {
		n, kind, size := protowire.ConsumeTag(b)
		if size < 0 {
			return errFrame
		}
		b = b[size:]
		var v uint64
		var body []byte
		switch kind {
		case protowire.VarintType:
			v, size = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			body, size = protowire.ConsumeBytes(b)
		default:
			size = protowire.ConsumeFieldValue(n, kind, b)
		}
		if size < 0 {
			return errFrame
		}
		b = b[size:]
		if err := got(n, v, body); err != nil {
			return err
		}
	}
	return nil
}

// messages hands over the messages of an Events.
func messages(b []byte, h *Handler) error {
	return fields(b, func(n protowire.Number, _ uint64, event []byte) error {
		if n != eventsEvents {
			return nil
		}
		var seq uint64
		var content []byte
		err := fields(event, func(n protowire.Number, v uint64, body []byte) error {
			switch n {
			case eventSeq:
				seq = v
			case eventContent:
				content = body
			}
			return nil
		})
		if err == nil {
			h.Message(content, seq)
		}
		return err
	})
}

// Refused is an Error of a node.
type Refused struct {
	Code, Message string
	After         time.Duration // when to try again; 0 = it does not say
}

func (r *Refused) Error() string { return fmt.Sprintf("the node answers %s: %s", r.Code, r.Message) }

func refused(b []byte) error {
	r := &Refused{}
	err := fields(b, func(n protowire.Number, v uint64, body []byte) error {
		switch n {
		case errorCode:
			r.Code = string(body)
		case errorMessage:
			r.Message = string(body)
		case errorAfter:
			r.After = time.Duration(v) * time.Millisecond
		}
		return nil
	})
	if err != nil {
		return err
	}
	return r
}

// nextFrame reads a frame, which is good until the next call.
func nextFrame(r io.Reader, s *scratch) ([]byte, error) {
	head := s.of(headerLen)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	n, err := frameLength(head)
	if err != nil {
		return nil, err
	}
	body := s.of(n)
	_, err = io.ReadFull(r, body)
	return body, err
}

func frameLength(head []byte) (int, error) {
	n := binary.BigEndian.Uint32(head[2:])
	if head[0] != 1 || head[1] != 0 || n > maxMessage {
		return 0, errFrame
	}
	return int(n), nil
}

// greetStarling begins a session over a WebSocket, each of whose messages is
// one frame or more.
func (d *Dialer) greetStarling(ctx context.Context, c net.Conn, config *tls.Config) (Conn, error) {
	w, err := upgrade(ctx, c, config, d.target.Addr, "/ws", "im.1.pb")
	if err != nil {
		return nil, err
	}
	s := d.newStarling()
	var rest []byte
	s.put, s.flush, s.beat, s.close = w.putMessage, w.Flush, w.Beat, w.Close
	s.answer = func() ([]byte, error) {
		if len(rest) == 0 {
			var err error
			if rest, err = w.message(); err != nil {
				return nil, err
			}
		}
		if len(rest) < headerLen {
			return nil, errFrame
		}
		n, err := frameLength(rest)
		if err != nil || len(rest) < headerLen+n {
			return nil, errFrame
		}
		f := rest[headerLen : headerLen+n]
		rest = rest[headerLen+n:]
		return f, nil
	}
	return s, s.hello(d.target.Token)
}
