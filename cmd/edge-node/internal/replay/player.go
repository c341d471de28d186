package replay

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"time"

	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/wire"
)

// A Pace says how fast records are sent and how many at once.
type Pace struct {
	Window  int     // unanswered sends
	InOrder bool    // a room's next record only after the ack of its last
	Rate    float64 // records per second; 0 = as fast as it goes
	Speed   float64 // times that of the original; 0 = as fast as it goes
}

// kinds are what a record may be.
var kinds = map[string]client.Kind{
	"message": client.KindMessage, "action": client.KindAction, "join": client.KindJoin, "leave": client.KindLeave,
}

// sender is what the player needs of a client.
type sender interface {
	Send(ctx context.Context, m client.Message, done func(client.Ack, error))
}

// source gives the records in order, io.EOF after the last.
type source interface{ Next() (Record, error) }

// player sends the records of a file. One goroutine owns all of it; acks come
// back through done, which has room for every send that may be open.
type player struct {
	pace     Pace
	judge    *Judge
	source   source
	sessions [][]sender                                     // by region
	follow   func(ctx context.Context, room string) error   // before a room's first record
	acked    func(room string, id string, seq uint64) error // before an ack counts
	flush    func() error                                   // after some of them
	refused  func(r Record, err error)                      // hears of each record that was not acked

	done     chan outcome
	batch    []outcome // taken from done, not settled
	open     int
	lanes    map[string]*lane // of rooms; only with InOrder
	held     int              // records that wait in lanes
	ready    []Record         // their lane is free
	next     *Record          // read, but not due yet
	ended    error            // why nothing more is read
	began    time.Time
	firstMs  int64
	taken    int // records taken from the source
	followed map[string]bool
}

// lane is a room of which one record at a time is open.
type lane struct {
	waiting []Record
}

// outcome is how a send ended.
type outcome struct {
	record Record
	ack    client.Ack
	err    error
	at     time.Duration
}

// maxHeld bounds the records that are read ahead of busy rooms.
const maxHeld = 1 << 14

// stallAfter is how long nothing may be acked before a run is given up.
const stallAfter = 60 * time.Second

// errStalled ends a run whose mesh answers no more.
var errStalled = fmt.Errorf("nothing was acknowledged for %v", stallAfter)

// play sends everything and waits for how each send ends. It returns nil after
// the last record, else why it stopped before.
func (p *player) play(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p.done = make(chan outcome, p.pace.Window)
	p.lanes = make(map[string]*lane)
	p.followed = make(map[string]bool)
	p.began = time.Now()
	stalled := time.AfterFunc(stallAfter, func() { cancel(errStalled) })
	defer stalled.Stop()
	for {
		progress, err := p.settle(ctx)
		if progress {
			stalled.Reset(stallAfter)
		}
		if err != nil {
			cancel(err)
		}
		switch full := p.open == p.pace.Window; {
		case ctx.Err() != nil && p.open == 0:
			return context.Cause(ctx)
		case ctx.Err() != nil || full:
			p.await(ctx, nil)
		case len(p.ready) > 0:
			r := p.ready[0]
			p.ready = p.ready[1:]
			p.send(ctx, r)
		case p.ended == nil && p.held < maxHeld:
			if due := p.read(ctx); due > 0 {
				t := time.NewTimer(due)
				p.await(ctx, t.C)
				t.Stop()
				stalled.Reset(stallAfter) // waiting for its time is no stall
			}
		case p.open == 0 && p.held == 0:
			if errors.Is(p.ended, io.EOF) {
				return nil
			}
			return p.ended
		default:
			p.await(ctx, nil)
		}
	}
}

// await waits for an outcome, or for the timer and then for ctx too: without
// one a send is open, which ends when ctx does.
func (p *player) await(ctx context.Context, timer <-chan time.Time) {
	var over <-chan struct{}
	if timer != nil {
		over = ctx.Done()
	}
	select {
	case o := <-p.done:
		p.batch = append(p.batch, o)
	case <-timer:
	case <-over:
	}
}

// settle takes all outcomes that are there. Acks are written out before any
// of them counts.
func (p *player) settle(ctx context.Context) (progress bool, err error) {
	for range len(p.done) {
		p.batch = append(p.batch, <-p.done)
	}
	if len(p.batch) == 0 {
		return false, nil
	}
	for _, o := range p.batch {
		if o.err == nil {
			err = errors.Join(err, p.acked(o.record.Room, o.ack.ID, o.ack.Seq))
		}
	}
	err = errors.Join(err, p.flush())
	written := err == nil
	for _, o := range p.batch {
		p.open--
		p.release(o.record.Room)
		switch {
		case o.err != nil:
			err = errors.Join(err, p.failed(ctx, o))
		case written:
			p.judge.ack(o.record.Line, o.ack.Seq, o.ack.Duplicate, o.at)
			progress = true
		}
	}
	p.batch = p.batch[:0]
	return progress, err
}

// failed notes a send that was not acked, and returns an error if the next
// ones will fare no better. A send that was given up since the run has ended
// is not worth a word.
func (p *player) failed(ctx context.Context, o outcome) error {
	rejected, ok := o.err.(*client.Rejected) // not one in the cause of giving up
	if !ok {
		if ctx.Err() == nil {
			p.refused(o.record, o.err)
		}
		return nil
	}
	p.judge.reject(o.record.Line)
	p.refused(o.record, o.err)
	switch rejected.Err.Code {
	case wire.CodeForbidden, wire.CodeUnauthenticated, wire.CodeTokenExpired:
		return o.err
	}
	return nil
}

// release lets a room's next record go.
func (p *player) release(room string) {
	l := p.lanes[room]
	switch {
	case l == nil:
	case len(l.waiting) == 0:
		delete(p.lanes, room)
	default:
		p.ready = append(p.ready, l.waiting[0])
		l.waiting = l.waiting[1:]
		p.held--
	}
}

// read takes the next record in. It returns how long to wait if it is not due.
func (p *player) read(ctx context.Context) time.Duration {
	if p.next == nil {
		r, err := p.source.Next()
		if err != nil {
			p.ended = err
			return 0
		}
		p.judge.took()
		if p.taken++; p.taken == 1 {
			p.firstMs = r.Millis
		}
		p.next = &r
	}
	if due := p.due(p.next); due > 0 {
		return due
	}
	r := *p.next
	p.next = nil
	if p.pace.InOrder {
		l := p.lanes[r.Room]
		if l != nil {
			l.waiting = append(l.waiting, r)
			p.held++
			return 0
		}
		p.lanes[r.Room] = new(lane)
	}
	p.send(ctx, r)
	return 0
}

// due is the time until a record may be sent.
func (p *player) due(r *Record) time.Duration {
	var at time.Duration
	switch {
	case p.pace.Rate > 0:
		at = time.Duration(float64(p.taken-1) / p.pace.Rate * float64(time.Second))
	case p.pace.Speed > 0:
		at = time.Duration(float64(r.Millis-p.firstMs) / p.pace.Speed * float64(time.Millisecond))
	}
	return at - time.Since(p.began)
}

// send sends a record on its user's session.
func (p *player) send(ctx context.Context, r Record) {
	if !p.followed[r.Room] {
		if err := p.follow(ctx, r.Room); err != nil {
			p.ended = fmt.Errorf("room %q cannot be followed: %w", r.Room, err)
			p.release(r.Room)
			return
		}
		p.followed[r.Room] = true
	}
	region, session := p.seat(r.User)
	p.judge.sent(r, region, time.Since(p.judge.start))
	p.open++
	p.sessions[region][session].Send(ctx, client.Message{
		Room: r.Room, ID: p.judge.id(r.Line), Kind: kinds[r.Kind], Content: r.Text, ActAs: r.User,
	}, func(a client.Ack, err error) {
		p.done <- outcome{r, a, err, time.Since(p.judge.start)}
	})
}

// seat is a user's region and session there, always the same.
func (p *player) seat(user string) (region, session int) {
	h := fnv.New32a()
	_, _ = io.WriteString(h, user)
	n := int(h.Sum32() >> 1)
	region = n % len(p.sessions)
	return region, n / len(p.sessions) % len(p.sessions[region])
}
