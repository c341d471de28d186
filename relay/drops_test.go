package relay

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling/wire"
)

// stuckStream is of a client that takes nothing.
type stuckStream struct{ countingStream }

func (s stuckStream) Write(p []byte) (int, error) { <-s.stopped; return len(p), nil }

// Where something waits for a client who types goes first, and what is said live and how many
// are there last.
func TestTypingGivesWayToAClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stopped := make(chan struct{})
		s := NewSession(SessionConfig{Replies: stuckStream{countingStream{stopped: stopped}}})
		for _, c := range []struct {
			waits int
			told  string
		}{
			{signalsBelow / 2, "typing presence occupancy live "},
			{signalsBelow/2 + 1, "occupancy live "},
			{signalsBelow, "occupancy live "},
			{signalsBelow + 1, ""},
		} {
			told := ""
			for is := range classes {
				_ = s.replies.Push(make([]byte, 1))
				synctest.Wait() // that is being written, and all else waits
				_ = s.replies.Push(make([]byte, c.waits-s.replies.Len()))
				l := &listener{to: ear{s, 1}, told: 1}
				n := &telling{number: 1, edition: 2, class: class(is)}
				if class(is) == ofOccupancy {
					n.class, n.sessions = ofTyping, 1
				}
				var got outcome
				if l.tell(n, nil, &got); got.signals == 1 {
					told += classes[is] + " "
				} else if got.slow[is] != 1 {
					t.Errorf("of %s %+v", classes[is], got)
				}
				stopped <- struct{}{}
				synctest.Wait()
				stopped <- struct{}{}
				synctest.Wait()
			}
			if told != c.told {
				t.Errorf("where %d bytes wait %s are told", c.waits, told)
			}
		}
	})
}

// Who could not be told how many are there is told once there is place, though nothing has changed.
func TestWhoWasSlowIsToldLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := signalled(t)
		stopped := make(chan struct{})
		s := NewSession(SessionConfig{Replies: stuckStream{countingStream{stopped: stopped}}})
		for range 2 {
			_ = s.replies.Push(make([]byte, signalsBelow+1))
			synctest.Wait() // the first is being written, the second waits
		}
		x.listen(Subject{App: "demo", Room: "r"}, ear{s, 1})
		time.Sleep(time.Minute)
		if is := x.Stats(); is.Signals != 0 || is.Dropped[ofOccupancy.drop(dropSlow)] < 30 {
			t.Errorf("%+v", is)
		}
		close(stopped)
		time.Sleep(2 * renewalsWait)
		if is := x.Stats(); is.Signals != 1 {
			t.Errorf("%+v", is)
		}
	})
}

// Who types gives way on the way to another node too.
func TestTypingGivesWayToANode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var below atomic.Int64
		x := NewSignals(SignalsConfig{Self: "fra", Parent: func(Subject) string { return "iad" }, Send: func(_ string, _ *wire.Frame, most int) bool {
			below.Store(int64(most))
			return true
		}})
		go x.Run(t.Context())
		room, user := Subject{App: "demo", Room: "r"}, Subject{App: "demo", User: "bob"}
		for _, c := range []struct {
			what string
			do   func()
			want int
		}{
			{"who comes", func() { listening(x, room, 1) }, aggregatesBelow},
			{"who types", func() { x.typing(room, "bob", true) }, aggregatesBelow / 2},
			{"what is said live", func() { x.live(room, "bob", "hi") }, aggregatesBelow},
			{"how a user is", func() { x.is(user, wire.State_STATE_ONLINE, 0) }, aggregatesBelow / 2},
		} {
			below.Store(0)
			c.do()
			time.Sleep(2 * wire.AggregateEvery)
			if got := int(below.Load()); got != c.want {
				t.Errorf("%s goes where %d bytes wait, not %d", c.what, got, c.want)
			}
		}
	})
}

// Of the places for rooms and users the last are not for who types and how users are.
func TestTypingGivesItsPlaceWay(t *testing.T) {
	x := NewSignals(SignalsConfig{Self: "fra", Parent: func(Subject) string { return "" }})
	x.apps = newApps(8)
	for k := range 7 {
		if !x.listen(Subject{App: fmt.Sprint(k), Room: "r"}, ear{NewSession(SessionConfig{}), 1}) {
			t.Fatalf("there is no place %d", k)
		}
	}
	about := Subject{App: "new", Room: "r"}
	x.typing(about, "bob", true)
	if x.is(Subject{App: "new", User: "bob"}, wire.State_STATE_ONLINE, 0) || x.all[about] != nil {
		t.Error("who types or how a user is has the last place")
	}
	x.live(about, "bob", "hi")
	if x.all[about] == nil {
		t.Error("what is said live has none")
	}
	for _, is := range []class{ofTyping, ofPresence} {
		if got := x.Stats().Dropped[is.drop(dropFull)]; got != 1 {
			t.Errorf("%d of %s were dropped", got, classes[is])
		}
	}
}
