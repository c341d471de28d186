package load

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// server answers each send after a time, and notes what it sees.
type server struct {
	after time.Duration
	open  atomic.Int64
	most  atomic.Int64
	of    []atomic.Int64 // sends by target
	fail  int64          // the send that fails; 0 = none
	sent  atomic.Int64
}

var errServer = errors.New("the server says no")

func (s *server) send(target int, done func(error)) {
	s.of[target].Add(1)
	s.most.Store(max(s.most.Load(), s.open.Add(1)))
	var err error
	if s.sent.Add(1) == s.fail {
		err = errServer
	}
	time.AfterFunc(s.after, func() { s.open.Add(-1); done(err) })
}

func TestRunCountsUnderTheWholeLoad(t *testing.T) {
	for _, tt := range []struct {
		name                       string
		senders, targets, window   int
		length                     time.Duration
		messages, want, wantAround int
	}{
		{"for a time", 1, 1, 1, 3 * time.Second, 0, 300, 1},
		{"three senders", 3, 100, 128, 2 * time.Second, 0, 128 * 200, 128},
		{"more targets than window", 3, 100, 7, 3 * time.Second, 0, 7 * 300, 7},
		{"until so many", 3, 100, 128, 0, 5000, 5000, 128},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{after: 10 * time.Millisecond, of: make([]atomic.Int64, tt.targets)}
				cfg := Config{Targets: tt.targets, Window: tt.window, WarmUp: time.Second, For: tt.length, Messages: tt.messages}
				for range tt.senders {
					cfg.Senders = append(cfg.Senders, s.send)
				}
				var phases []Phase
				cfg.Say = func(p Progress) {
					phases = append(phases, p.Phase)
					synctest.Wait()
					if n := s.open.Load(); n != int64(tt.window) {
						t.Errorf("%d in flight when phase %d begins, want %d", n, p.Phase, tt.window)
					}
					for target := range s.of {
						if s.of[target].Load() == 0 {
							t.Errorf("target %d has had nothing in phase %d", target, p.Phase)
						}
					}
				}
				r, err := Run(t.Context(), cfg)
				if err != nil {
					t.Fatal(err)
				}
				if r.Messages < tt.want-tt.wantAround || r.Messages > tt.want+tt.wantAround {
					t.Errorf("%d messages count, want %d", r.Messages, tt.want)
				}
				if s.most.Load() != int64(tt.window) {
					t.Errorf("up to %d in flight, want %d", s.most.Load(), tt.window)
				}
				if p50 := r.Times.Within(0.5); p50 < 9900*time.Microsecond || p50 > 10100*time.Microsecond {
					t.Errorf("p50 is %v", p50)
				}
				if tt.length > 0 && r.Took != tt.length {
					t.Errorf("took %v, want %v", r.Took, tt.length)
				}
				if s.open.Load() != 0 {
					t.Errorf("%d are unanswered at the end", s.open.Load())
				}
				if got := slices.Compact(phases); !slices.Equal(got, []Phase{WarmingUp, Counting, Done}) {
					t.Errorf("phases %v", phases)
				}
			})
		})
	}
}

// A run ends when it is over, however long the next send would be away.
func TestRunEndsBetweenSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{after: 10 * time.Millisecond, of: make([]atomic.Int64, 3)}
		began := time.Now()
		_, err := Run(t.Context(), Config{
			Senders: []Send{s.send, s.send, s.send}, Targets: 3, Window: 3, Rate: 0.01,
			WarmUp: time.Second, For: time.Second, Say: func(Progress) {},
		})
		if took := time.Since(began); err != nil || took > 3*time.Second {
			t.Errorf("took %v: %v", took, err)
		}
	})
}

// With a rate the sends begin evenly once every target was made, as fast as can be.
func TestRunKeepsTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{after: 10 * time.Millisecond, of: make([]atomic.Int64, 3000)}
		cfg := Config{
			Senders: []Send{s.send, s.send, s.send}, Targets: 3000, Window: 12, Rate: 100,
			WarmUp: time.Second, For: 10 * time.Second, Say: func(p Progress) {
				if p.Phase == Making && (p.Messages < 2000 || p.Messages > 3000) {
					t.Errorf("%d targets made after %v", p.Messages, p.Took)
				}
			},
		}
		r, err := Run(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if r.Made < 2500*time.Millisecond || r.Made > 2600*time.Millisecond { // 3000 targets, 12 at once, 10 ms each
			t.Errorf("the targets were made in %v", r.Made)
		}
		if r.Messages < 998 || r.Messages > 1002 || s.most.Load() > 12 {
			t.Errorf("%d messages in 10 s, up to %d at once", r.Messages, s.most.Load())
		}
	})
}

// What the window kept from being sent in time is sent later.
func TestRunMakesUpForStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{after: 500 * time.Millisecond, of: make([]atomic.Int64, 1)}
		cfg := Config{Senders: []Send{s.send}, Targets: 1, Window: 1, Rate: 4, WarmUp: time.Second, For: 10 * time.Second, Say: func(Progress) {}}
		r, err := Run(t.Context(), cfg)
		if err != nil || r.Messages < 19 || r.Messages > 21 {
			t.Errorf("%d messages in 10 s at 500 ms each, %v", r.Messages, err)
		}
	})
}

func TestRunFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{after: time.Millisecond, of: make([]atomic.Int64, 10), fail: 500}
		cfg := Config{Senders: []Send{s.send, s.send}, Targets: 10, Window: 16, For: time.Hour, Say: func(Progress) {}}
		if _, err := Run(t.Context(), cfg); !errors.Is(err, errServer) {
			t.Errorf("%v, want the send's error", err)
		}
		s = &server{after: time.Millisecond, of: make([]atomic.Int64, 10)}
		cfg.Senders = []Send{s.send}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := Run(ctx, cfg); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want the context's error", err)
		}
		cfg.Window = 0
		if _, err := Run(t.Context(), cfg); err == nil {
			t.Error("a window of 0 is taken")
		}
	})
}

func TestTimes(t *testing.T) {
	var all, half Times
	if all.Within(0.99) != 0 {
		t.Error("nothing took some time")
	}
	random := rand.New(rand.NewPCG(1, 2))
	var sorted []time.Duration
	for range 10_000 {
		d := time.Duration(math.Exp2(random.Float64() * 40)) // up to 18 minutes
		sorted = append(sorted, d)
		half.note(d)
	}
	all.add(&half)
	slices.Sort(sorted)
	for _, share := range []float64{0.001, 0.5, 0.9, 0.99, 1} {
		want := sorted[int(share*10_000)-1]
		if got := all.Within(share); (got - want).Abs() > max(time.Microsecond, want/128) {
			t.Errorf("%v took within %v, want %v", share, got, want)
		}
	}
	all.note(1<<63 - 1)
	all.note(-1)
	if got := all.Within(1); got < (1<<63-1)/128*127 {
		t.Errorf("the longest of all is %v", got)
	}
}
