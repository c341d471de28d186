package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// readFrames calls take for each frame, with a body of its own, until there
// are no more.
func readFrames(c io.Reader, take func(id uint64, group uint32, body []byte) error) error {
	in := bufio.NewReaderSize(c, 64<<10)
	var head [frameHeader]byte
	for {
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return err
		}
		size := binary.BigEndian.Uint32(head[12:])
		if size > maxBody {
			return fmt.Errorf("a body of %d bytes", size)
		}
		body := make([]byte, size)
		if _, err := io.ReadFull(in, body); err != nil {
			return err
		}
		if err := take(binary.BigEndian.Uint64(head[:8]), binary.BigEndian.Uint32(head[8:]), body); err != nil {
			return err
		}
	}
}

// gathered writes frames to a connection, those together that come while it
// writes.
type gathered struct {
	c      net.Conn
	mu     sync.Mutex
	more   sync.Cond
	frames []byte
	closed bool
}

func newGathered(c net.Conn) *gathered {
	g := &gathered{c: c}
	g.more.L = &g.mu
	go g.write()
	return g
}

func (g *gathered) frame(id uint64, group uint32, body []byte) {
	g.mu.Lock()
	g.frames = appendFrame(g.frames, id, group, body)
	g.mu.Unlock()
	g.more.Signal()
}

func (g *gathered) write() {
	var writing []byte
	for {
		g.mu.Lock()
		for len(g.frames) == 0 && !g.closed {
			g.more.Wait()
		}
		writing, g.frames = g.frames, writing[:0]
		closed := g.closed
		g.mu.Unlock()
		if _, err := g.c.Write(writing); err != nil || closed {
			return
		}
	}
}

func (g *gathered) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.more.Signal()
	_ = g.c.Close()
}

// links accepts the connections of all groups at one port. Each begins with
// its group.
type links struct {
	listener net.Listener
	mu       sync.Mutex
	groups   map[uint32]*groupLinks
}

func listenLinks(addr string) (*links, error) {
	l, err := net.Listen("tcp", addr)
	return &links{listener: l, groups: make(map[uint32]*groupLinks)}, err
}

func (l *links) close() { _ = l.listener.Close() }

// group returns the connections of one group.
func (l *links) group(id uint32) raft.StreamLayer {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := &groupLinks{l, id, make(chan net.Conn), make(chan struct{}), sync.Once{}}
	l.groups[id] = g
	return g
}

func (l *links) run() {
	acceptAll(l.listener, func(c net.Conn) {
		var id [4]byte
		_, err := io.ReadFull(c, id[:])
		l.mu.Lock()
		g := l.groups[binary.BigEndian.Uint32(id[:])]
		l.mu.Unlock()
		if err != nil || g == nil {
			_ = c.Close()
			return
		}
		select {
		case g.accepted <- c:
		case <-g.closed:
			_ = c.Close()
		}
	})
}

// groupLinks implements raft.StreamLayer for one group.
type groupLinks struct {
	links    *links
	id       uint32
	accepted chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

// Accept implements net.Listener.
func (g *groupLinks) Accept() (net.Conn, error) {
	select {
	case c := <-g.accepted:
		return c, nil
	case <-g.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (g *groupLinks) Close() error {
	g.once.Do(func() { close(g.closed) })
	return nil
}

// Addr implements net.Listener.
func (g *groupLinks) Addr() net.Addr { return g.links.listener.Addr() }

// Dial implements raft.StreamLayer.
func (g *groupLinks) Dial(addr raft.ServerAddress, within time.Duration) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", string(addr), within)
	if err != nil {
		return nil, err
	}
	if _, err := c.Write(binary.BigEndian.AppendUint32(nil, g.id)); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// A raftClient is a connection to one server.
type raftClient struct {
	out  *gathered
	mu   sync.Mutex
	last uint64
	open map[uint64]func(error)
}

var (
	errNotLed = errors.New("the server does not lead the group")
	errGone   = errors.New("the server is gone")
)

func dialRaft(addr string) (*raftClient, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	r := &raftClient{out: newGathered(c), open: make(map[uint64]func(error))}
	go r.read(c)
	return r, nil
}

func (r *raftClient) read(c net.Conn) {
	_ = readFrames(c, func(id uint64, status uint32, _ []byte) error {
		r.mu.Lock()
		done := r.open[id]
		delete(r.open, id)
		r.mu.Unlock()
		if done == nil {
			return fmt.Errorf("an answer to nothing, %d", id)
		}
		if status != proposalDone {
			done(errNotLed)
			return nil
		}
		done(nil)
		return nil
	})
	r.mu.Lock()
	open := r.open
	r.open = nil
	r.mu.Unlock()
	for _, done := range open {
		done(errGone)
	}
}

// propose calls done once with how the proposal ended.
func (r *raftClient) propose(group uint32, body []byte, done func(error)) {
	r.mu.Lock()
	if r.open == nil {
		r.mu.Unlock()
		done(errGone)
		return
	}
	r.last++
	id := r.last
	r.open[id] = done
	r.mu.Unlock()
	r.out.frame(id, group, body)
}

// sendToRaft finds the leader of each group and sends to it, over one
// connection to each server.
func sendToRaft(ctx context.Context, s senderSpec) (measured, error) {
	var clients []*raftClient
	for _, addr := range s.Addrs {
		c, err := dialRaft(addr)
		if err != nil {
			return measured{}, err
		}
		defer c.out.close()
		clients = append(clients, c)
	}
	leaders := make([]*raftClient, s.Work.Groups)
	for g := range leaders {
		var err error
		if leaders[g], err = leaderOf(ctx, clients, uint32(g)); err != nil {
			return measured{}, err
		}
	}
	content := make([]byte, s.Work.Size)
	var all []send
	for range min(s.Work.Sessions, s.Work.Window) {
		all = append(all, func(room int, done func(error)) {
			g := room % len(leaders)
			leaders[g].propose(uint32(g), content, done)
		})
	}
	return measure(ctx, s.Work, all)
}

// leaderOf asks around until a server takes a proposal.
func leaderOf(ctx context.Context, clients []*raftClient, group uint32) (*raftClient, error) {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		for _, c := range clients {
			ended := make(chan error, 1)
			c.propose(group, []byte("who leads?"), func(err error) { ended <- err })
			switch err := <-ended; {
			case err == nil:
				return c, nil
			case errors.Is(err, errGone):
				return nil, err
			}
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("group %d has no leader: %w", group, ctx.Err())
		}
	}
}
