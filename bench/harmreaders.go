package main

import (
	"context"
	"fmt"
	"time"
)

// A square is a mesh of one node with a room that all follow, and another one.
type square struct {
	*harmMesh
	o        harmOptions
	clients  throngs
	speakers []*speaker // by room
}

// The bands of a square, and its rooms.
const (
	theOthers = 0
	theHarm   = 1
)

// comeWithin bounds how long a crowd may take to come.
const comeWithin = 2 * time.Minute

// newSquare starts the mesh, has the bands come, and lets all have a message of each
// of their rooms.
func (m *machine) newSquare(ctx context.Context, dir string, o harmOptions, limits string, rooms []string, bands []band) (*square, error) {
	h, err := m.startHarm(ctx, dir, o.protocol, meshPlan{nodes: 1, limits: limits})
	if err != nil {
		return nil, err
	}
	s := &square{harmMesh: h, o: o}
	if err := s.gather(ctx, rooms, bands); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func (s *square) stop() {
	s.clients.stop()
	s.harmMesh.stop()
}

func (s *square) gather(ctx context.Context, rooms []string, bands []band) (err error) {
	spec := throngSpec{Targets: s.targets, Began: s.began.UnixNano(), Rooms: rooms, Bands: bands}
	if s.clients, err = startThrongs(s.m.log, 2, false, s.o.others > 0, spec); err != nil {
		return err
	}
	for i, room := range rooms {
		speaker, err := s.speaker(0, i, room)
		if err == nil {
			err = speaker.connect(ctx)
		}
		if err == nil {
			speaker.say(0)
			_, err = speaker.last(ctx)
		}
		if err != nil {
			return err
		}
		s.speakers = append(s.speakers, speaker)
	}
	for i := range bands {
		if _, err := s.clients.tell(ctx, order{Do: doJoin, Band: i, Within: comeWithin}); err != nil {
			return err
		}
	}
	for _, speaker := range s.speakers {
		speaker.say(0)
	}
	for i, b := range bands {
		for _, room := range b.Rooms {
			if err := s.caughtUp(ctx, i, room); err != nil {
				return err
			}
		}
	}
	return nil
}

// caughtUp waits until all of a band have all of a room.
func (s *square) caughtUp(ctx context.Context, band, room int) error {
	last, err := s.speakers[room].last(ctx)
	if err != nil {
		return err
	}
	_, err = s.clients.tell(ctx, order{Do: doAwait, Band: band, Room: room, Number: last, Within: catchUpWithin})
	return err
}

// warmUp is how long speakers speak before it counts.
const warmUp = 500 * time.Millisecond

// count counts while speakers speak, and until the others have all of their room; band
// and room say whose deliveries matter.
func (s *square) count(ctx context.Context, rates map[int]float64, size, room int) (said tale, cpu float64, err error) {
	talking, hush := context.WithCancel(ctx)
	defer hush()
	done := make(chan struct{}, len(rates))
	for room, rate := range rates {
		go func() {
			s.speakers[room].run(talking, rate, size)
			done <- struct{}{}
		}()
	}
	if err := pause(ctx, warmUp); err != nil {
		return said, 0, err
	}
	if _, err := s.clients.tell(ctx, order{Do: doCount}); err != nil {
		return said, 0, err
	}
	watch := &stopwatch{pids: s.pids()}
	watch.take(true)
	if err := pause(ctx, time.Duration(s.o.seconds*float64(time.Second))); err != nil {
		return said, 0, err
	}
	hush()
	for range rates {
		<-done
	}
	if err := s.caughtUp(ctx, theOthers, room); err != nil {
		return said, 0, err
	}
	watch.take(false)
	if said, err = s.clients.tell(ctx, order{Do: doTell}); err != nil {
		return said, 0, err
	}
	sum := 0
	for _, b := range said.Bands {
		sum += b.Deliveries
	}
	if per := perMillion(watch, sum); per != nil {
		cpu = *per
	}
	if said.Bands[theOthers].Deliveries == 0 {
		return said, cpu, fmt.Errorf("nothing was delivered while it counted")
	}
	return said, cpu, said.whole()
}

// latencies are the figures of the others' deliveries.
func latencies(said tale) []figure {
	b := said.Bands[theOthers]
	return []figure{{"p50_ms", b.in(0.5), true}, {"p99_ms", b.in(0.99), true}}
}

// What waits for those who stall.
const (
	fillers     = 32
	fillerBytes = 16 << 10
	fillWithin  = time.Second // until the node has found out
	takesLittle = 4 << 10
	takesMuch   = 1 << 30
)

// beginStalled has one in twenty stall.
func beginStalled(deaf bool) func(context.Context, *machine, string, harmOptions) (*trial, error) {
	return func(ctx context.Context, m *machine, dir string, o harmOptions) (*trial, error) {
		stalled := band{Name: "who stall", Rooms: []int{0, 1}, Clients: o.clients / 20, Homes: []int{0}, Takes: takesLittle, Deaf: deaf}
		if deaf {
			stalled.Takes = takesMuch
		}
		others := band{Name: "the others", Rooms: []int{0}, Clients: o.clients - stalled.Clients, Homes: []int{0}}
		s, err := m.newSquare(ctx, dir, o, limitsProfile, []string{"square", "filler"}, []band{others, stalled})
		if err != nil {
			return nil, err
		}
		return &trial{s.stalledHalf, s.stop}, nil
	}
}

func (s *square) stalledHalf(ctx context.Context, harmed bool) ([]figure, error) {
	if harmed {
		if _, err := s.clients.tell(ctx, order{Do: doStall, Band: theHarm}); err != nil {
			return nil, err
		}
		for range fillers {
			s.speakers[1].say(fillerBytes)
		}
		if _, err := s.speakers[1].last(ctx); err != nil {
			return nil, err
		}
		if err := pause(ctx, fillWithin); err != nil {
			return nil, err
		}
	}
	said, cpu, err := s.count(ctx, map[int]float64{0: s.o.rate}, 128, 0)
	if err != nil {
		return nil, err
	}
	resident, err := residentKiB(s.pid(0))
	if err != nil {
		return nil, err
	}
	h, err := s.health(ctx, 0)
	if err != nil {
		return nil, err
	}
	if harmed {
		if _, err := s.clients.tell(ctx, order{Do: doGoOn, Band: theHarm}); err != nil {
			return nil, err
		}
	}
	for room := range s.speakers {
		if err := s.caughtUp(ctx, theHarm, room); err != nil {
			return nil, err
		}
	}
	after, err := s.clients.tell(ctx, order{Do: doTell})
	if err != nil {
		return nil, err
	}
	if err := after.whole(); err != nil {
		return nil, err
	}
	return append(latencies(said),
		figure{"cpu_s_per_m", cpu, true}, figure{"rss_mib", resident / 1024, true},
		figure{"max_unsent_kib", float64(h.MaxUnsentBytes) / 1024, false},
		figure{"ended", float64(after.Bands[theHarm].Ends), false},
		figure{"others_ended", float64(after.Bands[theOthers].Ends), false}), nil
}

// beginFollowers has a room with more to deliver than goes.
func beginFollowers(ctx context.Context, m *machine, dir string, o harmOptions) (*trial, error) {
	bands := []band{
		{Name: "the others", Rooms: []int{1}, Clients: o.others, Homes: []int{0}},
		{Name: "the followers", Rooms: []int{0}, Clients: o.clients, Homes: []int{0}},
	}
	s, err := m.newSquare(ctx, dir, o, limitsProfile, []string{"hot", "quiet"}, bands)
	if err != nil {
		return nil, err
	}
	return &trial{s.followersHalf, s.stop}, nil
}

func (s *square) followersHalf(ctx context.Context, harmed bool) ([]figure, error) {
	rates := map[int]float64{1: quiet}
	if harmed {
		rates[0] = s.o.rate
	}
	s.speakers[1].count()
	began := time.Now()
	said, _, err := s.count(ctx, rates, 128, 1)
	if err != nil {
		return nil, err
	}
	took := time.Since(began) - warmUp
	acks := s.speakers[1].in(0.99)
	if err := s.caughtUp(ctx, theHarm, 0); err != nil {
		return nil, err
	}
	hot := said.Bands[theHarm]
	return append(latencies(said), figure{"ack_p99_ms", acks, true},
		figure{"hot_deliveries_per_s", float64(hot.Deliveries) / took.Seconds(), false}, figure{"hot_p99_ms", hot.in(0.99), false}), nil
}
