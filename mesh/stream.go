package mesh

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// The kinds of streams over a link.
const (
	StreamGossip   byte = 1 // full states of gossip, both ways, once
	StreamRaft     byte = 2 // Raft messages of all groups, in order
	StreamSnapshot byte = 3 // one Raft snapshot
	StreamRelay    byte = 4 // frames of package wire, as a client's session has them
	StreamKeys     byte = 5 // the keys of gossip, from the side that did not open it
	StreamTunnel   byte = 6 // packets of tunnels, to the side that did not open it
	StreamHistory  byte = 7 // frames as over StreamRelay, but of pages of history only
	streamChosen   byte = 8 // nothing: the first stream of a link, from the side that dialled
)

// kindNames names the kinds in logs and errors.
var kindNames = map[byte]string{
	StreamGossip: "gossip", StreamRaft: "raft", StreamSnapshot: "snapshot", StreamRelay: "relay", StreamKeys: "keys", StreamTunnel: "tunnel",
	StreamHistory: "history",
}

func kindName(kind byte) string {
	if name, ok := kindNames[kind]; ok {
		return name
	}
	return fmt.Sprintf("kind %d", kind)
}

// streamVersion is the version of the header of a stream: this byte and the kind.
const streamVersion = 1

// Stream is a bidirectional stream to another node. Reading and writing may be
// done by two goroutines. Resets by the peer that have a name are reported as
// ErrUnknownKind and ErrNewerVersion.
type Stream struct {
	s       *quic.Stream
	writing sync.Mutex
	conn    *quic.Conn
	pacer   *pacer // of bulk, else nil
	out, in tally
}

// Read reads what the peer wrote; io.EOF after the peer closed the stream.
func (s *Stream) Read(p []byte) (int, error) {
	n, err := s.s.Read(p)
	s.in.count(p[:n])
	if err != nil && err != io.EOF {
		err = streamError(err)
	}
	return n, err
}

// Write blocks while the peer does not read, until the write deadline.
func (s *Stream) Write(p []byte) (int, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	write := s.s.Write
	if s.pacer != nil {
		write = s.writePaced
	}
	n, err := write(p)
	s.out.count(p[:n])
	return n, streamError(err)
}

// Close ends both directions. What was written before is still delivered; a
// write that is under way is cut off, and the peer is told so by a reset.
func (s *Stream) Close() error {
	s.s.CancelRead(resetClosed)
	if !s.writing.TryLock() {
		s.s.CancelWrite(resetClosed)
		return nil
	}
	defer s.writing.Unlock()
	return s.s.Close()
}

// reset ends both directions with a code.
func (s *Stream) reset(code quic.StreamErrorCode) {
	s.s.CancelRead(code)
	s.s.CancelWrite(code)
}

// SetReadDeadline bounds reads, also the one that is under way.
func (s *Stream) SetReadDeadline(t time.Time) error { return s.s.SetReadDeadline(t) }

// SetWriteDeadline bounds writes, also the one that is under way.
func (s *Stream) SetWriteDeadline(t time.Time) error { return s.s.SetWriteDeadline(t) }

// Context ends when nothing can be written any more: after Close, a reset by
// the peer, or the end of the link.
func (s *Stream) Context() context.Context { return s.s.Context() }

// Handler serves one stream that node opened. The stream is closed when it
// returns; ctx ends with the link or the mesh.
type Handler func(ctx context.Context, node string, s *Stream)

// openStream opens a stream over a link and writes its header, which tells the
// peer that the stream exists.
func openStream(ctx context.Context, l *link, kind byte) (*Stream, error) {
	qs, err := l.conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, fmt.Errorf("mesh: open a %s stream to %s: %w", kindName(kind), l.node, err)
	}
	s := newStream(l, kind, qs)
	if _, err := qs.Write([]byte{streamVersion, kind}); err != nil {
		err = streamError(err)
		s.reset(resetHeader)
		return nil, fmt.Errorf("mesh: open a %s stream to %s: %w", kindName(kind), l.node, err)
	}
	return s, nil
}

// dispatch reads the header of an accepted stream and hands it to its handler.
func (m *Mesh) dispatch(ctx context.Context, l *link, handlers map[byte]Handler, qs *quic.Stream) {
	s := &Stream{s: qs}
	var header [2]byte
	_ = s.SetReadDeadline(time.Now().Add(headerWithin))
	if _, err := io.ReadFull(s, header[:]); err != nil {
		s.reset(resetHeader)
		return
	}
	_ = s.SetReadDeadline(time.Time{})
	version, kind := header[0], header[1]
	handler := handlers[kind]
	switch {
	case version > streamVersion:
		m.log.Warn("reset a stream of a newer version", "peer", l.node, "version", version)
		s.reset(resetNewerVersion)
	case version != streamVersion || handler == nil:
		m.log.Warn("reset a stream of an unknown kind", "peer", l.node, "kind", kind)
		s.reset(resetUnknownKind)
	default:
		s = newStream(l, kind, qs)
		handler(ctx, l.node, s)
		_ = s.Close()
	}
}
