package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/starling-im/starling/bench/internal/talk"
)

// What a crowd does whose server dies.
const (
	talksPerSecond = 20                     // messages, all the while
	tryAgainAfter  = 50 * time.Millisecond  // and half as much again, by chance
	backWithin     = 60 * time.Second       // all of them
	goesOnFor      = 1 * time.Second        // the talk, once all are back
	lastWithin     = 5 * time.Second        // the last messages
	askEvery       = 20 * time.Millisecond  // whether all are back
	resendAfter    = 100 * time.Millisecond // what the server refused
)

// A returner is a client that comes back each time that its connection ends.
type returner struct {
	crowd   *crowd
	name    string
	tickets tls.ClientSessionCache

	mu       sync.Mutex
	joined   bool
	next     uint64 // the message that must come next
	got      int
	repeated int
	seq      uint64        // to follow on from
	lostAt   time.Duration // when its connection ended, since the crowd began; 0 = it has not
	backAt   time.Duration // when it then had a message sent after that
}

// reconnect follows one room with all clients, says that it counts once each
// has had a message, and returns when all have been away and are back.
func (c *crowd) reconnect(ctx context.Context) (said crowdSaid, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var all []*returner
	places := make(chan struct{}, dialsAtOnce)
	for _, f := range c.followers {
		r := &returner{crowd: c, name: f.name, tickets: tickets(), next: 1}
		all = append(all, r)
		c.readers.Go(func() { r.keep(ctx, places) })
	}
	defer c.readers.Wait()
	defer cancel()
	if err := awaitAll(ctx, all, backWithin, func(r *returner) bool { return r.joined }); err != nil {
		return said, fmt.Errorf("not everyone follows: %w", err)
	}
	s := &talker{crowd: c, tickets: tickets(), open: map[uint64][]byte{}}
	talking, hush := context.WithCancel(ctx)
	defer hush()
	c.readers.Go(func() { s.run(talking, ctx) })
	if err := awaitAll(ctx, all, backWithin, func(r *returner) bool { return r.got > 0 }); err != nil {
		return said, fmt.Errorf("not everyone had a message: %w", err)
	}
	fmt.Fprintln(os.Stderr, sayCounting)
	if err := awaitAll(ctx, all, backWithin, func(r *returner) bool { return r.backAt > 0 }); err != nil {
		return said, fmt.Errorf("not everyone is back: %w", err)
	}
	if err := pause(ctx, goesOnFor); err != nil {
		return said, err
	}
	hush()
	fmt.Fprintln(os.Stderr, sayDone)
	sent := s.last(ctx)
	_ = awaitAll(ctx, all, lastWithin, func(r *returner) bool { return r.next > sent }) // or it is lost
	return c.reckon(all, sent), ctx.Err()
}

// reckon says what came of it.
func (c *crowd) reckon(all []*returner, sent uint64) crowdSaid {
	said := crowdSaid{Sent: int(sent)}
	p := phase{Name: kindReconnect, Messages: int(sent)}
	var back time.Duration
	for _, r := range all {
		r.mu.Lock()
		back = max(back, r.backAt)
		p.Deliveries += r.got
		p.Lost += int(sent) - r.got
		said.Repeated += r.repeated
		r.mu.Unlock()
	}
	said.BackUnixNs = c.began.Add(back).UnixNano()
	said.Phases = []phase{p}
	return said
}

// awaitAll waits until all are as they should be.
func awaitAll(ctx context.Context, all []*returner, within time.Duration, as func(*returner) bool) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		missing := 0
		for _, r := range all {
			r.mu.Lock()
			if !as(r) {
				missing++
			}
			r.mu.Unlock()
		}
		if missing == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d after %v", missing, len(all), within)
		}
	}
}

// keep keeps the client connected.
func (r *returner) keep(ctx context.Context, places chan struct{}) {
	for ctx.Err() == nil {
		places <- struct{}{}
		conn, err := r.enter(ctx)
		<-places
		if err == nil {
			gone := context.AfterFunc(ctx, conn.Close)
			_ = conn.Read(&talk.Handler{Message: r.message, Acked: func(uint64, error) {}})
			gone()
			conn.Close()
			r.mu.Lock()
			r.lostAt = time.Since(r.crowd.began)
			r.mu.Unlock()
		}
		if err != nil && pause(ctx, tryAgainAfter+rand.N(tryAgainAfter/2)) != nil {
			return
		}
	}
}

// enter connects and follows.
func (r *returner) enter(ctx context.Context) (talk.Conn, error) {
	conn, err := r.crowd.dialer.Dial(ctx, r.name, r.tickets)
	if err != nil {
		return nil, err
	}
	gone := context.AfterFunc(ctx, conn.Close)
	defer gone()
	slow := time.AfterFunc(startWithin, conn.Close)
	defer slow.Stop()
	r.mu.Lock()
	after := r.seq
	r.mu.Unlock()
	if err := conn.Follow([]string{r.crowd.rooms[0].name}, after, &talk.Handler{Message: r.message}); err != nil {
		conn.Close()
		return nil, err
	}
	r.mu.Lock()
	r.joined = true
	r.mu.Unlock()
	return conn, nil
}

func (r *returner) message(content []byte, seq uint64) {
	s, err := readStamp(content)
	if err != nil {
		r.crowd.fail(err)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seq = max(r.seq, seq)
	if s.number < r.next {
		r.repeated++
		return
	}
	r.next = s.number + 1
	r.got++
	if r.lostAt > 0 && r.backAt == 0 && s.sent >= r.lostAt {
		r.backAt = time.Since(r.crowd.began)
	}
}

// A talker publishes all the while. What it could not write waits, and so does
// what a system with acks has not acknowledged.
type talker struct {
	crowd   *crowd
	tickets tls.ClientSessionCache

	mu      sync.Mutex
	number  uint64
	open    map[uint64][]byte
	conn    talk.Conn
	attempt uint32
	again   bool // a resend is due
}

// run says something all the while until talking ends, and stays connected until
// ctx does.
func (t *talker) run(talking, ctx context.Context) {
	t.crowd.readers.Go(func() { t.keep(ctx) })
	tick := time.NewTicker(time.Second / talksPerSecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			t.say()
		case <-talking.Done():
			return
		}
	}
}

func (t *talker) say() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.number++
	s := stamp{number: t.number, sent: time.Since(t.crowd.began)}
	t.open[t.number] = s.write(t.crowd.work.Size)
	if t.conn != nil && !t.again {
		t.write(t.number)
	}
}

// write writes an open message. The caller holds the lock.
func (t *talker) write(number uint64) bool {
	err := t.conn.Publish(number, t.attempt, t.crowd.rooms[0].name, t.open[number])
	if err == nil {
		err = t.conn.Flush()
	}
	if err == nil && !talk.HasAcks(t.crowd.protocol) {
		delete(t.open, number)
	}
	return err == nil
}

// keep keeps the talker connected.
func (t *talker) keep(ctx context.Context) {
	for ctx.Err() == nil {
		conn, err := t.crowd.dialer.Dial(ctx, "talker", t.tickets)
		if err != nil {
			if pause(ctx, tryAgainAfter) != nil {
				return
			}
			continue
		}
		gone := context.AfterFunc(ctx, conn.Close)
		t.mu.Lock()
		t.conn, t.attempt = conn, 0
		t.resend()
		t.mu.Unlock()
		_ = conn.Read(&talk.Handler{Acked: t.acked})
		t.mu.Lock()
		t.conn = nil
		t.mu.Unlock()
		gone()
		conn.Close()
	}
}

// resend writes all open messages in order. The caller holds the lock.
func (t *talker) resend() {
	t.again = false
	for number := uint64(1); number <= t.number; number++ {
		if _, open := t.open[number]; open && !t.write(number) {
			return
		}
	}
}

func (t *talker) acked(number uint64, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		delete(t.open, number)
		return
	}
	if t.again {
		return
	}
	t.again = true
	time.AfterFunc(resendAfter, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.conn != nil {
			t.attempt++
			t.resend()
		}
	})
}

// last waits until nothing is open, and returns the number of the last
// message.
func (t *talker) last(ctx context.Context) uint64 {
	ctx, cancel := context.WithTimeoutCause(ctx, lastWithin, errors.New("not all was acknowledged"))
	defer cancel()
	for {
		t.mu.Lock()
		open, number := len(t.open), t.number
		t.mu.Unlock()
		if open == 0 || pause(ctx, askEvery) != nil {
			return number
		}
	}
}
