package wire

import (
	"encoding/binary"
	"errors"
	"io"
)

// Version is the format version of a frame header. It changes only when the
// header's layout does; the schema grows by adding fields.
const Version = 1

// headerLen is the size of a frame header: one byte of version, one of flags,
// and the payload's length as a big-endian uint32.
const headerLen = 6

// flagZstd marks a payload that is one zstd frame.
const flagZstd = 1

// WebSocketProtocol is the subprotocol of frames over WebSocket. The binary messages of a
// connection, one after the other, are what a QUIC client's stream of commands is; the
// node's messages hold whole frames each, events among them.
const WebSocketProtocol = "im.1.pb"

// Headroom is the room, in bytes, that is kept before frames which a connection puts a
// header of its own before: that of a WebSocket message (RFC 6455, section 5.2).
const Headroom = 10

// message is what vtprotobuf generates for the hot path.
type message interface {
	SizeVT() int
	MarshalToSizedBufferVT([]byte) (int, error)
}

// AppendMessage appends m as one uncompressed frame to dst.
func AppendMessage(dst []byte, m message) []byte {
	n := m.SizeVT()
	dst = appendHeader(dst, 0, n)
	start := len(dst)
	dst = append(dst, make([]byte, n)...)
	if _, err := m.MarshalToSizedBufferVT(dst[start:]); err != nil {
		// Only a message that was changed while being encoded fails here.
		panic("wire: " + err.Error())
	}
	return dst
}

// AppendCompressed is AppendMessage with a payload that is compressed if that
// makes it smaller, with a dictionary that the peer has said that it knows. It is
// for links between nodes: a frame holds the data of many users, and on a link
// nobody can measure its size from outside.
func AppendCompressed(dst []byte, m message, d Dictionary) []byte {
	return pack(AppendMessage(dst, m), len(dst), d)
}

func appendHeader(dst []byte, flags byte, n int) []byte {
	dst = append(dst, Version, flags)
	return binary.BigEndian.AppendUint32(dst, uint32(n))
}

// Reader reads frames from one stream. It is not safe for concurrent use.
type Reader struct {
	r      io.Reader
	max    int
	header [headerLen]byte
	buf    []byte
	pos    int
}

// NewReader reads frames of at most max bytes of payload. Compressed ones come from
// nodes only: up to ClientFrame they are refused, and beyond unpacked to at most NodeFrame.
func NewReader(r io.Reader, max int) *Reader {
	buffer := nodeBuffer
	if max <= ClientFrame {
		buffer = clientBuffer
	}
	return &Reader{r: r, max: max, buf: make([]byte, 0, buffer)}
}

// Payload returns the next frame's payload, decompressed, in memory of its
// own. The end of the stream between two frames is io.EOF; within a frame it
// is io.ErrUnexpectedEOF. A frame that breaks a rule is an *Error.
func (r *Reader) Payload() ([]byte, error) {
	if err := r.read(r.header[:]); err != nil {
		return nil, err
	}
	if v := r.header[0]; v != Version {
		return nil, Errorf(CodeProtocol, "frame of version %d, this side knows %d", v, Version)
	}
	flags := r.header[1]
	if flags&^flagZstd != 0 {
		return nil, Errorf(CodeProtocol, "frame with unknown flags %#x", flags)
	}
	if flags&flagZstd != 0 && r.max <= ClientFrame {
		return nil, Errorf(CodeProtocol, "compressed frame, which only nodes send to each other")
	}
	n := int64(binary.BigEndian.Uint32(r.header[2:]))
	if n > int64(r.max) {
		return nil, TooLarge("frame", uint64(n), uint64(r.max))
	}
	payload, err := r.take(int(n))
	if err != nil {
		return nil, noEOF(err)
	}
	if flags&flagZstd != 0 {
		return decompress(payload)
	}
	return payload, nil
}

// take reads the next n bytes into memory that grows as they come: beyond firstPart it is at
// most four times what has.
func (r *Reader) take(n int) ([]byte, error) {
	p, came := make([]byte, min(n, firstPart)), 0
	for {
		if err := r.read(p[came:]); err != nil {
			return nil, err
		}
		if came = len(p); came == n {
			return p, nil
		}
		more := make([]byte, min(n, 4*came))
		copy(more, p)
		p = more
	}
}

// await waits for the next frame, if the stream has a way to that takes less stack than Read:
// a goroutine that waits for years keeps the one on which it does.
func (r *Reader) await() error {
	if s, ok := r.r.(interface{ Await() error }); ok && r.pos == len(r.buf) {
		return s.Await()
	}
	return nil
}

// Frame reads the next frame of a command or event stream.
func (r *Reader) Frame() (*Frame, error) {
	if err := r.await(); err != nil {
		return nil, err
	}
	payload, err := r.Payload()
	if err != nil {
		return nil, err
	}
	f := new(Frame)
	if err := f.UnmarshalVT(payload); err != nil {
		return nil, Errorf(CodeProtocol, "frame cannot be decoded: %v", err)
	}
	return f, nil
}

// Raft reads the next message of a Raft stream.
func (r *Reader) Raft() (*RaftMessage, error) {
	payload, err := r.Payload()
	if err != nil {
		return nil, err
	}
	m := new(RaftMessage)
	if err := m.UnmarshalVT(payload); err != nil {
		return nil, Errorf(CodeProtocol, "raft message cannot be decoded: %v", err)
	}
	return m, nil
}

// Rest returns the bytes after the last frame: those that are buffered, then
// those of the stream. The Reader must not be used afterwards.
func (r *Reader) Rest() io.Reader {
	return io.MultiReader(&buffered{r.buf[r.pos:]}, r.r)
}

// buffered is a bytes.Reader without its baggage.
type buffered struct{ b []byte }

func (b *buffered) Read(p []byte) (int, error) {
	if len(b.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, b.b)
	b.b = b.b[n:]
	return n, nil
}

// read fills p. It returns io.EOF only if not one byte came.
func (r *Reader) read(p []byte) error {
	got := 0
	for got < len(p) {
		if rest := len(p) - got; r.pos == len(r.buf) && rest >= cap(r.buf) {
			n, err := io.ReadFull(r.r, p[got:])
			if got += n; err != nil && got > 0 {
				return noEOF(err)
			}
			return err
		}
		if r.pos == len(r.buf) {
			if err := r.fill(); err != nil {
				if got > 0 {
					return noEOF(err)
				}
				return err
			}
		}
		n := copy(p[got:], r.buf[r.pos:])
		r.pos += n
		got += n
	}
	return nil
}

// fill replaces the used-up buffer by what one read of the stream gives.
func (r *Reader) fill() error {
	for range maxEmptyReads {
		n, err := r.r.Read(r.buf[:cap(r.buf)])
		r.buf, r.pos = r.buf[:n], 0
		if n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

const maxEmptyReads = 100

// noEOF turns an end that comes within a frame into the error it is.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
