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

// A walker is a client that follows rooms, and comes back after what it has each
// time that its connection ends.
type walker struct {
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

func newWalker(h *herd, number, target int) *walker {
	rooms := len(h.spec.Rooms)
	return &walker{herd: h, number: number, target: target, tickets: tickets(), next: make([]uint64, rooms), seq: make([]uint64, rooms)}
}

// tickets is what one client remembers of a server.
func tickets() tls.ClientSessionCache { return tls.NewLRUClientSessionCache(1) }

// keep keeps the client connected.
func (w *walker) keep(ctx context.Context) {
	for ctx.Err() == nil {
		w.herd.places <- struct{}{}
		conn, err := w.enter(ctx)
		<-w.herd.places
		if err != nil {
			if w.refused(ctx, err) != nil {
				return
			}
			continue
		}
		gone := context.AfterFunc(ctx, conn.Close)
		_ = conn.Read(&talk.Handler{Message: w.message, Acked: func(uint64, error) {}})
		gone()
		conn.Close()
		w.mu.Lock()
		w.conn, w.lostAt = nil, w.herd.now()
		w.mu.Unlock()
		if ctx.Err() == nil {
			w.herd.ends.Add(1)
			w.move()
		}
	}
}

// move has the client try another target, by chance.
func (w *walker) move() {
	if n := len(w.herd.dialers); w.herd.Moves && n > 1 {
		w.target = (w.target + 1 + rand.IntN(n-1)) % n
	}
}

// refused waits as long as the node says, or a moment.
func (w *walker) refused(ctx context.Context, err error) error {
	code, after := "broken", tryAgainAfter+rand.N(tryAgainAfter/2)
	var r *talk.Refused
	if errors.As(err, &r) {
		code = r.Code
		after = max(r.After, after)
	} else {
		w.move()
	}
	w.herd.mu.Lock()
	w.herd.refused[code]++
	w.herd.mu.Unlock()
	return pause(ctx, after)
}

// enter connects and follows.
func (w *walker) enter(ctx context.Context) (talk.Conn, error) {
	h := w.herd
	conn, err := h.dialers[w.target].DialFrom(ctx, fmt.Sprintf("user%d", w.number), w.tickets, h.place(w.number))
	if err != nil {
		return nil, err
	}
	gone := context.AfterFunc(ctx, conn.Close)
	defer gone()
	slow := time.AfterFunc(startWithin, conn.Close)
	defer slow.Stop()
	for _, room := range h.Rooms {
		w.mu.Lock()
		after := w.seq[room]
		w.mu.Unlock()
		if err := conn.Follow([]string{h.spec.Rooms[room]}, after, &talk.Handler{Message: w.message}); err != nil {
			conn.Close()
			return nil, err
		}
	}
	w.mu.Lock()
	w.conn, w.joined = conn, true
	w.mu.Unlock()
	return conn, nil
}

func (w *walker) message(content []byte, seq uint64) {
	h := w.herd
	h.held()
	s, err := readStamp(content)
	if err == nil && s.room >= len(w.next) {
		err = errStamp
	}
	if err != nil {
		h.fail(fmt.Errorf("a client of %s got %q: %w", h.Name, content[:min(len(content), stampBytes)], err))
		return
	}
	now := h.now()
	w.mu.Lock()
	defer w.mu.Unlock()
	next := &w.next[s.room]
	if h.Many {
		s.number = seq
	}
	w.seq[s.room] = max(w.seq[s.room], seq)
	if *next > 0 && s.number != *next {
		if s.number < *next {
			h.repeated.Add(1)
			return
		}
		h.lost.Add(int64(s.number - *next))
	}
	*next = s.number + 1
	if w.lostAt > 0 && w.backAt == 0 && s.sent >= w.lostAt {
		w.backAt = now
	}
	if from := time.Duration(h.from.Load()); from > 0 && s.sent >= from {
		h.deliveries.Add(1)
		shard := &h.shards[w.number%len(h.shards)]
		shard.mu.Lock()
		shard.times.Note(now - s.sent)
		shard.mu.Unlock()
	}
}
