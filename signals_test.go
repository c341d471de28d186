package starling_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/room"
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
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.now.Typing) + o.now.Others, o.now.Sessions
}

// A thousand users type in one room, on all nodes of a mesh. Everybody who follows it sees
// them start and stop, no group has an entry more, and nothing goes over an
// edge twice within 250 ms. Those of a node that dies vanish.
func TestThousandTypers(t *testing.T) {
	const typers = 1000
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "fra", "iad", "sin", "sin", "hkg", "hkg")
		e := &edges{last: map[string]time.Time{}}
		w.before = func(n *starling.Node) {
			n.OnAggregate(func(to string, id room.ID) { e.note(n.ID()+" to "+to+" of "+id.Room, wire.AggregateEvery) })
		}
		for _, p := range w.peers {
			w.start(p.ID)
		}
		var clients []*client.Client
		var onlookers []*onlooker
		for i := range w.peers {
			c := w.dial(fmt.Sprint("onlooker-", i), i)
			clients = append(clients, c)
			onlookers = append(onlookers, w.onlook(c, "lobby", func() {}))
		}
		_, err := clients[0].Publish(t.Context(), client.Message{Room: "lobby", Content: "who is there?"})
		ok(t, err)
		see := func(typing, sessions int, within time.Duration) {
			t.Helper()
			began := time.Now()
			for i, o := range onlookers {
				for gotTyping, gotSessions := o.sees(); gotTyping != typing || gotSessions != sessions; gotTyping, gotSessions = o.sees() {
					if time.Since(began) > within {
						t.Fatalf("onlooker %d sees %d users typing and %d sessions, not %d and %d", i, gotTyping, gotSessions, typing, sessions)
					}
					time.Sleep(10 * time.Millisecond)
				}
			}
			t.Logf("%d typing, %d sessions: all saw it after %v", typing, sessions, time.Since(began))
		}
		see(0, len(clients), 5*time.Second)
		time.Sleep(10 * time.Second)
		entries := func() (all []uint64) {
			for _, p := range w.peers {
				for g := range uint32(8) {
					all = append(all, w.nodes[p.ID].node.Entries(g))
				}
			}
			return all
		}
		before := entries()
		for k := range typers {
			clients[k%len(clients)].TypingAs(fmt.Sprint("user-", k), "lobby")
		}
		see(typers, len(clients), 2*time.Second)
		time.Sleep(wire.TypingFor - 2*time.Second)
		see(0, len(clients), 4*time.Second)
		if after := entries(); fmt.Sprint(before) != fmt.Sprint(after) {
			t.Errorf("groups have entries more: %v, %v", before, after)
		}
		for _, fast := range e.fast {
			t.Errorf("too soon: %s", fast)
		}
		t.Logf("%d aggregates", e.sent)
		for _, c := range clients {
			ok(t, c.Close())
		}
		w.stopAll()
	})
}
