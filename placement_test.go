package starling_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/directory"
	"github.com/starling-im/starling/geo"
	"github.com/starling-im/starling/wire"
)

// gate holds a node's copy of the directory back while it is shut.
type gate struct{ shut atomic.Pointer[chan struct{}] }

func (g *gate) wait() {
	if c := g.shut.Load(); c != nil {
		<-*c
	}
}

func (g *gate) close() {
	c := make(chan struct{})
	g.shut.Store(&c)
}

func (g *gate) open() {
	if c := g.shut.Swap(nil); c != nil {
		close(*c)
	}
}

// migration is a mesh whose rules and groups change while rooms are made, by
// nodes of which one or the other has not heard of it.
type migration struct {
	*world
	t     *testing.T
	rng   *rand.Rand
	gates map[string]*gate

	mu   sync.Mutex
	acks map[string]map[uint64][]string // of each room and seq: the messages
	sent map[string][]uint64            // of each client and room: the seqs, in the order of sending
	bad  []string

	lone []directory.Group // of one voter each
}

func newMigration(t *testing.T, seed uint64, asks bool) *migration {
	m := &migration{
		world: newWorld(t, "fra", "iad", "sin"), t: t, rng: rand.New(rand.NewPCG(seed, 7)),
		gates: map[string]*gate{}, acks: map[string]map[uint64][]string{}, sent: map[string][]uint64{},
	}
	m.before = func(n *starling.Node) {
		g := &gate{}
		m.gates[n.ID()] = g
		n.HoldDirectory(g.wait)
		if !asks {
			n.MakeWithoutAsking()
		}
	}
	for _, p := range m.peers {
		m.start(p.ID)
	}
	for i, p := range m.peers {
		m.lone = append(m.lone, directory.Group{ID: uint32(90 + i), Region: p.Region, Voters: []string{p.ID}, Class: directory.Class{Survive: "none"}})
	}
	return m
}

// change changes where rooms are made while one node is not told.
func (m *migration) change(step int) {
	regions := []string{"fra", "iad", "sin"}
	late, at := m.rng.IntN(3), m.rng.IntN(2)
	slow, fast := m.peers[late].ID, m.peers[(late+1+at)%3].ID
	m.gates[slow].close()
	home := regions[m.rng.IntN(3)]
	rule := directory.Rule{Pattern: "r-*", Homes: []string{home}}
	if m.rng.IntN(2) == 0 && step > 0 {
		rule.Survive = "none"
	}
	c := directory.Change{PutRule: directory.AppRule{App: "demo", Rule: rule}}
	if step == 0 {
		c = directory.Change{AddGroups: m.lone}
	} else if step%3 == 2 {
		c = directory.Change{AddGroups: []directory.Group{{ID: uint32(100 + step), Region: home, Voters: []string{"fra-1", "iad-1", "sin-1"}}}}
	}
	if err := m.nodes[fast].node.Change(m.t.Context(), fmt.Sprint("change-", step), c); err != nil {
		m.t.Errorf("change %d: %v", step, err)
	}
	time.Sleep(time.Duration(500+m.rng.IntN(1500)) * time.Millisecond)
	m.gates[slow].open()
	time.Sleep(time.Duration(m.rng.IntN(500)) * time.Millisecond)
}

// say sends a message and notes where it stands.
func (m *migration) say(c *client.Client, room, id string, open *sync.WaitGroup) {
	open.Add(1)
	lane := fmt.Sprintf("%p to %s", c, room)
	m.mu.Lock()
	nth := len(m.sent[lane])
	m.sent[lane] = append(m.sent[lane], 0)
	m.mu.Unlock()
	c.Send(m.t.Context(), client.Message{Room: room, ID: id, Content: id}, func(a client.Ack, err error) {
		defer open.Done()
		m.mu.Lock()
		defer m.mu.Unlock()
		if err != nil {
			m.bad = append(m.bad, fmt.Sprintf("%s to %s: %v", id, room, err))
			return
		}
		m.sent[lane][nth] = a.Seq
		if m.acks[room] == nil {
			m.acks[room] = map[uint64][]string{}
		}
		m.acks[room][a.Seq] = append(m.acks[room][a.Seq], id)
	})
}

// run makes rooms from all regions at once, and says more in those that exist,
// while the placement changes. It returns the rooms that got two histories.
func (m *migration) run(changes int) (split []string) {
	clients := []*client.Client{m.dial("fra", 0), m.dial("iad", 1), m.dial("sin", 2)}
	_, err := clients[0].Publish(m.t.Context(), client.Message{Room: "first", Content: "ready"})
	ok(m.t, err)
	var open sync.WaitGroup
	changed := make(chan struct{})
	rng := rand.New(rand.NewPCG(m.rng.Uint64(), 0))
	go func() {
		defer close(changed)
		for step := range changes {
			m.change(step)
		}
	}()
	ctx, stop := context.WithCancel(m.t.Context())
	seen := map[string][]*observer{}
	for k := 0; ; k++ {
		select {
		case <-changed:
		default:
			room := fmt.Sprint("r-", k)
			if k%8 == 0 { // before it exists
				for _, c := range clients {
					seen[room] = append(seen[room], m.observe(ctx, c, room))
				}
			}
			for i, c := range clients {
				m.say(c, room, fmt.Sprintf("%d-%d", i, k), &open)
				m.say(c, fmt.Sprint("r-", rng.IntN(k+1)), fmt.Sprintf("%d-%d-more", i, k), &open)
			}
			time.Sleep(100 * time.Millisecond)
			continue
		}
		break
	}
	open.Wait()
	for room, seqs := range m.acks {
		for seq := range uint64(len(seqs)) {
			if len(seqs[seq+1]) != 1 {
				split = append(split, fmt.Sprintf("%s: %v at seq %d", room, seqs[seq+1], seq+1))
			}
		}
	}
	if len(split) == 0 {
		m.checkSeen(seen, clients)
		for lane, seqs := range m.sent {
			if !slices.IsSorted(seqs) {
				m.t.Errorf("%s: sent in order, but they have the seqs %v", lane, seqs)
			}
		}
	}
	stop()
	for _, c := range clients {
		_ = c.Close()
	}
	return split
}

// checkSeen checks that who followed a room saw all of it, and that a page at any
// node has it.
func (m *migration) checkSeen(seen map[string][]*observer, clients []*client.Client) {
	for room, observers := range seen {
		for i, o := range observers {
			for until := time.Now().Add(time.Minute); len(o.events(m.t)) < len(m.acks[room]) && time.Now().Before(until); {
				time.Sleep(50 * time.Millisecond)
			}
			page, err := clients[i].History(m.t.Context(), room, 0, 0, client.Linearizable())
			ok(m.t, err)
			events := o.events(m.t)
			if len(events) != len(m.acks[room]) || len(page.Events) != len(events) {
				m.t.Errorf("%s has %d messages, %d of them came to %s and %d are in a page", room, len(m.acks[room]), len(events), m.peers[i].Region, len(page.Events))
			}
			for k, e := range events {
				if id := m.acks[room][uint64(k+1)][0]; !strings.HasSuffix(e, " "+id) {
					m.t.Errorf("%s saw %q as seq %d of %s, acknowledged was %q", m.peers[i].Region, e, k+1, room, id)
				}
			}
		}
	}
}

// settle makes the mesh forget earlier placements; each room is still found, also
// by a node that knows nothing but the directory.
func (m *migration) settle() {
	m.stop("sin-1")
	m.start("sin-1")
	for info := (starling.SettleInfo{}); !info.Settled; {
		answer, err := m.nodes["fra-1"].node.Operate(m.t.Context(), "placement.settle")
		if err != nil && !wire.AsError(err).Retryable {
			m.t.Fatal(err)
		}
		if err != nil {
			time.Sleep(100 * time.Millisecond)
			continue
		}
		ok(m.t, json.Unmarshal(answer, &info))
	}
	c := m.dial("late", 2)
	for room, seqs := range m.acks {
		a, err := c.Publish(m.t.Context(), client.Message{Room: room, Content: "late"})
		if err != nil || a.Seq != uint64(len(seqs)+1) {
			m.t.Errorf("%s has %d messages, the next one is %d, %v", room, len(seqs), a.Seq, err)
		}
		// The far node hears of the settling a moment later.
		places, err := []uint32(nil), error(nil)
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			if places, err = m.nodes["sin-1"].node.Directory().Places("demo", room); len(places) == 1 {
				break
			}
		}
		if err != nil || len(places) != 1 {
			m.t.Errorf("%s may be in %v, %v", room, places, err)
		}
	}
	_ = c.Close()
}

// Rules, with what their rooms outlive, change and groups are added while rooms are made everywhere, by nodes
// that have not heard of it: no room ever has two histories, and who followed it
// before it was made sees all of it.
func TestOneIDHasOneHistory(t *testing.T) {
	t.Parallel()
	for seed := range rounds(3, 60) {
		synctest.Test(t, func(t *testing.T) {
			m := newMigration(t, seed, true)
			if split := m.run(7); len(split) > 0 {
				t.Errorf("seed %d: two histories: %v", seed, split)
			}
			if len(m.bad) > 0 {
				t.Errorf("seed %d: refused for good: %v", seed, m.bad)
			}
			m.settle()
			m.stopAll()
		})
	}
}

// The same where nobody asks the groups of earlier placements must be found out.
func TestWithoutAskingHistoriesSplit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMigration(t, 1, false)
		if split := m.run(6); len(split) == 0 {
			t.Error("no room has two histories, so the test above finds nothing")
		}
		m.stopAll()
	})
}

// Making rooms writes to their own groups only: the directory's log stays as it
// is while a thousand are made per second.
func TestMakingRoomsWritesNothingElsewhere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "fra", "iad", "sin")
		for _, p := range w.peers {
			w.start(p.ID)
		}
		c := w.dial("alice", 0)
		_, err := c.Publish(t.Context(), client.Message{Room: "first", Content: "ready"})
		ok(t, err)
		time.Sleep(5 * time.Second)
		before := w.nodes["fra-1"].node.Entries(0)
		start := time.Now()
		var open sync.WaitGroup
		for k := range 1000 {
			open.Add(1)
			c.Send(t.Context(), client.Message{Room: fmt.Sprint("room-", k), Content: "hello"}, func(_ client.Ack, err error) {
				defer open.Done()
				if err != nil {
					t.Error(err)
				}
			})
			time.Sleep(time.Millisecond)
		}
		open.Wait()
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("1000 rooms took %v", took)
		}
		if after := w.nodes["fra-1"].node.Entries(0); after != before {
			t.Errorf("group 0 has %d entries more", after-before)
		}
		_ = c.Close()
		w.stopAll()
	})
}

// While the directory has no quorum, and in a region that is cut off, rooms are
// made whose groups are all at hand: also those that earlier rules would have
// put into another group there.
func TestRoomsAreMadeWithoutTheDirectory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "fra", "iad", "sin")
		w.survive = geo.SurviveNode // one node per region: groups are at home
		for _, p := range w.peers {
			w.start(p.ID)
		}
		c := w.dial("alice", 2)
		say := func(room string) error {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			_, err := c.Publish(ctx, client.Message{Room: room, Content: "hello"})
			return err
		}
		ok(t, say("~sin/first"))
		change := func(id string, c directory.Change) {
			err := w.nodes["sin-1"].node.Change(t.Context(), id, c)
			for range 100 {
				if err == nil || !wire.AsError(err).Retryable {
					break
				}
				time.Sleep(100 * time.Millisecond) // its group is on the move
				err = w.nodes["sin-1"].node.Change(t.Context(), id, c)
			}
			ok(t, err)
		}
		change("1", directory.Change{AddGroups: []directory.Group{
			{ID: 50, Region: "sin", Voters: []string{"sin-1"}}, {ID: 51, Region: "sin", Voters: []string{"sin-1"}},
		}})
		change("2", directory.Change{PutRule: directory.AppRule{App: "demo", Rule: directory.Rule{Pattern: "home/*", Homes: []string{"sin"}}}})
		w.net.Cut([]string{w.host("sin-1")}, []string{w.host("fra-1"), w.host("iad-1")})
		time.Sleep(20 * time.Second)
		moved := 0
		for k := range 20 {
			room := fmt.Sprint("~sin/room-", k)
			places, err := w.nodes["sin-1"].node.Directory().Places("demo", room)
			ok(t, err)
			moved += len(places) - 1
			if err := say(room); err != nil {
				t.Errorf("%s of groups %v: %v", room, places, err)
			}
		}
		if moved == 0 {
			t.Error("no room was placed elsewhere by the earlier groups")
		}
		ok(t, say("~sin/first")) // it is still found
		// An earlier group that is cut off may have the room: that is not for us to decide.
		var err error
		for k := 0; ; k++ {
			room := fmt.Sprint("home/", k)
			if places, _ := w.nodes["sin-1"].node.Directory().Places("demo", room); slices.ContainsFunc(places, func(g uint32) bool { return g < 3 }) {
				err = say(room)
				break
			}
		}
		if unknown := (*client.Rejected)(nil); err == nil || errors.As(err, &unknown) && !unknown.Err.Retryable {
			t.Errorf("a room that the cut-off region may have: %v", err)
		}
		_ = c.Close()
		w.stopAll()
	})
}
