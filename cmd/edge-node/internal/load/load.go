// Package load keeps a number of sends unanswered, or sends so many a second,
// and measures how many are answered and how soon.
//
// It promises that what counts was answered under the whole load: every target
// had had a message and the warm-up was over before, and sending went on until
// after.
package load

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// A Send sends one message to a target, 0 or above, and calls done once, from
// anywhere, when it is known how that ended.
type Send func(target int, done func(error))

// Config says what to send, and for how long.
type Config struct {
	// Senders share the targets and the window: no fewer than one each.
	Senders []Send
	Targets int
	// Window is how many sends are unanswered at any time; with a Rate, at most.
	Window int
	// Rate is how many sends begin in a second once every target has had a
	// message; 0 = as many as the window lets through.
	Rate float64
	// WarmUp is how long to send before it counts.
	WarmUp time.Duration
	// It counts for this long, or until so many messages; 0 = no bound.
	For      time.Duration
	Messages int
	// Say hears of each phase when it begins, and of Counting now and again.
	Say func(Progress)
}

// A Phase is a part of a run.
type Phase int

// The phases in their order.
const (
	Making    Phase = iota // not every target has had a message
	WarmingUp              // every one has
	Counting
	Done // nothing counts any more, but some is unanswered
)

// Progress is how far a run is.
type Progress struct {
	Phase    Phase
	Messages int           // counted so far; targets that had one, while Making
	Took     time.Duration // since it counts; of Making with the phase after it
}

// Result is what was counted.
type Result struct {
	Messages int
	Took     time.Duration
	Times    Times
	Made     time.Duration // until every target had had a message
}

// sayEvery is the time between two reports.
const sayEvery = 2 * time.Second

// run is the state that the senders share.
type run struct {
	cfg     Config
	unmade  atomic.Int64  // targets that had no message yet
	made    chan struct{} // closed when there is none
	counts  atomic.Bool   // what is answered now counts
	counted atomic.Int64
	enough  chan struct{} // closed when Messages are counted
	stop    chan struct{} // closed when nothing more is to be sent
}

// Run sends until what the config asks for is counted, then waits for all that
// is unanswered. It fails with the first send that does, and when ctx ends.
func Run(ctx context.Context, cfg Config) (Result, error) {
	n := len(cfg.Senders)
	if n == 0 || n > min(cfg.Targets, cfg.Window) {
		return Result{}, fmt.Errorf("load: %d senders for %d targets and a window of %d", n, cfg.Targets, cfg.Window)
	}
	r := &run{cfg: cfg, made: make(chan struct{}), enough: make(chan struct{}), stop: make(chan struct{})}
	r.unmade.Store(int64(cfg.Targets))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	times := make([]Times, n)
	var work sync.WaitGroup
	for i := range n {
		work.Go(func() {
			if err := r.keep(i, &times[i]); err != nil {
				cancel(err)
			}
		})
	}
	made, took, err := r.lead(ctx)
	close(r.stop)
	work.Wait()
	if err == nil {
		err = context.Cause(ctx)
	}
	result := Result{Took: took, Made: made}
	for i := range times {
		result.Times.add(&times[i])
	}
	result.Messages = result.Times.count
	return result, err
}

// lead goes through the phases and returns how long it made targets and counted.
func (r *run) lead(ctx context.Context) (made, took time.Duration, err error) {
	tick := time.NewTicker(sayEvery)
	defer tick.Stop()
	if made, err = r.leadMaking(ctx, tick.C); err != nil {
		return made, 0, err
	}
	r.cfg.Say(Progress{Phase: WarmingUp, Took: made})
	warm := time.NewTimer(r.cfg.WarmUp)
	defer warm.Stop()
	select {
	case <-warm.C:
	case <-ctx.Done():
		return made, 0, context.Cause(ctx)
	}
	took, err = r.leadCounting(ctx, tick.C)
	return made, took, err
}

// leadMaking returns when every target has had a message.
func (r *run) leadMaking(ctx context.Context, tick <-chan time.Time) (time.Duration, error) {
	began := time.Now()
	for {
		select {
		case <-tick:
			r.cfg.Say(Progress{Making, r.cfg.Targets - int(r.unmade.Load()), time.Since(began)})
		case <-r.made:
			return time.Since(began), nil
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// leadCounting counts for as long, or for as many messages, as is asked for.
func (r *run) leadCounting(ctx context.Context, tick <-chan time.Time) (time.Duration, error) {
	var over <-chan time.Time // never, unless For says so
	if r.cfg.For > 0 {
		t := time.NewTimer(r.cfg.For)
		defer t.Stop()
		over = t.C
	}
	r.cfg.Say(Progress{Phase: Counting})
	began := time.Now()
	r.counts.Store(true)
	for {
		select {
		case <-tick:
			r.cfg.Say(Progress{Counting, int(r.counted.Load()), time.Since(began)})
			continue
		case <-over:
		case <-r.enough:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
		r.counts.Store(false)
		took := time.Since(began)
		r.cfg.Say(Progress{Done, int(r.counted.Load()), took})
		return took, nil
	}
}

// answer is how a send ended.
type answer struct {
	turn int // of the sender's targets
	took time.Duration
	err  error
}

// keep keeps a sender's share of the window unanswered, or sends at its share of
// the rate, to its share of the targets in turn, until the run stops or a send
// fails.
func (r *run) keep(sender int, times *Times) (failed error) {
	n := len(r.cfg.Senders)
	window, targets := share(r.cfg.Window, n, sender), share(r.cfg.Targets, n, sender)
	answers := make(chan answer, window)
	made := make([]bool, targets)
	pace := newPace(r, sender)
	defer pace.timer.Stop()
	stop := r.stop // nil once it is known
	turn := 0
	for open := 0; ; {
		for ; open < window && failed == nil && stop != nil && pace.due(); open++ {
			t, at := turn, time.Now()
			r.cfg.Senders[sender](sender+t*n, func(err error) { answers <- answer{t, time.Since(at), err} })
			turn = (turn + 1) % targets
		}
		if open == 0 && (failed != nil || stop == nil) {
			return failed
		}
		var a answer
		select {
		case a = <-answers:
			open--
		case <-pace.timer.C:
			continue
		case <-stop:
			stop = nil
			continue
		}
		if a.err != nil {
			failed = a.err
			continue
		}
		if !made[a.turn] {
			made[a.turn] = true
			if r.unmade.Add(-1) == 0 {
				close(r.made)
			}
		}
		if r.counts.Load() {
			times.note(a.took)
			if r.counted.Add(1) == int64(r.cfg.Messages) {
				close(r.enough)
			}
		}
	}
}

// share is what the i-th of n gets of a whole.
func share(whole, n, i int) int {
	s := whole / n
	if i < whole%n {
		s++
	}
	return s
}
