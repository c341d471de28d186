package starling_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/relay"
	"github.com/starling-im/starling/wire"
)

// edges notes when aggregates and Signals go over each edge.
type edges struct {
	mu   sync.Mutex
	last map[string]time.Time
	sent int
	fast []string // those that came too soon after another
}

func (e *edges) note(edge string, least time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	if last, ok := e.last[edge]; ok && now.Sub(last) < least {
		e.fast = append(e.fast, fmt.Sprintf("%s after %v", edge, now.Sub(last)))
	}
	e.last[edge] = now
	e.sent++
}

// count is how many were noted.
func (e *edges) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.sent
}

// onlooker follows a room with its signals.
type onlooker struct {
	mu  sync.Mutex
	now client.Signals
}

func (w *world) onlook(c *client.Client, room string, each func()) *onlooker {
	o := &onlooker{}
	_, err := c.Follow(w.t.Context(), room, 0, client.WithSignals(func(s client.Signals) {
		each()
		o.mu.Lock()
		defer o.mu.Unlock()
		o.now = s
	}))
	ok(w.t, err)
	return o
}

func (o *onlooker) sees() (typing, sessions int) {
	if o == nil { // its node is gone
		return 0, 0
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.now.Typing) + o.now.Others, o.now.Sessions
}

// crowd is a mesh with an onlooker on each node.
type crowd struct {
	*world
	edges     edges
	clients   []*client.Client
	onlookers []*onlooker
}

func newCrowd(t *testing.T, regions ...string) *crowd {
	w := &crowd{world: newWorld(t, regions...), edges: edges{last: map[string]time.Time{}}}
	w.actAs = "*"
	w.before = func(n *starling.Node) {
		n.OnAggregate(func(to string, about relay.Subject) {
			w.edges.note(n.ID()+" to "+to+" of "+about.Room+about.User, wire.AggregateEvery)
		})
	}
	for _, p := range w.peers {
		w.start(p.ID)
	}
	for i := range w.peers {
		c := w.dial(fmt.Sprint("onlooker-", i), i)
		w.clients = append(w.clients, c)
		w.onlookers = append(w.onlookers, w.onlook(c, "lobby", func() { w.edges.note(fmt.Sprint("to onlooker ", i), wire.AggregateEvery) }))
	}
	_, err := w.clients[0].Publish(t.Context(), client.Message{Room: "lobby", Content: "who is there?"})
	ok(t, err)
	return w
}

// see waits until all onlookers see so many users type and so many sessions; each
// is called meanwhile.
func (w *crowd) see(typing, sessions int, within time.Duration, each func()) {
	w.t.Helper()
	began := time.Now()
	for i, o := range w.onlookers {
		for {
			nowTyping, nowSessions := o.sees()
			if o == nil || nowTyping == typing && nowSessions == sessions {
				break
			}
			if time.Since(began) > within {
				w.t.Fatalf("onlooker %d sees %d users typing and %d sessions, not %d and %d", i, nowTyping, nowSessions, typing, sessions)
			}
			each()
			time.Sleep(10 * time.Millisecond)
		}
	}
	w.t.Logf("%d typing, %d sessions: all saw it after %v", typing, sessions, time.Since(began))
}

// entries are the indices of all groups on all nodes.
func (w *crowd) entries() string {
	var all []uint64
	for _, p := range w.peers {
		for group := range uint32(len(w.peers) + 1) {
			all = append(all, w.nodes[p.ID].node.Entries(group))
		}
	}
	return fmt.Sprint(all)
}

func (w *crowd) end() {
	for _, fast := range w.edges.fast {
		w.t.Errorf("too soon: %s", fast)
	}
	for _, c := range w.clients {
		ok(w.t, c.Close())
	}
	w.stopAll()
}

func nothing() {}

// droppedBut counts the signals that a node dropped for another reason.
func droppedBut(reason string, is relay.SignalStats) (n uint64) {
	for drop, dropped := range is.Dropped {
		if drop.Reason != reason {
			n += dropped
		}
	}
	return n
}

// A thousand users type in one room, on all nodes of a mesh. Everybody who follows it sees
// them start and stop, no group has an entry more, and nothing goes over an
// edge twice within 250 ms.
func TestThousandTypers(t *testing.T) {
	t.Parallel()
	const typers = 1000
	synctest.Test(t, func(t *testing.T) {
		w := newCrowd(t, "fra", "iad", "sin", "sin", "hkg", "hkg")
		w.see(0, len(w.clients), 5*time.Second, nothing)
		time.Sleep(10 * time.Second)
		before, sent := w.entries(), w.edges.count()
		for round := range 5 {
			for k := range typers {
				w.clients[k%len(w.clients)].TypingAs(fmt.Sprint("user-", k), "lobby")
			}
			if round == 0 {
				w.see(typers, len(w.clients), 2*time.Second, nothing)
			}
			time.Sleep(wire.TypingAgain)
			w.see(typers, len(w.clients), 0, nothing)
		}
		time.Sleep(wire.TypingFor - wire.TypingAgain)
		w.see(0, len(w.clients), 2*time.Second, nothing)
		for _, p := range w.peers {
			if is := w.nodes[p.ID].node.Signals(); is.Datagrams == 0 || is.Datagrams == is.Signals || droppedBut("", is) > 0 {
				t.Errorf("%s: %+v", p.ID, is)
			}
		}
		if after := w.entries(); before != after {
			t.Errorf("groups have entries more: %s, %s", before, after)
		}
		t.Logf("%d aggregates", w.edges.count()-sent)
		w.end()
	})
}

// The typers and onlookers of a node that dies vanish, whichever node that is.
func TestTypersOfADeadNodeVanish(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newCrowd(t, "fra", "iad", "sin", "sin", "hkg", "hkg")
		living := len(w.clients)
		w.see(0, living, 5*time.Second, nothing)
		said := time.Time{}
		talk := func() {
			if time.Since(said) < wire.TypingAgain {
				return
			}
			said = time.Now()
			for i, c := range w.clients {
				if w.onlookers[i] != nil {
					c.TypingAs(fmt.Sprint("typer-", i), "lobby")
				}
			}
		}
		w.see(living, living, 2*time.Second, talk)
		for _, id := range []string{"fra-1", "hkg-1"} {
			k := slices.IndexFunc(w.peers, func(p starling.Peer) bool { return p.ID == id })
			w.kill(id, 100)
			w.onlookers[k] = nil
			living--
			w.see(living, living, 20*time.Second, talk)
		}
		w.end()
	})
}

// Users who watch another one, on all nodes, see how that one comes, is away, is there
// with another device, and goes; also with the node on which that one was.
func TestPresence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "fra", "iad", "sin", "sin", "hkg")
		for _, p := range w.peers {
			w.start(p.ID)
		}
		var mu sync.Mutex
		seen := map[int]client.State{}
		var watchers []*client.Client
		for i := range 4 {
			c := w.dial(fmt.Sprint("watcher-", i), i)
			watchers = append(watchers, c)
			ok(t, c.Present(client.Presence{Watch: []string{"alice", "nobody"}, Each: func(user string, is client.State) {
				mu.Lock()
				defer mu.Unlock()
				if user == "alice" {
					seen[i] = is
				} else if is != client.Offline {
					t.Errorf("nobody is %v", is)
				}
			}}))
		}
		sees := func(want client.State, within time.Duration) {
			t.Helper()
			began := time.Now()
			for i := 0; i < len(watchers); {
				mu.Lock()
				is := seen[i]
				mu.Unlock()
				switch {
				case is == want:
					i++
				case time.Since(began) > within:
					t.Fatalf("watcher %d sees %v, not %v", i, is, want)
				default:
					time.Sleep(10 * time.Millisecond)
				}
			}
			t.Logf("all saw %v after %v", want, time.Since(began))
		}
		sees(client.Offline, 5*time.Second)
		phone := w.dial("alice", 2)
		ok(t, phone.Present(client.Presence{Own: client.Online}))
		sees(client.Online, time.Second)
		ok(t, phone.Present(client.Presence{Own: client.Away}))
		sees(client.Away, time.Second)
		desk := w.dial("alice", 4)
		ok(t, desk.Present(client.Presence{Own: client.Online}))
		sees(client.Online, time.Second)
		ok(t, phone.Close())
		time.Sleep(time.Minute)
		sees(client.Online, 0)
		w.kill("hkg-1", 100)
		sees(client.Offline, time.Minute)
		for _, c := range append(watchers, desk) {
			ok(t, c.Close())
		}
		w.stopAll()
	})
}
