package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/starling-im/starling/bench/internal/load"
	"github.com/starling-im/starling/bench/internal/talk"
)

// A speaker publishes to one room at a rate. What a server does not take, or could
// not be written, it sends again, in order; unless it is rude, and goes on with the next.
type speaker struct {
	dialer  *talk.Dialer
	tickets tls.ClientSessionCache
	acks    bool // the system has them; without, what is written is done
	began   time.Time
	room    string
	number  int // of the room, in stamps
	rude    bool

	mu      sync.Mutex
	conn    talk.Conn // nil = none now
	sent    uint64
	open    map[uint64]said
	attempt uint32
	again   bool // a resend is due
	from    time.Time
	times   load.Times // from the first try of a message to its ack
	acked   int        // since from
	refused map[string]int
	after   time.Duration // the shortest pause that a node asked for; 0 = none
	failed  error
}

// said is a message that has no answer yet.
type said struct {
	content []byte
	at      time.Time
}

func newSpeaker(t talk.Target, began time.Time, number int, room string) (*speaker, error) {
	d, err := talk.NewDialer(t)
	return &speaker{
		dialer: d, tickets: tickets(), acks: talk.HasAcks(t.Protocol), began: began, room: room, number: number,
		open: map[uint64]said{}, refused: map[string]int{},
	}, err
}

func (h *harmMesh) speaker(node, number int, room string) (*speaker, error) {
	return newSpeaker(h.targets[node], h.began, number, room)
}

// connect connects until ctx ends. It is a failure if the session ends before.
func (s *speaker) connect(ctx context.Context) error {
	conn, err := s.enter(ctx)
	if err != nil {
		return err
	}
	go s.beats(ctx)
	go func() {
		err := s.listen(ctx, conn)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.failed = fmt.Errorf("the session of a speaker ended: %w", err)
	}()
	return nil
}

// keep connects each time that there is no session, until ctx ends.
func (s *speaker) keep(ctx context.Context) {
	for ctx.Err() == nil {
		conn, err := s.enter(ctx)
		if err == nil {
			_ = s.listen(ctx, conn)
		} else if pause(ctx, tryAgainAfter) != nil {
			return
		}
	}
}

// enter opens a session, and begins it with what is open.
func (s *speaker) enter(ctx context.Context) (talk.Conn, error) {
	conn, err := s.dialer.Dial(ctx, "speaker", s.tickets)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn = conn
	s.resend()
	return conn, nil
}

// listen hears what the server says until the session ends, and returns why it did.
func (s *speaker) listen(ctx context.Context, conn talk.Conn) error {
	gone := context.AfterFunc(ctx, conn.Close)
	defer gone()
	err := conn.Read(&talk.Handler{Acked: s.answered})
	conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn = nil
	return err
}

// run says messages of a size until ctx ends.
func (s *speaker) run(ctx context.Context, perSecond float64, size int) {
	began := time.Now()
	for n := 0; ; n++ {
		due := time.Duration(float64(n) / perSecond * float64(time.Second))
		if pause(ctx, time.Until(began.Add(due))) != nil {
			return
		}
		s.say(size)
	}
}

// beats tells the node that the speaker is there, who may have nothing to say for long.
func (s *speaker) beats(ctx context.Context) {
	for pause(ctx, talk.BeatEvery) == nil {
		s.mu.Lock()
		beatOnce(s.conn)
		s.mu.Unlock()
	}
}

// say says one message, and returns its number.
func (s *speaker) say(size int) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent++
	m := stamp{room: s.number, number: s.sent, sent: time.Since(s.began)}
	s.open[s.sent] = said{m.write(size), time.Now()}
	if s.rude {
		s.attempt++
	}
	if s.conn != nil && !s.again {
		s.write(s.sent)
	}
	return s.sent
}

// write writes an open message, or ends the session if it cannot; s is locked.
func (s *speaker) write(number uint64) bool {
	err := s.conn.Publish(number, s.attempt, s.room, s.open[number].content)
	if err == nil {
		err = s.conn.Flush()
	}
	if err != nil {
		s.conn.Close()
		return false
	}
	if !s.acks {
		delete(s.open, number)
	}
	return true
}

// resend writes all open messages in order; s is locked.
func (s *speaker) resend() {
	s.again = false
	s.attempt++
	for n := uint64(1); n <= s.sent; n++ {
		if _, open := s.open[n]; open && !s.write(n) {
			return
		}
	}
}

func (s *speaker) answered(number uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, open := s.open[number]
	counts := !s.from.IsZero() && open && !m.at.Before(s.from)
	if err == nil {
		delete(s.open, number)
		if counts {
			s.times.Note(time.Since(m.at))
			s.acked++
		}
		return
	}
	pause := resendAfter
	var r *talk.Refused
	if errors.As(err, &r) {
		s.refused[r.Code]++
		if r.After > 0 {
			pause = r.After
			if s.after == 0 || r.After < s.after {
				s.after = r.After
			}
		}
	}
	if s.rude {
		delete(s.open, number)
		return
	}
	if s.again {
		return
	}
	s.again = true
	time.AfterFunc(pause, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.conn != nil && s.again {
			s.resend()
		}
	})
}

// count counts from now on.
func (s *speaker) count() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.times, s.acked, s.from, s.refused, s.after = load.Times{}, 0, time.Now(), map[string]int{}, 0
}

// last waits until nothing is open and returns the number of the last message.
func (s *speaker) last(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, catchUpWithin, errors.New("not all was acknowledged"))
	defer cancel()
	for {
		s.mu.Lock()
		open, number, failed := len(s.open), s.sent, s.failed
		s.mu.Unlock()
		switch {
		case failed != nil:
			return number, failed
		case open == 0:
			return number, nil
		}
		if err := pause(ctx, askEvery); err != nil {
			return number, err
		}
	}
}
