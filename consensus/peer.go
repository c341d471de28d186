package consensus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/starling-im/starling/internal/sendq"
	"github.com/starling-im/starling/wire"
)

var (
	errBackoff = errors.New("consensus: peer was unreachable a moment ago")
	errTimeout = errors.New("consensus: peer did not answer in time")
	errClosed  = errors.New("consensus: host is closed")
)

// peer is the sending side to one other node: a stream that is opened when
// there is something to send, and the requests that wait for an answer. The
// answers come on the stream that the other node opens.
type peer struct {
	h    *Host
	node string
	// copies counts the commands in AppendEntries sent.
	copies atomic.Uint64
	beats  *beats
	// dictionary is a wire.Dictionary that the node's present stream has named.
	dictionary atomic.Uint32

	mu      sync.Mutex
	conn    *conn
	redial  time.Time // not before
	served  int       // streams that the node has opened
	broke   time.Time // when the last of them ended
	told    bool      // a stream to the node was opened, which begins with this node's life
	pause   time.Duration
	nextID  uint64
	waiting map[uint64]*request
}

// request waits for an answer; done is called once.
type request struct {
	done  func(*wire.RaftMessage, error)
	timer *time.Timer
}

// conn is one outgoing stream with its queue. It dials in the first Write, on
// the queue's goroutine, so that frames gather meanwhile.
type conn struct {
	p *peer
	q *sendq.Queue

	mu     sync.Mutex
	s      Stream
	closed bool
}

func newPeer(h *Host, node string) *peer {
	// Ids start at random: an answer that was meant for this node's former
	// life must not fit a request of this one.
	p := &peer{h: h, node: node, nextID: rand.Uint64() | 1, waiting: map[uint64]*request{}}
	p.beats = newBeats(p)
	return p
}

// ask sends a request and calls done with the answer, an error of the other
// node, or what went wrong. bulk may wait for space in the queue.
func (p *peer) ask(m *wire.RaftMessage, bulk bool, done func(*wire.RaftMessage, error)) {
	r := &request{done: done}
	p.mu.Lock()
	p.nextID++
	if p.nextID == 0 { // 0 asks for no answer
		p.nextID++
	}
	id := p.nextID
	m.Id = id
	p.waiting[id] = r
	r.timer = time.AfterFunc(requestTimeout, func() { p.answered(id, nil, errTimeout) })
	p.mu.Unlock()
	if err := p.send(m, bulk); err != nil {
		p.answered(id, nil, err)
	}
}

// askWait is ask for those who have nothing else to do.
func (p *peer) askWait(m *wire.RaftMessage, bulk bool) (*wire.RaftMessage, error) {
	type answer struct {
		m   *wire.RaftMessage
		err error
	}
	ch := make(chan answer, 1)
	p.ask(m, bulk, func(m *wire.RaftMessage, err error) { ch <- answer{m, err} })
	a := <-ch
	return a.m, a.err
}

// answered ends a request, if it still waits.
func (p *peer) answered(id uint64, m *wire.RaftMessage, err error) {
	p.mu.Lock()
	r := p.waiting[id]
	delete(p.waiting, id)
	p.mu.Unlock()
	if r == nil {
		return
	}
	r.timer.Stop()
	if err == nil && m.Error != "" {
		m, err = nil, &peerError{p.node, m.Error}
	}
	r.done(m, err)
}

// peerError is what another node answered instead of what it was asked.
type peerError struct{ node, text string }

func (e *peerError) Error() string { return "consensus: " + e.node + ": " + e.text }

// failAll ends all requests: their answers were lost with a stream.
func (p *peer) failAll(err error) {
	p.mu.Lock()
	lost := p.waiting
	p.waiting = map[uint64]*request{}
	p.mu.Unlock()
	for _, r := range lost {
		r.timer.Stop()
		r.done(nil, err)
	}
	p.beats.failAll(err)
}

// send queues a message, after the beats that were gathered. Its error means
// that it was not sent.
func (p *peer) send(m *wire.RaftMessage, bulk bool) error {
	if bulk { // it may wait, which others must not
		_ = p.beats.before(func() error { return nil })
		return p.push(m, bulk)
	}
	return p.beats.before(func() error { return p.push(m, bulk) })
}

func (p *peer) push(m *wire.RaftMessage, bulk bool) error {
	c, err := p.connection()
	if err != nil {
		return err
	}
	buf := frames.Get().(*[]byte)
	frame := wire.AppendCompressed((*buf)[:0], m, wire.Dictionary(p.dictionary.Load()))
	if bulk {
		err = c.q.PushWait(p.h.ctx, frame)
	} else {
		err = c.q.Push(frame)
	}
	if cap(frame) <= keepFrame {
		*buf = frame
		frames.Put(buf)
	}
	return err
}

// frames holds buffers for encoding; the queue copies.
var frames = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

// keepFrame is the largest buffer kept for encoding, in bytes.
const keepFrame = 256 << 10

func (p *peer) connection() (*conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil {
		return p.conn, nil
	}
	if err := p.h.down(); err != nil {
		return nil, err
	}
	if time.Now().Before(p.redial) {
		return nil, errBackoff
	}
	c := &conn{p: p}
	c.q = sendq.New(c, sendq.Config{Max: unsentBytes, Stall: wire.WriteStall, Failed: c.broken})
	p.conn = c
	return c, nil
}

// broken is called once when writing to the stream fails.
func (c *conn) broken(err error) {
	c.close()
	p := c.p
	p.mu.Lock()
	if p.conn == c {
		p.conn = nil
		p.pause = min(max(2*p.pause, redialFirst), redialMost)
		p.redial = time.Now().Add(p.pause)
	}
	p.mu.Unlock()
	p.failAll(fmt.Errorf("consensus: stream to %s broke: %w", p.node, err))
}

func (c *conn) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.s != nil {
		_ = c.s.Close()
	}
}

// Write is the queue's way to the stream.
func (c *conn) Write(b []byte) (int, error) {
	s, err := c.stream()
	if err != nil {
		return 0, err
	}
	return s.Write(b)
}

func (c *conn) stream() (Stream, error) {
	if c.s != nil { // only this goroutine sets it
		return c.s, nil
	}
	ctx, cancel := context.WithTimeout(c.p.h.ctx, dialTimeout)
	defer cancel()
	s, err := c.p.h.cfg.Dial(ctx, c.p.node, false)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		_ = s.Close()
		return nil, errClosed
	}
	c.s = s
	c.p.mu.Lock()
	c.p.pause = 0
	c.p.mu.Unlock()
	if err := s.SetWriteDeadline(time.Now().Add(wire.WriteStall)); err != nil {
		return nil, err
	}
	_, err = s.Write(wire.AppendMessage(nil, c.p.h.greeting(c.p.node)))
	c.p.mu.Lock()
	c.p.told = c.p.told || err == nil
	c.p.mu.Unlock()
	return s, err
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	if c.s == nil {
		return nil // set after dialling
	}
	return c.s.SetWriteDeadline(t)
}

// retry lets the next message dial at once: the node has just shown itself.
func (p *peer) retry() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.redial, p.pause = time.Time{}, 0
}

func (p *peer) close() {
	p.mu.Lock()
	c := p.conn
	p.mu.Unlock()
	if c != nil {
		c.close()
	}
	p.failAll(errClosed)
}
