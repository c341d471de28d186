package starling_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/wire"
)

// asked asks a node about the way out of one.
func (w *world) asked(of, what string, args ...string) (starling.DrainInfo, error) {
	var i starling.DrainInfo
	b, err := w.nodes[of].node.Operate(w.t.Context(), what, args...)
	if err == nil {
		err = json.Unmarshal(b, &i)
	}
	return i, err
}

// Five nodes are drained and come back, one after the other, under a chat: no send
// fails, nobody misses an event, and each client that changes its node was asked to.
func TestDrainsInTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRegion(t, 5)
		w.replaceAfter = 0
		for _, p := range w.peers {
			w.start(p.ID)
		}
		w.until("three voters", 20*time.Second, func(p starling.GroupPlan) bool { return len(p.Voters) == 3 && p.Next == "" })
		var clients []*client.Client
		for i := range w.peers {
			clients = append(clients, w.dial(fmt.Sprint("reader-", i), i, (i+1)%len(w.peers)))
		}
		ctx, cancel := context.WithCancel(t.Context())
		var observers []*observer
		for _, c := range clients {
			observers = append(observers, w.observe(ctx, c, "lobby"))
		}
		stop := w.chatter(0, 1, 2)
		for i, p := range w.peers {
			other := w.peers[(i+1)%len(w.peers)].ID
			for range 2 { // the second time it is under way already
				if is, err := w.asked(other, "node.drain", p.ID); err != nil || is.Stage == starling.StageServing {
					t.Fatalf("%s: %+v, %v", p.ID, is, err)
				}
			}
			w.drainsOf(p.ID, other)
			late := w.dial("late", i, (i+1)%len(w.peers))
			if node, _ := late.Node(); node == p.ID {
				t.Errorf("%s lets somebody in while it drains", p.ID)
			}
			_ = late.Close()
			if err := w.died(p.ID, 10*time.Second); err != nil || w.nodes[p.ID] != nil {
				t.Fatalf("%s did not end by itself, or with %v", p.ID, err)
			}
			if is, err := w.asked(other, "node.progress", p.ID); err != nil || is.Stage != starling.StageLeft {
				t.Errorf("%s: %+v, %v", p.ID, is, err)
			}
			w.start(p.ID)
			w.until("it is back", 20*time.Second, func(starling.GroupPlan) bool { return w.member(other, p.ID).State == "alive" })
		}
		sent := stop()
		for i, o := range observers {
			for range 100 {
				if len(o.events(t)) >= sent {
					break
				}
				time.Sleep(100 * time.Millisecond)
			}
			if got := len(o.events(t)); got != sent {
				t.Errorf("reader %d saw %d of %d events", i, got, sent)
			}
			if ends := clients[i].Ends(); ends.Lost > 0 || ends.Moved == 0 {
				t.Errorf("the sessions of reader %d ended as %+v", i, ends)
			}
		}
		cancel()
		for i, o := range observers {
			<-o.done
			_ = clients[i].Close()
		}
		w.stopAll()
	})
}

// drainsOf waits until a node asks its clients to go; it leads nothing by then.
func (w *world) drainsOf(node, other string) {
	for range 1000 {
		switch is, err := w.asked(other, "node.progress", node); {
		case err == nil && is.Stage == starling.StageLeads:
			time.Sleep(10 * time.Millisecond)
			continue
		case err != nil || is.Stage != starling.StageClients || is.Leads > 0:
			w.t.Errorf("%s: %+v, %v", node, is, err)
		}
		return
	}
	w.t.Errorf("%s goes on leading", node)
}

// With one of three voters gone, another does not go unless it is forced to.
func TestDrainKeepsTheQuorum(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRegion(t, 3)
		for _, p := range w.peers {
			w.start(p.ID)
		}
		w.until("three voters", 20*time.Second, func(p starling.GroupPlan) bool { return len(p.Voters) == 3 && p.Next == "" })
		w.stop("fra-3")
		for _, what := range []string{"node.drain", "node.leave"} {
			args := []string{"fra-2"}
			if what == "node.leave" {
				args = []string{"l1", "fra-2"}
			}
			if is, err := w.asked("fra-1", what, args...); wire.Code(err) != wire.CodeConflict {
				t.Errorf("%s: %+v, %v", what, is, err)
			}
		}
		if is, err := w.asked("fra-1", "node.drain", "fra-2", "force"); err != nil || is.Stage == starling.StageServing {
			t.Errorf("%+v, %v", is, err)
		}
		if err := w.died("fra-2", 10*time.Second); err != nil || w.nodes["fra-2"] != nil {
			t.Errorf("it did not end by itself, or with %v", err)
		}
		w.stopAll()
	})
}

// A node that drains while it learns, to vote in the place of another, gets no vote on its
// way out.
func TestDrainOfALearner(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRegion(t, 4)
		for _, p := range w.peers {
			w.start(p.ID)
		}
		p := w.until("three voters", 20*time.Second, func(p starling.GroupPlan) bool { return len(p.Voters) == 3 && p.Next == "" })
		other, learns := p.Voters[slices.IndexFunc(p.Voters, func(v string) bool { return v != p.Leader })], w.free(p)
		if _, err := w.operate("groups.replace", other, learns); err != nil {
			t.Fatal(err)
		}
		w.until("it learns", 20*time.Second, func(p starling.GroupPlan) bool { return slices.Contains(p.Learners, learns) })
		for range 8 { // it is on its way out for as long as they take to go
			at := slices.IndexFunc(w.peers, func(p starling.Peer) bool { return p.ID == learns })
			c := w.dial("reader", at, (at+1)%len(w.peers))
			defer c.Close()
		}
		if is, err := w.asked(p.Leader, "node.drain", learns, "window=5s"); err != nil {
			t.Fatalf("%+v, %v", is, err)
		}
		for w.nodes[learns] != nil {
			if now, err := w.operate("groups.explain"); err == nil && slices.Contains(now.Voters, learns) {
				t.Fatalf("it has got a vote: %+v", now)
			}
			_ = w.died(learns, 50*time.Millisecond)
		}
		w.stopAll()
	})
}

// A node leaves for good under a chat, with a restart on the way: others have its
// replicas first, and then nobody knows it any more.
func TestLeave(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRegion(t, 4)
		w.replaceAfter = 0
		for _, p := range w.peers {
			w.start(p.ID)
		}
		p := w.until("three voters", 20*time.Second, func(p starling.GroupPlan) bool { return len(p.Voters) == 3 && p.Next == "" })
		stays := w.free(p)
		stop := w.chatter(slices.IndexFunc(w.peers, func(n starling.Peer) bool { return n.ID == stays }))
		if is, err := w.asked(stays, "node.leave", "l1", p.Leader); err != nil || !is.Leaving && is.Stage != starling.StageServing {
			t.Fatalf("%+v, %v", is, err)
		}
		w.until("another leads", 10*time.Second, func(now starling.GroupPlan) bool { return now.Leader != p.Leader })
		if w.nodes[p.Leader] != nil { // it may be gone by now
			w.stop(p.Leader)
			w.start(p.Leader)
		}
		if err := w.died(p.Leader, 30*time.Second); err != nil || w.nodes[p.Leader] != nil {
			t.Fatalf("it did not end by itself, or with %v", err)
		}
		now := w.until("three voters without it", 10*time.Second, func(now starling.GroupPlan) bool {
			return len(now.Voters) == 3 && !slices.Contains(now.Voters, p.Leader) && now.Next == ""
		})
		if _, err := w.asked(stays, "node.leave", "l2", p.Leader); wire.Code(err) != wire.CodeNotFound {
			t.Errorf("it is still known: %v", err)
		}
		// Of three nodes one can go, of two as well; the last one stays.
		if err := w.leaveAll(now, stays); wire.Code(err) != wire.CodeConflict {
			t.Errorf("the last one may go: %v", err)
		}
		t.Logf("%d sends", stop())
		w.stopAll()
	})
}

// leaveAll lets all nodes leave but one, and returns why that one may not.
func (w *world) leaveAll(p starling.GroupPlan, last string) error {
	for _, id := range w.running() {
		if id == last {
			continue
		}
		if _, err := w.asked(last, "node.leave", "go-"+id, id); err != nil {
			w.t.Errorf("%s: %v", id, err)
		}
		if err := w.died(id, 30*time.Second); err != nil || w.nodes[id] != nil {
			w.t.Fatalf("%s did not end by itself, or with %v", id, err)
		}
	}
	_, err := w.asked(last, "node.leave", "go-"+last, last)
	return err
}
