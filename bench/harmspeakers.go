package main

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/starling-im/starling/bench/internal/load"
)

// in is the time within which a share of the messages were acknowledged, in ms.
func (s *speaker) in(share float64) float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return float64(s.times.Within(share)) / float64(time.Millisecond)
}

// speak has all speak for a while, and returns once nothing is open.
func speak(ctx context.Context, all []*speaker, perSecond float64, d time.Duration) error {
	talking, hush := context.WithTimeout(ctx, d)
	defer hush()
	var work sync.WaitGroup
	for i, s := range all {
		work.Go(func() {
			// They do not speak all at once.
			if pause(talking, time.Duration(float64(i)/float64(len(all))/perSecond*float64(time.Second))) == nil {
				s.run(talking, perSecond, 128)
			}
		})
	}
	work.Wait()
	for _, s := range all {
		if _, err := s.last(ctx); err != nil {
			return err
		}
	}
	return nil
}

// join connects n speakers to a node, a few at a time.
func (h *harmMesh) join(ctx context.Context, n, number int, room string, rude bool) (all []*speaker, err error) {
	places := make(chan struct{}, dialsAtOnce)
	errs := make(chan error, n)
	for range n {
		s, err := h.speaker(0, number, room)
		if err != nil {
			return nil, err
		}
		s.rude = rude
		all = append(all, s)
		go func() {
			places <- struct{}{}
			errs <- s.connect(ctx)
			<-places
		}()
	}
	for range n {
		if e := <-errs; e != nil {
			err = e
		}
	}
	return all, err
}

// The flood: fifty times the twenty sends a second that a session may.
const floodPerSecond = 50 * 20

// beginFlood has one session send too much.
func beginFlood(ctx context.Context, m *machine, dir string, o harmOptions) (*trial, error) {
	h, err := m.startHarm(ctx, dir, o.protocol, meshPlan{nodes: 1, limits: production})
	if err != nil {
		return nil, err
	}
	others, err := h.join(ctx, o.clients, 0, "square", false)
	if err != nil {
		h.stop()
		return nil, err
	}
	flood, err := h.join(ctx, 1, 0, "square", true)
	if err != nil {
		h.stop()
		return nil, err
	}
	half := func(ctx context.Context, harmed bool) ([]figure, error) {
		return floodHalf(ctx, o, others, flood, harmed)
	}
	return &trial{half, h.stop}, nil
}

func floodHalf(ctx context.Context, o harmOptions, others, flood []*speaker, harmed bool) ([]figure, error) {
	seconds := time.Duration(o.seconds * float64(time.Second))
	perSecond := o.rate / float64(len(others))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	if harmed {
		go func() { ended <- speak(ctx, flood, floodPerSecond, warmUp+seconds) }()
	} else {
		ended <- nil
	}
	if err := speak(ctx, others, perSecond, warmUp); err != nil {
		return nil, err
	}
	for _, s := range append(others, flood...) {
		s.count()
	}
	if err := speak(ctx, others, perSecond, seconds); err != nil {
		return nil, err
	}
	if err := <-ended; err != nil {
		return nil, err
	}
	p99, acked, refused := together(others)
	if n := sum(refused); n > 0 {
		return nil, fmt.Errorf("others were refused: %v", refused)
	}
	_, taken, refused := together(flood)
	if harmed && (refused["rate_limited"] == 0 || flood[0].after == 0) {
		return nil, fmt.Errorf("the flood was refused with %v, to come again after %v", refused, flood[0].after)
	}
	return []figure{
		{"ack_p50_ms", p99[0], true},
		{"ack_p99_ms", p99[1], true},
		{"acks_per_s", float64(acked) / o.seconds, false},
		{"flood_taken_per_s", float64(taken) / o.seconds, false},
		{"flood_rate_limited_per_s", float64(refused["rate_limited"]) / o.seconds, false},
		{"flood_refused_else_per_s", float64(sum(refused)-refused["rate_limited"]) / o.seconds, false},
		{"least_retry_after_ms", float64(flood[0].after) / float64(time.Millisecond), false},
	}, nil
}

// together is what speakers have counted: p50 and p99 in ms, acks, and refusals by code.
func together(all []*speaker) (ms [2]float64, acked int, refused map[string]int) {
	var times load.Times
	refused = map[string]int{}
	for _, s := range all {
		s.mu.Lock()
		times.Add(&s.times)
		acked += s.acked
		for code, n := range s.refused {
			refused[code] += n
		}
		s.mu.Unlock()
	}
	for i, share := range []float64{0.5, 0.99} {
		ms[i] = float64(times.Within(share)) / float64(time.Millisecond)
	}
	return ms, acked, refused
}

func sum(all map[string]int) (n int) {
	for _, v := range all {
		n += v
	}
	return n
}

// beginPublishers has very many publish to one room.
func beginPublishers(ctx context.Context, m *machine, dir string, o harmOptions) (*trial, error) {
	bands := []band{
		{Name: "the others", Rooms: []int{1}, Clients: o.others, Homes: []int{0}},
		{Name: "who listen", Rooms: []int{0}, Clients: o.others, Homes: []int{0}, Many: true},
	}
	s, err := m.newSquare(ctx, dir, o, production, []string{"hot", "quiet"}, bands)
	if err != nil {
		return nil, err
	}
	crowd, err := s.join(ctx, o.clients, 0, "hot", true)
	if err != nil {
		s.stop()
		return nil, err
	}
	half := func(ctx context.Context, harmed bool) ([]figure, error) { return s.publishersHalf(ctx, crowd, harmed) }
	return &trial{half, s.stop}, nil
}

func (s *square) publishersHalf(ctx context.Context, crowd []*speaker, harmed bool) ([]figure, error) {
	for _, c := range crowd {
		c.count()
	}
	s.speakers[1].count()
	ended := make(chan error, 1)
	took := warmUp + time.Duration(s.o.seconds*float64(time.Second))
	if harmed {
		go func() { ended <- speak(ctx, crowd, s.o.rate, took) }()
	} else {
		ended <- nil
	}
	said, _, err := s.count(ctx, map[int]float64{1: quiet}, 128, 1)
	if err != nil {
		return nil, err
	}
	if err := <-ended; err != nil {
		return nil, err
	}
	_, taken, refused := together(crowd)
	least, most := math.MaxInt, 0
	for _, c := range crowd {
		least, most = min(least, c.acked), max(most, c.acked)
	}
	return append(latencies(said), figure{"ack_p99_ms", s.speakers[1].in(0.99), true},
		figure{"hot_taken_per_s", float64(taken) / took.Seconds(), false},
		figure{"hot_rate_limited_per_s", float64(refused["rate_limited"]) / took.Seconds(), false},
		figure{"hot_refused_else_per_s", float64(sum(refused)-refused["rate_limited"]) / took.Seconds(), false},
		figure{"least_taken_of_one", float64(least), false}, figure{"most_taken_of_one", float64(most), false}), nil
}
