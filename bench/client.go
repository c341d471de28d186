package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/starling-im/starling/bench/internal/talk"
)

// A client follows rooms, and comes back after what it has each time that its
// connection ends.
type client struct {
	herd    *herd
	number  int
	target  int
	tickets tls.ClientSessionCache

	mu     sync.Mutex
	conn   talk.Conn
	joined bool
	next   []uint64      // by room: the message that must come next; 0 = any
	seq    []uint64      // to follow on from
	lostAt time.Duration // when its connection ended, since counting began; 0 = it has not
	backAt time.Duration // when it then had a message sent after that
}

func newClient(h *herd, number, target int) *client {
	rooms := len(h.spec.Rooms)
	return &client{herd: h, number: number, target: target, tickets: tickets(), next: make([]uint64, rooms), seq: make([]uint64, rooms)}
}

// tickets is what one client remembers of a server.
func tickets() tls.ClientSessionCache { return tls.NewLRUClientSessionCache(1) }

// keep keeps the client connected.
func (c *client) keep(ctx context.Context) {
	for ctx.Err() == nil {
		c.herd.places <- struct{}{}
		conn, err := c.enter(ctx)
		<-c.herd.places
		if err != nil {
			if c.refused(ctx, err) != nil {
				return
			}
			continue
		}
		gone := context.AfterFunc(ctx, conn.Close)
		_ = conn.Read(&talk.Handler{Message: c.message, Acked: func(uint64, error) {}})
		gone()
		conn.Close()
		c.mu.Lock()
		c.conn, c.lostAt = nil, c.herd.now()
		c.mu.Unlock()
		if ctx.Err() == nil {
			c.herd.ends.Add(1)
			c.move()
		}
	}
}

// move has the client try another target, by chance.
func (c *client) move() {
	if n := len(c.herd.dialers); c.herd.Moves && n > 1 {
		c.target = (c.target + 1 + rand.IntN(n-1)) % n
	}
}

// refused waits as long as the node says, or a moment.
func (c *client) refused(ctx context.Context, err error) error {
	code, after := "broken", tryAgainAfter+rand.N(tryAgainAfter/2)
	var r *talk.Refused
	if errors.As(err, &r) {
		code = r.Code
		after = max(r.After, after)
	} else {
		c.move()
	}
	c.herd.mu.Lock()
	c.herd.refused[code]++
	c.herd.mu.Unlock()
	return pause(ctx, after)
}

// enter connects and follows.
func (c *client) enter(ctx context.Context) (talk.Conn, error) {
	h := c.herd
	conn, err := h.dialers[c.target].DialFrom(ctx, fmt.Sprintf("user%d", c.number), c.tickets, h.place(c.number))
	if err != nil {
		return nil, err
	}
	gone := context.AfterFunc(ctx, conn.Close)
	defer gone()
	slow := time.AfterFunc(startWithin, conn.Close)
	defer slow.Stop()
	for _, room := range h.Rooms {
		c.mu.Lock()
		after := c.seq[room]
		c.mu.Unlock()
		if err := conn.Follow([]string{h.spec.Rooms[room]}, after, &talk.Handler{Message: c.message}); err != nil {
			conn.Close()
			return nil, err
		}
	}
	c.mu.Lock()
	c.conn, c.joined = conn, true
	c.mu.Unlock()
	return conn, nil
}

func (c *client) message(content []byte, seq uint64) {
	h := c.herd
	h.held()
	s, err := readStamp(content)
	if err == nil && s.room >= len(c.next) {
		err = errStamp
	}
	if err != nil {
		h.fail(fmt.Errorf("a client of %s got %q: %w", h.Name, content[:min(len(content), stampBytes)], err))
		return
	}
	now := h.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	next := &c.next[s.room]
	if h.Many {
		s.number = seq
	}
	c.seq[s.room] = max(c.seq[s.room], seq)
	if *next > 0 && s.number != *next {
		if s.number < *next {
			h.repeated.Add(1)
			return
		}
		h.lost.Add(int64(s.number - *next))
	}
	*next = s.number + 1
	if c.lostAt > 0 && c.backAt == 0 && s.sent >= c.lostAt {
		c.backAt = now
	}
	if from := time.Duration(h.from.Load()); from > 0 && s.sent >= from {
		h.deliveries.Add(1)
		shard := &h.shards[c.number%len(h.shards)]
		shard.mu.Lock()
		shard.times.Note(now - s.sent)
		shard.mu.Unlock()
	}
}
