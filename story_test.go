package starling_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/internal/oracle"
	"github.com/starling-im/starling/internal/simdisk"
)

// scenario is a chat in a mesh, and what happens to the mesh meanwhile. In each
// region a user sends to each room, follows it, and asks how long it is.
type scenario struct {
	seed    uint64
	regions []string // default: fra, iad, sin
	rooms   []string // default: lobby, kitchen
	noSync  bool
	// calm: one user alone sends, and waits for each answer. A node whose disk
	// waits then has one command under way; more would wait for each other at a
	// mutex, which in a bubble makes time stand still.
	calm bool
	acts []act
}

// act is one thing that happens. Acts follow each other; chat passes time.
type act func(s *story)

// story is a scenario under way.
type story struct {
	*world
	rec oracle.Recorder
	rng *rand.Rand
	scenario

	clients []*client.Client
	talk    sync.WaitGroup // sends and reads
	hush    context.CancelFunc
	silent  context.Context // ends the sending
	watch   sync.WaitGroup  // followers
	copies  map[string]*simdisk.Disk
	named   map[string][]string // see mark
}

// The bounds of what must end by itself once everything is whole again.
const (
	openWithin = 60 * time.Second // sends that are under way get their answer
	headWithin = 30 * time.Second // followers have what was acked
)

// play runs a scenario and returns what the oracle finds.
func play(t *testing.T, sc scenario) (found []oracle.Finding, h *oracle.History) {
	t.Helper()
	if sc.regions == nil {
		sc.regions = []string{"fra", "iad", "sin"}
	}
	if sc.rooms == nil {
		sc.rooms = []string{"lobby", "kitchen"}
	}
	synctest.Test(t, func(t *testing.T) {
		s := &story{
			world: newWorld(t, sc.regions...), rng: rand.New(rand.NewPCG(sc.seed, 3)), scenario: sc,
			copies: map[string]*simdisk.Disk{}, named: map[string][]string{},
		}
		s.sync = !sc.noSync
		s.begin()
		for _, a := range sc.acts {
			a(s)
		}
		s.end()
		h = s.rec.History()
	})
	return oracle.Check(h), h
}

// holds plays a scenario that must break no promise.
func holds(t *testing.T, sc scenario) *oracle.History {
	t.Helper()
	found, h := play(t, sc)
	for _, f := range found {
		t.Errorf("seed %d: %v", sc.seed, f)
	}
	acked, reads := 0, 0
	for _, s := range h.Sends {
		if s.Outcome == oracle.Acked {
			acked++
		}
	}
	for _, r := range h.Reads {
		if r.Linearizable && !r.Complete {
			reads++
		}
	}
	t.Logf("seed %d: %d of %d sends acked, %d events seen, %d reads, %d states", sc.seed, acked, len(h.Sends), len(h.Seen), reads, len(h.States))
	return h
}

func (s *story) begin() {
	for _, p := range s.peers {
		s.start(p.ID)
	}
	s.silent, s.hush = context.WithCancel(s.t.Context())
	for i, p := range s.peers {
		nodes := []int{i}
		for k := range s.peers {
			if k != i {
				nodes = append(nodes, k)
			}
		}
		c := s.dial("user-"+p.Region, nodes...)
		s.clients = append(s.clients, c)
		for k, room := range s.rooms {
			if i+k == 0 || !s.calm {
				s.send(c, "user-"+p.Region, room)
			}
			s.ask(c, "reader-"+p.Region, room)
			s.follow(c, "follower-"+p.Region, room)
		}
	}
}

// send sends to a room without waiting for answers, as a device does that is
// used in a hurry.
func (s *story) send(c *client.Client, user, room string) {
	rng := rand.New(rand.NewPCG(s.seed, s.rng.Uint64()))
	s.talk.Go(func() {
		for n := 1; s.silent.Err() == nil; n++ {
			content := fmt.Sprint(user, " says ", n)
			x := oracle.Send{
				App: "demo", Room: room, User: user, Device: "one", N: n, ID: fmt.Sprintf("%s-%s-%d", user, room, n),
				Hash: oracle.Sum(content), Call: time.Now().UnixNano(), Outcome: oracle.Unknown,
			}
			s.talk.Add(1)
			answered := make(chan struct{})
			c.Send(s.t.Context(), client.Message{Room: room, ID: x.ID, Content: content}, func(a client.Ack, err error) {
				defer s.talk.Done()
				defer close(answered)
				var rejected *client.Rejected
				switch x.Return = time.Now().UnixNano(); {
				case err == nil:
					x.Outcome, x.Seq = oracle.Acked, a.Seq
				case errors.As(err, &rejected):
					x.Outcome = oracle.Rejected
				}
				s.rec.Add(x)
			})
			if s.calm {
				<-answered
			}
			rest(s.silent, time.Duration(30+rng.IntN(150))*time.Millisecond)
		}
	})
}

// rest waits for d, or less if ctx ends.
func rest(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// ask asks for the head of a room again and again; the answers must be up to date.
func (s *story) ask(c *client.Client, observer, room string) {
	s.talk.Go(func() {
		for after := uint64(0); s.silent.Err() == nil; rest(s.silent, 300*time.Millisecond) {
			read := oracle.Read{Observer: observer, App: "demo", Room: room, Linearizable: true, Call: time.Now().UnixNano()}
			page, err := c.History(s.silent, room, after, 1, client.Linearizable())
			if err != nil {
				continue
			}
			after = page.Head
			read.Head, read.Return = page.Head, time.Now().UnixNano()
			s.rec.Add(read)
		}
	})
}

func (s *story) follow(c *client.Client, observer, room string) {
	f, err := c.Follow(s.t.Context(), room, 0)
	ok(s.t, err)
	s.watch.Go(func() {
		for {
			e, err := f.Next(s.t.Context())
			if err != nil {
				if !errors.Is(err, client.ErrClosed) {
					s.t.Errorf("%s of %s: %v", observer, room, err)
				}
				return
			}
			s.rec.Add(seenBy(observer, e))
		}
	})
}

func seenBy(observer string, e client.Event) oracle.Seen {
	return oracle.Seen{
		Observer: observer, App: "demo", Room: e.Room, Seq: e.Seq, User: e.User, ID: e.ID,
		Hash: oracle.Sum(e.Content), At: time.Now().UnixNano(),
	}
}

// end makes everything whole, lets what is open come to its end, and reads
// what there is.
func (s *story) end() {
	heal()(s)
	for _, p := range s.peers {
		if s.nodes[p.ID] == nil {
			s.start(p.ID)
		}
	}
	s.hush()
	quiet := make(chan struct{})
	go func() { s.talk.Wait(); close(quiet) }()
	select {
	case <-quiet:
	case <-time.After(openWithin):
		s.t.Errorf("seed %d: sends or reads have no answer %v after everything is whole", s.seed, openWithin)
	}
	heads := map[string]uint64{}
	for i, p := range s.peers {
		for _, room := range s.rooms {
			heads[room] = max(heads[room], s.export(s.clients[i], "export-"+p.Region, room))
		}
	}
	s.reach(heads)
	for _, p := range s.peers {
		for _, state := range s.nodes[p.ID].node.States() {
			s.rec.Add(state)
		}
	}
	for _, c := range s.clients {
		_ = c.Close()
	}
	<-quiet
	s.watch.Wait()
	s.stopAll()
}

// export reads all of a room, and returns its head.
func (s *story) export(c *client.Client, observer, room string) uint64 {
	read := oracle.Read{Observer: observer, App: "demo", Room: room, Linearizable: true, Complete: true, Call: time.Now().UnixNano()}
	ctx, cancel := context.WithTimeout(s.t.Context(), openWithin)
	defer cancel()
	for after, more := uint64(0), true; more; {
		page, err := c.History(ctx, room, after, 0, client.Linearizable())
		if err != nil {
			s.t.Errorf("seed %d: %s of %s: %v", s.seed, observer, room, err)
			return 0
		}
		for _, e := range page.Events {
			after = e.Seq
			s.rec.Add(seenBy(observer, e))
		}
		if read.Return == 0 {
			read.Return = time.Now().UnixNano() // the head was told with the first page
		}
		read.Head, more = page.Head, page.More
	}
	s.rec.Add(read)
	return read.Head
}

// reach waits until each follower has seen each room to its head.
func (s *story) reach(heads map[string]uint64) {
	behind := func() (names []string) {
		seen := map[string]uint64{}
		for _, e := range s.rec.History().Seen {
			seen[e.Observer+" of "+e.Room] = e.Seq
		}
		for _, p := range s.peers {
			for room, head := range heads {
				if name := "follower-" + p.Region + " of " + room; seen[name] < head {
					names = append(names, fmt.Sprintf("%s at %d of %d", name, seen[name], head))
				}
			}
		}
		return names
	}
	for deadline := time.Now().Add(headWithin); len(behind()) > 0; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Errorf("seed %d: %v after the last send: %s", s.seed, headWithin, strings.Join(behind(), ", "))
			return
		}
	}
}
