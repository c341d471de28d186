package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/starling-im/starling/bench/internal/load"
	"github.com/starling-im/starling/bench/internal/talk"
)

// crowdPart is the part that is all clients of a turn.
const crowdPart = "crowd"

// A crowdSpec tells the crowd where to go and what to do.
type crowdSpec struct {
	Targets []talk.Target // followers are at each in turn, publishers at the first
	Work    relayWork
}

// A phase is what was counted of a workload; a crowd tells of each in the end.
type phase struct {
	Name       string  `json:"name"`
	Deliveries int     `json:"deliveries"`
	Messages   int     `json:"messages"`
	Seconds    float64 `json:"seconds"`
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
	Lost       int     `json:"lost"`
}

// A crowd is the clients of a turn: followers, each with one connection, and
// connections that publish.
type crowd struct {
	dialers    []*talk.Dialer
	work       relayWork
	began      time.Time
	rooms      []*crowdRoom
	followers  []*follower
	publishers []talk.Conn
	tokens     chan struct{} // one for each message that may be on its way
	counting   atomic.Bool
	lost       atomic.Int64
	fail       context.CancelCauseFunc
	readers    sync.WaitGroup
}

// A crowdRoom counts who has yet to get each message on its way. Message n is
// at n modulo the window, which is never exceeded.
type crowdRoom struct {
	name    string
	members int32
	sent    uint64
	pending []atomic.Int32
}

// A follower is one connection that follows rooms.
type follower struct {
	crowd  *crowd
	dialer *talk.Dialer
	name   string
	rooms  []int
	next   []uint64 // by room: the message that must come next
	got    atomic.Int64

	mu    sync.Mutex
	times load.Times
}

func newCrowd(s crowdSpec) (*crowd, error) {
	c := &crowd{work: s.Work, began: time.Now(), tokens: make(chan struct{}, s.Work.Window)}
	var err error
	if c.dialers, err = dialersTo(s.Targets); err != nil {
		return nil, err
	}
	members := s.Work.members()
	for i, m := range members {
		r := &crowdRoom{name: fmt.Sprintf("room%d", i), members: int32(len(m)), pending: make([]atomic.Int32, s.Work.Window)}
		c.rooms = append(c.rooms, r)
	}
	for i := range s.Work.Clients {
		f := &follower{crowd: c, dialer: c.dialers[i%len(c.dialers)], name: fmt.Sprintf("user%d", i), next: make([]uint64, len(c.rooms))}
		for n := range f.next {
			f.next[n] = 1
		}
		c.followers = append(c.followers, f)
	}
	for room, m := range members {
		for _, i := range m {
			c.followers[i].rooms = append(c.followers[i].rooms, room)
		}
	}
	for range s.Work.Window {
		c.tokens <- struct{}{}
	}
	return c, nil
}

func dialersTo(targets []talk.Target) (all []*talk.Dialer, err error) {
	for _, t := range targets {
		d, err := talk.NewDialer(t)
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}

// runCrowd does what a crowd is told, and returns what came of it.
func runCrowd(ctx context.Context, s crowdSpec) ([]phase, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c, err := newCrowd(s)
	if err != nil {
		return nil, err
	}
	c.fail = cancel
	conns, err := c.gather(ctx)
	defer func() {
		c.fail(errDone)
		for _, conn := range conns {
			conn.Close()
		}
		c.readers.Wait()
	}()
	if err != nil {
		return nil, err
	}
	return c.publish(ctx)
}

// errDone is why a crowd goes home.
var errDone = errors.New("the turn is over")

// dialsAtOnce bounds the handshakes at one time, which is enough to keep all
// processors busy. A real crowd comes from many addresses, this one from one,
// for which a Starling node has a bound: 32 before it asks for proof of the
// address, 64 in all.
const dialsAtOnce = 24

// gather opens all connections and begins to read from them.
func (c *crowd) gather(ctx context.Context) (all []talk.Conn, err error) {
	var mu sync.Mutex
	var work sync.WaitGroup
	places := make(chan struct{}, dialsAtOnce)
	open := func(dial func() (talk.Conn, error)) {
		places <- struct{}{}
		work.Go(func() {
			defer func() { <-places }()
			if ctx.Err() != nil {
				return
			}
			conn, err := dial()
			var late *talk.Refused
			for errors.As(err, &late) && late.After > 0 && pause(ctx, late.After) == nil { // as it was told to
				conn, err = dial()
			}
			if err != nil {
				c.fail(fmt.Errorf("a client does not get in: %w", err))
				return
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, conn)
		})
	}
	for _, f := range c.followers {
		open(func() (talk.Conn, error) { return f.join(ctx) })
	}
	c.publishers = make([]talk.Conn, c.work.Publishers)
	for i := range c.publishers {
		open(func() (conn talk.Conn, err error) {
			c.publishers[i], err = c.dialers[0].Dial(ctx, fmt.Sprintf("publisher%d", i), nil)
			return c.publishers[i], err
		})
	}
	work.Wait()
	if ctx.Err() != nil {
		return all, context.Cause(ctx)
	}
	for _, p := range c.publishers {
		c.read(p, &talk.Handler{Acked: func(_ uint64, err error) {
			if err != nil {
				c.fail(err)
			}
		}})
	}
	c.readers.Go(func() { beat(ctx, all) })
	return all, nil
}

// join opens the follower's connection and reads from it.
func (f *follower) join(ctx context.Context) (talk.Conn, error) {
	conn, err := f.dialer.Dial(ctx, f.name, nil)
	if err != nil {
		return nil, err
	}
	h := &talk.Handler{Message: f.message, Acked: func(uint64, error) {}}
	late := context.AfterFunc(ctx, conn.Close)
	defer late()
	if err := conn.Follow(f.names(), 0, h); err != nil {
		conn.Close()
		return nil, err
	}
	f.crowd.read(conn, h)
	return conn, nil
}

func (f *follower) names() (all []string) {
	for _, room := range f.rooms {
		all = append(all, f.crowd.rooms[room].name)
	}
	return all
}

// read reads from a connection for as long as there is the crowd.
func (c *crowd) read(conn talk.Conn, h *talk.Handler) {
	c.readers.Go(func() {
		if err := conn.Read(h); err != nil {
			c.fail(fmt.Errorf("a connection ended: %w", err))
		}
	})
}

// beat tells the servers that want to hear it that the clients are there.
func beat(ctx context.Context, conns []talk.Conn) {
	tick := time.NewTicker(talk.BeatEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		for _, conn := range conns {
			beatOnce(conn)
		}
	}
}

// beatOnce tells a server that a client is there, if it wants to hear it. Who reads hears of
// a connection's end.
func beatOnce(conn talk.Conn) {
	if b, ok := conn.(interface{ Beat() error }); ok {
		_ = b.Beat()
	}
}

// message takes a delivery in.
func (f *follower) message(content []byte, _ uint64) {
	s, err := readStamp(content)
	if err == nil && s.room >= len(f.next) {
		err = errStamp
	}
	if err == nil && s.number < f.next[s.room] {
		err = fmt.Errorf("%s gets message %d of room %d after message %d", f.name, s.number, s.room, f.next[s.room]-1)
	}
	if err != nil {
		f.crowd.fail(err)
		return
	}
	f.crowd.lost.Add(int64(s.number - f.next[s.room]))
	for ; f.next[s.room] <= s.number; f.next[s.room]++ {
		f.crowd.delivered(s.room, f.next[s.room])
	}
	f.got.Add(1)
	if f.crowd.counting.Load() {
		took := time.Since(f.crowd.began) - s.sent
		f.mu.Lock()
		f.times.Note(took)
		f.mu.Unlock()
	}
}

// delivered crosses a message off for one member; the last one makes place for
// another message.
func (c *crowd) delivered(room int, number uint64) {
	r := c.rooms[room]
	if r.pending[number%uint64(len(r.pending))].Add(-1) == 0 {
		c.tokens <- struct{}{}
	}
}
