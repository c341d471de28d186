package main

import (
	"context"
	"fmt"
	"time"
)

// A mourning is a mesh of three nodes, of which one dies now and then.
type mourning struct {
	*harmMesh
	o        harmOptions
	crowd    throngs // who lose their node
	others   throngs // who do not
	rooms    []string
	speakers []*speaker
	home     int // where the crowd is; -1 = nowhere
	// What the survivors, and the crowd, took of the processors while it came back.
	atNodes, atCrowd stopwatch
}

const (
	crowdRate    = 2 // messages per s in the room of those who come back
	comeFrom     = 500
	restartAfter = 15 * time.Second
	roomsToTry   = 64
)

// beginDeath starts three nodes.
func beginDeath(ctx context.Context, m *machine, dir string, o harmOptions) (*trial, error) {
	h, err := m.startHarm(ctx, dir, o.protocol, meshPlan{nodes: 3, limits: limitsProfile, restart: restartAfter})
	if err != nil {
		return nil, err
	}
	d := &mourning{harmMesh: h, o: o, home: -1}
	stop := func() { d.crowd.stop(); d.others.stop(); h.stop() }
	if err := d.gather(ctx); err != nil {
		stop()
		return nil, err
	}
	return &trial{d.half, stop}, nil
}

// gather finds two rooms of one group, and starts the processes of clients.
func (d *mourning) gather(ctx context.Context) (err error) {
	if d.rooms, err = d.twoRooms(ctx); err != nil {
		return err
	}
	for i, room := range d.rooms {
		s, err := d.speaker(0, i, room)
		if err == nil {
			err = s.connect(ctx)
		}
		if err != nil {
			return err
		}
		d.speakers = append(d.speakers, s)
	}
	spec := throngSpec{Targets: d.targets, Began: d.began.UnixNano(), Rooms: d.rooms}
	spec.Bands = []band{{Name: "the crowd", Rooms: []int{theHarm}, Clients: d.o.clients, Moves: true, Froms: comeFrom}}
	if d.crowd, err = startThrongs(d.m.log, 2, true, false, spec); err != nil {
		return err
	}
	spec.Bands = []band{{Name: "the others", Rooms: []int{theOthers}, Clients: d.o.others}}
	d.others, err = startThrongs(d.m.log, 1, false, false, spec)
	return err
}

// twoRooms makes rooms until two are in one group: one leader less that must not die.
func (d *mourning) twoRooms(ctx context.Context) ([]string, error) {
	byGroup := map[uint32]string{}
	for i := range roomsToTry {
		room := fmt.Sprintf("square-%d", i)
		if err := d.make(ctx, room); err != nil {
			return nil, err
		}
		places, err := d.places(ctx)
		if err != nil {
			return nil, err
		}
		if other := byGroup[places[room]]; other != "" {
			return []string{other, room}, nil
		}
		byGroup[places[room]] = room
	}
	return nil, fmt.Errorf("no two of %d rooms are in one group", roomsToTry)
}

// make has a room be, by what somebody says in it.
func (d *mourning) make(ctx context.Context, room string) error {
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	s, err := d.speaker(0, 0, room)
	if err == nil {
		err = s.connect(ctx)
	}
	if err == nil {
		s.say(0)
		_, err = s.last(ctx)
	}
	return err
}

// survivors are the nodes but one.
func (d *mourning) survivors(but int) (all []int) {
	for i := range d.nodes {
		if i != but {
			all = append(all, i)
		}
	}
	return all
}

// come has everyone be where the next half needs them: the crowd at a node at which
// nobody speaks, and which does not lead.
func (d *mourning) come(ctx context.Context) error {
	if err := d.whole(ctx); err != nil {
		return err
	}
	leader, err := d.leader(ctx, d.rooms[0])
	if err != nil {
		return err
	}
	dies := 1
	if leader == 1 {
		dies = 2
	}
	if d.home == dies {
		return nil
	}
	d.home = dies
	for who, homes := range map[*throngs][]int{&d.crowd: {dies}, &d.others: d.survivors(dies)} {
		if _, err := who.tell(ctx, order{Do: doLeave}); err != nil {
			return err
		}
		if _, err := who.tell(ctx, order{Do: doJoin, Homes: homes, Within: comeWithin}); err != nil {
			return err
		}
	}
	for _, s := range d.speakers {
		s.say(0)
	}
	return d.caughtUp(ctx)
}

func (d *mourning) caughtUp(ctx context.Context) error {
	for room, who := range []throngs{theOthers: d.others, theHarm: d.crowd} {
		last, err := d.speakers[room].last(ctx)
		if err != nil {
			return err
		}
		if _, err := who.tell(ctx, order{Do: doAwait, Room: room, Number: last, Within: catchUpWithin}); err != nil {
			return err
		}
	}
	return nil
}

func (d *mourning) half(ctx context.Context, harmed bool) ([]figure, error) {
	if err := d.come(ctx); err != nil {
		return nil, err
	}
	talking, hush := context.WithCancel(ctx)
	defer hush()
	done := make(chan struct{}, 2)
	for room, rate := range map[int]float64{theOthers: d.o.rate, theHarm: crowdRate} {
		go func() { d.speakers[room].run(talking, rate, 128); done <- struct{}{} }()
	}
	if err := pause(ctx, warmUp); err != nil {
		return nil, err
	}
	for _, who := range []throngs{d.crowd, d.others} {
		if _, err := who.tell(ctx, order{Do: doCount}); err != nil {
			return nil, err
		}
	}
	back, said, err := d.storm(ctx, harmed)
	if err != nil {
		return nil, err
	}
	hush()
	<-done
	<-done
	if err := d.caughtUp(ctx); err != nil {
		return nil, err
	}
	return d.figures(ctx, harmed, back, said)
}

// storm has the node die, if it is to, and returns when all are back, after so many
// seconds.
func (d *mourning) storm(ctx context.Context, harmed bool) (back, said tale, err error) {
	if !harmed {
		if err := pause(ctx, time.Duration(d.o.seconds*float64(time.Second))); err != nil {
			return back, said, err
		}
		said, err = d.others.tell(ctx, order{Do: doTell})
		return back, said, err
	}
	d.atNodes, d.atCrowd = stopwatch{}, stopwatch{pids: d.crowd.pids()}
	for _, node := range d.survivors(d.home) {
		d.atNodes.pids = append(d.atNodes.pids, d.pid(node))
	}
	d.atNodes.take(true)
	d.atCrowd.take(true)
	killed := time.Now()
	kill(d.pid(d.home))
	back, err = d.crowd.tell(ctx, order{Do: doBack, Within: backWithin})
	d.atNodes.take(false)
	d.atCrowd.take(false)
	if err != nil {
		return back, said, err
	}
	back.Last -= killed.UnixNano()
	d.home = -1
	said, err = d.others.tell(ctx, order{Do: doTell})
	return back, said, err
}

func (d *mourning) figures(ctx context.Context, harmed bool, back, said tale) ([]figure, error) {
	crowd, err := d.crowd.tell(ctx, order{Do: doTell})
	if err != nil {
		return nil, err
	}
	for _, t := range []tale{crowd, said} {
		if err := t.whole(); err != nil {
			return nil, err
		}
	}
	if n := said.Bands[0].Ends; n > 0 {
		return nil, fmt.Errorf("%d connections of others ended", n)
	}
	all := latencies(said)
	if !harmed {
		return all, nil
	}
	refused := crowd.Bands[0].Refused
	return append(all,
		figure{"back_s", time.Duration(back.Last).Seconds(), false},
		figure{"back_p50_s", back.Back.Within(0.5).Seconds(), false},
		figure{"nodes_cpu_s", (d.atNodes.to - d.atNodes.from).Seconds(), false},
		figure{"crowd_cpu_s", (d.atCrowd.to - d.atCrowd.from).Seconds(), false},
		figure{"told_to_wait", float64(refused["overloaded"]), false},
		figure{"refused_else", float64(sum(refused) - refused["overloaded"] - refused["broken"]), false},
		figure{"broken", float64(refused["broken"]), false}), nil
}
