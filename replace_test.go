package starling_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/geo"
	"github.com/starling-im/starling/internal/simdisk"
	"github.com/starling-im/starling/wire"
)

// newRegion is a world of so many nodes in one region, which have little
// patience with those that are gone.
func newRegion(t *testing.T, nodes int) *world {
	w := newWorld(t, "fra")
	for i := 1; i < nodes; i++ {
		p := starling.Peer{ID: fmt.Sprintf("fra-%d", i+1), Region: "fra", Addr: fmt.Sprintf("10.0.%d.1:7400", i)}
		w.peers = append(w.peers, p)
		w.disks[p.ID] = simdisk.New(0)
		w.issue(p)
	}
	w.survive, w.replaceAfter = geo.SurviveNode, 20*time.Second
	return w
}

// operate asks any node that runs for something about group 1, of one that knows
// who leads it.
func (w *world) operate(what string, args ...string) (p starling.GroupPlan, err error) {
	for _, id := range w.running() {
		var b []byte
		if b, err = w.nodes[id].node.Operate(w.t.Context(), what, append([]string{"1"}, args...)...); err == nil {
			p = starling.GroupPlan{}
			if err = json.Unmarshal(b, &p); p.Leader != "" {
				return p, err
			}
			err = errors.Join(err, errors.New("nobody leads it"))
		}
	}
	return p, err
}

// equalReplicas fails unless all replicas of a group have applied the same.
func (w *world) equalReplicas(group uint32) {
	w.t.Helper()
	b, err := w.nodes[w.running()[0]].node.Operate(w.t.Context(), "groups")
	ok(w.t, err)
	var groups []starling.GroupInfo
	ok(w.t, json.Unmarshal(b, &groups))
	for _, g := range groups {
		for _, r := range g.Replicas {
			if first := g.Replicas[0]; g.ID == group && (r.Hash == "" || r.Hash != first.Hash || r.Applied != first.Applied) {
				w.t.Errorf("replicas of group %d differ: %+v", group, g.Replicas)
			}
		}
	}
}

func (w *world) running() (ids []string) {
	for _, p := range w.peers {
		if w.nodes[p.ID] != nil {
			ids = append(ids, p.ID)
		}
	}
	return ids
}

// until asks for group 1 until it is as it should be, and fails after limit.
func (w *world) until(what string, limit time.Duration, ready func(starling.GroupPlan) bool) starling.GroupPlan {
	w.t.Helper()
	var p starling.GroupPlan
	var err error
	for start := time.Now(); time.Since(start) < limit; time.Sleep(100 * time.Millisecond) {
		if p, err = w.operate("groups.explain"); err == nil && ready(p) {
			w.t.Logf("%s after %v", what, time.Since(start).Round(100*time.Millisecond))
			return p
		}
	}
	w.t.Fatalf("not within %v: %s; %+v, %v", limit, what, p, err)
	return p
}

// chatter sends without a pause until it is stopped; none of its sends may fail.
func (w *world) chatter(regions ...int) (stop func() int) {
	c := w.dial("talker", regions...)
	w.t.Cleanup(func() { _ = c.Close() })
	ctx, cancel := context.WithCancel(w.t.Context())
	var sent atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if _, err := c.Publish(w.t.Context(), client.Message{Room: "lobby", Content: "still here"}); err != nil {
				w.t.Errorf("send %d: %v", sent.Load(), err)
			}
			sent.Add(1)
			time.Sleep(loadPause(50 * time.Millisecond))
		}
	}()
	return func() int {
		cancel()
		<-done
		return int(sent.Load())
	}
}

// One of five nodes is lost for good, disk and all, while people chat: its
// replicas are made anew elsewhere, one step at a time, and nobody notices.
func TestLostNodeIsReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRegion(t, 5)
		for _, p := range w.peers {
			w.start(p.ID)
		}
		p := w.until("three voters", 20*time.Second, func(p starling.GroupPlan) bool { return len(p.Voters) == 3 })
		lost := p.Voters[rand.IntN(3)]
		var others []int
		for i, peer := range w.peers {
			if peer.ID != lost {
				others = append(others, i)
			}
		}
		stop := w.chatter(others...)
		w.kill(lost, 0)
		w.disks[lost] = simdisk.New(0)
		p = w.until("three voters again", w.replaceAfter+30*time.Second, func(p starling.GroupPlan) bool {
			return len(p.Voters) == 3 && !slices.Contains(p.Voters, lost) && p.Next == "" && len(p.Learners) == 0
		})
		time.Sleep(5 * time.Second)
		t.Logf("%d sends", stop())
		w.equalReplicas(1)
		for _, id := range p.Voters {
			if r := w.nodes[id].node.Directory().Groups()[0].Replicas(); slices.Contains(r.Voters, lost) || len(r.Voters) != 3 {
				t.Errorf("%s looks for the group at %v", id, r.Voters)
			}
		}
		// It comes back with an empty disk, and nobody needs it.
		w.start(lost)
		time.Sleep(30 * time.Second)
		if p, err := w.operate("groups.explain"); err != nil || slices.Contains(p.Voters, lost) || p.Next != "" {
			t.Errorf("with %s back: %+v, %v", lost, p, err)
		}
		w.stopAll()
	})
}

// While an operator has paused it, nothing moves; then it does.
func TestNothingMovesWhilePaused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRegion(t, 4)
		for _, p := range w.peers {
			w.start(p.ID)
		}
		p := w.until("three voters", 20*time.Second, func(p starling.GroupPlan) bool { return len(p.Voters) == 3 })
		_, err := w.nodes["fra-1"].node.Operate(t.Context(), "groups.reconcile", "p1", "pause")
		ok(t, err)
		lost := p.Voters[1]
		w.kill(lost, 0)
		time.Sleep(2 * w.replaceAfter)
		q := w.until("it is told what would be done", 10*time.Second, func(q starling.GroupPlan) bool { return q.Paused && q.Next != "" })
		if slices.Sort(p.Voters); !slices.Equal(p.Voters, sorted(q.Voters)) || len(q.Learners) > 0 {
			t.Errorf("it was %+v, and is %+v", p, q)
		}
		_, err = w.nodes[w.running()[0]].node.Operate(t.Context(), "groups.reconcile", "p2", "resume")
		ok(t, err)
		w.until("another voter", 30*time.Second, func(q starling.GroupPlan) bool { return len(q.Voters) == 3 && !slices.Contains(q.Voters, lost) })
		w.stopAll()
	})
}

func sorted(s []string) []string { return slices.Sorted(slices.Values(s)) }

// An operator hands a group to another leader, and a replica to another node,
// while people chat.
func TestOperatorMovesReplicas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRegion(t, 4)
		for _, p := range w.peers {
			w.start(p.ID)
		}
		p := w.until("three voters", 20*time.Second, func(p starling.GroupPlan) bool { return len(p.Voters) == 3 })
		stop := w.chatter(0, 1, 2, 3)
		ctx, cancel := context.WithCancel(t.Context())
		var observers []*observer
		for i := range w.peers {
			c := w.dial(fmt.Sprint("reader-", i), i)
			defer c.Close()
			observers = append(observers, w.observe(ctx, c, "lobby"))
		}
		next := p.Voters[slices.IndexFunc(p.Voters, func(v string) bool { return v != p.Leader })]
		_, err := w.operate("groups.move-leader", next)
		ok(t, err)
		time.Sleep(time.Minute) // long enough for it to wander back
		if q, err := w.operate("groups.explain"); err != nil || q.Leader != next {
			t.Errorf("%s was to lead: %+v, %v", next, q, err)
		}
		free := w.free(p)
		w.until("the replica has moved", 30*time.Second, func(starling.GroupPlan) bool {
			q, err := w.operate("groups.replace", next, free)
			return err == nil && slices.Contains(q.Voters, free) && !slices.Contains(q.Voters, next) && q.Next == ""
		})
		if _, err := w.operate("groups.replace", "fra-9", next); err == nil {
			t.Error("a node that is no voter can be replaced")
		}
		time.Sleep(5 * time.Second)
		sent := stop()
		t.Logf("%d sends", sent)
		time.Sleep(5 * time.Second)
		for i, o := range observers { // of whom one sat at the node that lost its replica
			if seen := o.events(t); len(seen) != sent {
				t.Errorf("at %s %d of %d events were seen", w.peers[i].ID, len(seen), sent)
			}
		}
		cancel()
		for _, o := range observers {
			<-o.done
		}
		w.stopAll()
	})
}

// A leader is replaced. That is asked for once, at a node that has no replica
// and must find out who leads now; the next leader gets the order with the lead.
func TestLeaderIsReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRegion(t, 4)
		for _, p := range w.peers {
			w.start(p.ID)
		}
		p := w.until("a leader at home", 20*time.Second, func(p starling.GroupPlan) bool { return len(p.Voters) == 3 && p.Next == "" })
		free := w.free(p)
		time.Sleep(5 * time.Second) // all nodes know of all
		stop := w.chatter(0, 1, 2, 3)
		asked := w.nodes[free].node
		_, err := asked.Operate(t.Context(), "groups.replace", "1", p.Leader, free)
		ok(t, err)
		var q starling.GroupPlan
		moved := false
		for began := time.Now(); !moved && time.Since(began) < 20*time.Second; time.Sleep(time.Second) {
			b, err := asked.Operate(t.Context(), "groups.explain", "1")
			if err != nil {
				t.Logf("after %v: %v", time.Since(began), err)
				continue
			}
			q = starling.GroupPlan{}
			ok(t, json.Unmarshal(b, &q))
			moved = slices.Contains(q.Voters, free) && !slices.Contains(q.Voters, p.Leader) && q.Next == ""
		}
		if !moved {
			t.Errorf("it was %+v, and is %+v", p, q)
		}
		t.Logf("%d sends", stop())
		w.stopAll()
	})
}

// What an operator ordered is told until it is done, and can be called off.
func TestReplacementIsCalledOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRegion(t, 4)
		for _, p := range w.peers {
			w.start(p.ID)
		}
		p := w.until("three voters", 20*time.Second, func(p starling.GroupPlan) bool { return len(p.Voters) == 3 && p.Next == "" })
		_, err := w.nodes["fra-1"].node.Operate(t.Context(), "groups.reconcile", "p1", "pause")
		ok(t, err)
		free := w.free(p)
		old := p.Voters[slices.IndexFunc(p.Voters, func(v string) bool { return v != p.Leader })]
		w.until("moves are paused", 10*time.Second, func(p starling.GroupPlan) bool { return p.Paused })
		q, err := w.operate("groups.replace", old, free)
		ok(t, err)
		if !slices.Equal(q.Replace, []string{old, free}) || q.Next != "add_learner "+free {
			t.Errorf("%s is to replace %s: %+v", free, old, q)
		}
		q, err = w.operate("groups.call-off")
		ok(t, err)
		if len(q.Replace) > 0 || q.Next != "" {
			t.Errorf("it was called off: %+v", q)
		}
		if _, err := w.operate("groups.call-off"); !errors.Is(err, &wire.Error{Code: wire.CodeNotFound}) {
			t.Errorf("it is called off again: %v", err)
		}
		_, err = w.nodes["fra-1"].node.Operate(t.Context(), "groups.reconcile", "p2", "resume")
		ok(t, err)
		time.Sleep(10 * time.Second)
		if q, err := w.operate("groups.explain"); err != nil || !slices.Equal(sorted(q.Voters), sorted(p.Voters)) || len(q.Learners) > 0 {
			t.Errorf("it was %+v and is %+v, %v", p, q, err)
		}
		w.stopAll()
	})
}

// free is a node that has no replica of a group.
func (w *world) free(p starling.GroupPlan) string {
	i := slices.IndexFunc(w.peers, func(x starling.Peer) bool { return !slices.Contains(slices.Concat(p.Voters, p.Learners), x.ID) })
	return w.peers[i].ID
}

// A voter is gone. The list of groups says so, and it is not made the leader: that is
// refused at once, not tried again and again.
func TestSilentVoterIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRegion(t, 3)
		for _, p := range w.peers {
			w.start(p.ID)
		}
		p := w.until("a leader at home", 20*time.Second, func(p starling.GroupPlan) bool { return len(p.Voters) == 3 && p.Next == "" })
		time.Sleep(5 * time.Second)
		if g := w.groupOne(p.Leader); len(g.Replicas) != 3 || len(g.Missing) > 0 {
			t.Errorf("while all are there: %+v", g)
		}
		i := slices.IndexFunc(p.Voters, func(v string) bool { return v != p.Leader })
		w.kill(p.Voters[i], 0)
		time.Sleep(3 * time.Second)
		began := time.Now()
		_, err := w.nodes[p.Leader].node.Operate(t.Context(), "groups.move-leader", "1", p.Voters[i])
		e := wire.AsError(err)
		if e.Code != wire.CodeConflict || e.Retryable || !strings.Contains(e.Message, p.Voters[i]+" does not answer") || time.Since(began) > time.Second {
			t.Errorf("a node that is gone was to lead: %v after %v", err, time.Since(began))
		}
		if g := w.groupOne(p.Leader); len(g.Replicas) != 2 || !slices.Equal(g.Missing, []string{p.Voters[i]}) {
			t.Errorf("without %s: %+v", p.Voters[i], g)
		}
		w.stopAll()
	})
}

// groupOne is group 1 as a node lists it.
func (w *world) groupOne(at string) (g starling.GroupInfo) {
	w.t.Helper()
	b, err := w.nodes[at].node.Operate(w.t.Context(), "groups")
	ok(w.t, err)
	var groups []starling.GroupInfo
	ok(w.t, json.Unmarshal(b, &groups))
	return groups[slices.IndexFunc(groups, func(g starling.GroupInfo) bool { return g.ID == 1 })]
}
