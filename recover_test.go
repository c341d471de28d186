package starling_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/wire"
)

// recover asks a node to recover a group, or what would be lost.
func (w *world) recover(at string, args ...string) (info starling.RecoverInfo, err error) {
	b, err := w.nodes[at].node.Operate(w.t.Context(), "groups.recover", args...)
	if err == nil {
		err = json.Unmarshal(b, &info)
	}
	return info, err
}

// recovers recovers a group as soon as those that are gone are known to be.
func (w *world) recovers(at, group string) (info starling.RecoverInfo) {
	w.t.Helper()
	var err error
	for range 100 {
		if info, err = w.recover(at, group); err == nil {
			accept := []string{group, "accept-loss", info.Survivor.Node, fmt.Sprint(info.Epoch)}
			if info, err = w.recover(at, accept...); err == nil {
				again, err := w.recover(at, accept...) // as where the answer was lost
				if err != nil || !again.Recovered || again.Epoch != info.Epoch {
					w.t.Errorf("group %s, accepted once and asked for twice: %+v, %v", group, again, err)
				}
				break
			}
		}
		time.Sleep(500 * time.Millisecond)
	}
	if err != nil || !info.Recovered {
		w.t.Fatalf("group %s: %+v, %v", group, info, err)
	}
	return info
}

// say sends messages and returns the last ack.
func (w *world) say(c *client.Client, room, text string, n int) (last client.Ack) {
	w.t.Helper()
	for k := range n {
		var err error
		last, err = c.Publish(w.t.Context(), client.Message{Room: room, Content: fmt.Sprint(text, " ", k+1)})
		ok(w.t, err)
	}
	return last
}

func (w *world) history(c *client.Client, room string) (texts []string, epoch uint64) {
	w.t.Helper()
	page, err := c.History(w.t.Context(), room, 0, 0, client.Linearizable())
	ok(w.t, err)
	for _, e := range page.Events {
		texts = append(texts, e.Content)
	}
	return texts, page.Epoch
}

const lobby = "~fra/lobby"

// losing is a world in which two of the three voters of group 1 are lost.
type losing struct {
	*world
	survivor         string
	lost, rest       []string // the other two voters, and who has none
	near, far, there *client.Client
	seen             *client.Follow // of far
}

// newLosing is a world that is whole.
func newLosing(t *testing.T) *losing {
	w := &losing{world: newWorld(t, "fra", "iad", "sin", "gru", "syd")}
	w.replaceAfter = 20 * time.Second
	for _, p := range w.peers {
		w.start(p.ID)
	}
	p := w.until("three voters", 20*time.Second, func(p starling.GroupPlan) bool { return len(p.Voters) == 3 && p.Leader != "" })
	for _, q := range w.peers {
		switch voter := slices.Contains(p.Voters, q.ID); {
		case voter && q.ID != p.Leader && w.survivor == "":
			w.survivor = q.ID
		case voter:
			w.lost = append(w.lost, q.ID)
		default:
			w.rest = append(w.rest, q.ID)
		}
	}
	at := func(id string) int {
		return slices.IndexFunc(w.peers, func(q starling.Peer) bool { return q.ID == id })
	}
	w.near, w.far, w.there = w.dial("near", at(w.survivor)), w.dial("far", at(w.rest[0])), w.dial("there", at(w.lost[0]))
	w.say(w.near, lobby, "kept", 10)
	var err error
	w.seen, err = w.far.Follow(t.Context(), lobby, 0)
	ok(t, err)
	return w
}

// lose cuts the survivor off, lets the others acknowledge something without it,
// and then takes them away.
func (w *losing) lose() {
	time.Sleep(5 * time.Second)
	var others []string
	for _, q := range w.peers {
		if q.ID != w.survivor {
			others = append(others, w.host(q.ID))
		}
	}
	w.net.Cut([]string{w.host(w.survivor)}, others)
	w.say(w.there, lobby, "lost", 5)
	for range 15 {
		_, err := w.seen.Next(w.t.Context())
		ok(w.t, err)
	}
	for _, id := range w.lost {
		w.kill(id, 100)
	}
	w.net.Heal()
}

// told checks what an operator is told who has not agreed to anything.
func (w *losing) told() {
	info, err := starling.RecoverInfo{}, errors.New("not asked")
	for range 100 {
		if info, err = w.recover(w.rest[1], "1"); err == nil {
			break
		}
		time.Sleep(500 * time.Millisecond)
	}
	if err != nil || info.Recovered || info.Survivor.Node != w.survivor || info.Survivor.Rooms != 1 || info.Survivor.LastCommand == 0 || len(info.Here) != 1 {
		w.t.Fatalf("what would be lost: %+v, %v", info, err)
	}
	w.t.Log(strings.Join(info.Loss(), "\n"))
	time.Sleep(10 * time.Second)
	if q, err := w.operate("groups.explain"); err == nil {
		w.t.Errorf("it goes on without consent: %+v", q)
	}
	var q starling.GroupPlan
	ok(w.t, w.ask(w.rest[0], "groups.explain", &q, "1"))
	if q.Leader != "" || !strings.Contains(q.Why, "edge-node groups recover 1") || !strings.Contains(q.Losses[0], "the rooms stand still: 1 of 3 voters") {
		w.t.Errorf("a group that nobody can lead: %+v", q)
	}
}

// same checks that all nodes have one history.
func (w *losing) same(want []string) {
	for i, q := range w.peers {
		c := w.dial("later-"+q.ID, i)
		if got, _ := w.history(c, lobby); !slices.Equal(got, want) {
			w.t.Errorf("%s has %v", q.ID, got)
		}
		ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
		follow, err := c.Follow(ctx, lobby, 0)
		for k := range want {
			var e client.Event
			if err == nil {
				e, err = follow.Next(ctx)
			}
			if err != nil || e.Content != want[k] {
				w.t.Errorf("%s follows %q, %v as %d", q.ID, e.Content, err, k+1)
			}
		}
		cancel()
		_ = c.Close()
	}
}

// Two of the three regions of a group are lost for good. What the third one has
// goes on by the word of an operator, in another epoch, and gets voters where
// there are nodes. What the lost ones had acknowledged alone is lost, and who saw
// it is told. When they come back after all, they change nothing.
func TestRecoverWithLoss(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newLosing(t)
		if _, err := w.recover(w.survivor, "1", "accept-loss", w.survivor, "1"); wire.Code(err) != wire.CodeConflict || !strings.Contains(err.Error(), "nothing to recover") {
			t.Errorf("a group with all its voters: %v", err)
		}
		w.lose()
		w.told()
		for group := range 6 {
			if info, err := w.recover(w.rest[0], fmt.Sprint(group)); err == nil && len(info.Here) < info.Needed {
				w.recovers(w.rest[0], fmt.Sprint(group))
			} else if wire.Code(err) != wire.CodeConflict {
				t.Errorf("group %d: %+v, %v", group, info, err)
			}
		}
		ack := w.say(w.near, lobby, "after", 5)
		if ack.Seq != 15 || ack.Epoch <= 1 {
			t.Errorf("the last ack is %+v", ack)
		}
		changed := (*client.EpochChanged)(nil)
		if e, err := w.seen.Next(t.Context()); !errors.As(err, &changed) || changed.New != ack.Epoch {
			t.Errorf("who saw what is lost gets %+v, %v", e, err)
		}
		w.until("three voters again", w.replaceAfter+60*time.Second, func(p starling.GroupPlan) bool {
			return len(p.Voters) == 3 && p.Next == "" && len(p.Learners) == 0
		})
		want, epoch := w.history(w.near, lobby)
		if len(want) != 15 || want[10] != "after 1" || epoch != ack.Epoch {
			t.Errorf("epoch %d has %v", epoch, want)
		}
		for _, id := range w.lost {
			w.start(id)
		}
		time.Sleep(time.Minute)
		w.same(want)
		w.say(w.near, lobby, "at last", 1)
		for _, c := range []*client.Client{w.near, w.far, w.there} {
			_ = c.Close()
		}
		w.equalReplicas(1)
		w.stopAll()
	})
}
