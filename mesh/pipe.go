package mesh

import (
	"bufio"
	"context"
	"io"
	"time"
)

// pipe carries packets of tunnels to a neighbour, a node that this one reaches by
// itself: over a stream of the link, or over a carrier.
type pipe struct {
	node    string
	carrier *carrier // nil = over the link
	queue   chan packet
}

func newPipe(node string, c *carrier) *pipe {
	return &pipe{node: node, carrier: c, queue: make(chan packet, tunnelQueue)}
}

// put hands a packet over, or loses it if too many wait.
func (p *pipe) put(k packet) bool {
	select {
	case p.queue <- k:
		return true
	default:
		return false
	}
}

// write writes packets until w fails, ctx ends, or there was none for a while.
func (p *pipe) write(ctx context.Context, w io.Writer) {
	buf := bufio.NewWriterSize(w, 16<<10)
	var b []byte
	idle := time.NewTimer(pipeIdle)
	defer idle.Stop()
	for {
		select {
		case k := <-p.queue:
			idle.Reset(pipeIdle)
			b = k.append(b[:0])
			if _, err := buf.Write(b); err != nil {
				return
			}
			if len(p.queue) == 0 {
				if err := buf.Flush(); err != nil {
					return
				}
			}
		case <-idle.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// overLink carries what is put over a stream of the link to the neighbour.
func (t *tunnels) overLink(ctx context.Context, p *pipe, l *link) {
	defer t.drop(p)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.conn.Context(), cancel)()
	s, err := openStream(ctx, l, StreamTunnel)
	if err != nil {
		return
	}
	defer s.Close()
	defer context.AfterFunc(ctx, func() { _ = s.SetWriteDeadline(time.Now()) })()
	p.write(ctx, s)
}

// serve takes the packets of a stream that a neighbour opened.
func (t *tunnels) serve(_ context.Context, node string, s *Stream) { t.read(node, nil, s) }

// read takes packets of a neighbour until r ends. Over is the pipe of a carrier, else nil.
func (t *tunnels) read(node string, over *pipe, r io.Reader) {
	buf := bufio.NewReaderSize(r, 16<<10)
	for {
		p, err := readPacket(buf)
		if err != nil {
			if err == errBadPacket {
				t.m.log.Warn("no packets of tunnels", "peer", node)
			}
			return
		}
		if over != nil {
			t.prefer(over)
		}
		t.pass(p, node)
	}
}
