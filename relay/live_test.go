package relay

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling/wire"
)

func live(text, actAs string) *wire.Frame {
	return &wire.Frame{Id: 78, Body: &wire.Frame_Signal{Signal: &wire.Signal{Room: "r", Live: text, ActAs: actAs}}}
}

// hearLive returns the next Signals with lines, and what they say.
func (p *peer) hearLive() (is *wire.Signals, text string) {
	for is = p.hearSignals(); len(is.Live) == 0; {
		is = p.hearSignals()
	}
	for _, l := range is.Live {
		text += l.User + ": " + l.Content + ", "
	}
	return is, text
}

// Whoever is there hears at once what is said live, once; who comes later does not, and
// nothing is left of it. What cannot be said is an error.
func TestLiveIsHeardByThoseThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, hub := newStore()
		defer hub.Close()
		x := signalled(t)
		config := func(user string) SessionConfig {
			return SessionConfig{Peer: Peer{App: "demo", User: user, ActAs: user == "bot"}, Hub: hub, Backend: new(backend), Signals: x}
		}
		alice, bot := start(t, config("alice")), start(t, config("bot"))
		alice.say(followWithSignals(9))
		alice.hearSignals()
		time.Sleep(time.Second)
		began := time.Now()
		bot.say(live("hi", ""))
		if is, text := alice.hearLive(); text != "bot: hi, " || is.Said != 1 || is.Follow != 9 || is.Live[0].TsMs != began.UnixMilli() || time.Since(began) != 0 {
			t.Errorf("heard %v after %v", is, time.Since(began))
		}
		bot.say(live("there", "carol"))
		bot.say(live("you", ""))
		if is, text := alice.hearLive(); text != "carol: there, bot: you, " || is.Said != 3 || time.Since(began) != wire.AggregateEvery {
			t.Errorf("heard %v after %v", is, time.Since(began))
		}
		late := start(t, config("late"))
		late.say(followWithSignals(4))
		if is := late.hearSignals(); len(is.Live) > 0 || is.Said != 0 {
			t.Errorf("heard what was said before: %v", is)
		}
		for _, c := range []struct {
			peer       *peer
			text, as   string
			code, what string
		}{
			{alice, "hi", "carol", wire.CodeForbidden, "for another"},
			{alice, strings.Repeat("x", wire.LineBytes+1), "", wire.CodeTooLarge, "too long"},
			{alice, "\xff", "", wire.CodeBadRequest, "no text"},
		} {
			c.peer.say(live(c.text, c.as))
			c.peer.say(signal("", true, "")) // is an error in any case
			hears := func(id uint64, code string) {
				f := c.peer.hear()
				for f.GetError() == nil {
					f = c.peer.hear()
				}
				if f.Id != id || f.GetError().Code != code {
					t.Fatalf("%s: got %v", c.what, f)
				}
			}
			hears(78, c.code)
			hears(77, wire.CodeBadRequest)
		}
		for _, p := range []*peer{alice, late} {
			p.say(&wire.Frame{Body: &wire.Frame_Unfollow{Unfollow: &wire.Unfollow{Follow: 9}}})
			p.say(&wire.Frame{Body: &wire.Frame_Unfollow{Unfollow: &wire.Unfollow{Follow: 4}}})
		}
		bot.say(live("nobody hears this", ""))
		time.Sleep(time.Second)
		x.mu.Lock()
		defer x.mu.Unlock()
		if len(x.all) != 0 || x.talking.held != 0 || x.apps.held != 0 {
			t.Errorf("%d rooms and %d bytes are left, %d held", len(x.all), x.talking.held, x.apps.held)
		}
	})
}

// What nodes tell is held to its bounds, told on, and counted; a client that takes nothing
// misses it, and is told how much.
func TestLiveBetweenNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, hub := newStore()
		defer hub.Close()
		x := signalled(t)
		iad := start(t, SessionConfig{Peer: Peer{Node: "iad"}, Hub: hub, Backend: new(backend), Signals: x, Limits: Limits{WriteStall: time.Minute}})
		talk := func(node string, after, upto uint64, lines ...*wire.Line) {
			iad.say(&wire.Frame{Body: &wire.Frame_Aggregate{Aggregate: &wire.Aggregate{App: "demo", Room: "r", Talks: []*wire.Talk{
				{Node: node, BeganMs: 5, After: after, Upto: upto, Lines: lines},
			}}}})
			synctest.Wait()
		}
		bob := &wire.Line{User: "bob", Content: strings.Repeat("x", 500), TsMs: 1}
		talk("iad", 0, 0) // so that it hears
		alice := start(t, SessionConfig{Peer: Peer{App: "demo", User: "alice"}, Hub: hub, Backend: new(backend), Signals: x, Limits: Limits{WriteStall: time.Minute}})
		alice.say(followWithSignals(1))
		alice.hearSignals()
		talk("", 0, 1, bob)
		talk("iad", 0, 1, bob, bob)
		talk("iad", 0, 1, &wire.Line{User: "bob"})
		talk("iad", 0, 1, &wire.Line{User: "bob", Content: strings.Repeat("x", wire.LineBytes+1)})
		talk("iad", 0, 1, &wire.Line{User: "bob", Content: "\xff"})
		talk("iad", 0, 100, slices.Repeat([]*wire.Line{bob}, talkBytes/500)...)
		talk("iad", 0, 100, slices.Repeat([]*wire.Line{{User: "bob", Content: "x"}}, talkLines+1)...)
		talk("sin", 3, 9, bob)
		if is, _ := alice.hearLive(); is.Said != 6 || len(is.Live) != 1 {
			t.Errorf("heard %v", is)
		}
		time.Sleep(time.Second)
		// alice reads nothing for 40 turns; in the first the two talks go one by one.
		for k := range uint64(40) {
			talk("sin", 9+100*k, 109+100*k, slices.Repeat([]*wire.Line{bob}, 9)...)
			talk("lhr", 100*k, 100+100*k, slices.Repeat([]*wire.Line{bob}, 9)...)
			time.Sleep(wire.AggregateEvery + time.Millisecond)
		}
		if is := x.Stats().Dropped; is[ofLive.drop(dropSlow)] < 30 || is[ofLive.drop(dropLive)] != 39*(18-8<<10/uint64(len("bob")+500+lineOverhead)) {
			t.Errorf("%+v", is)
		}
		heard := 0
		for said := uint64(0); said < 8006; heard++ {
			is := alice.hearSignals()
			if said = is.Said; len(wire.EncodeSignals(is)) > talkBytes+100 {
				t.Errorf("Signals of %d bytes", len(wire.EncodeSignals(is)))
			}
		}
		if heard > 6 {
			t.Errorf("%d were kept for a client that reads nothing", heard)
		}
	})
}

// TestCountsWrap has nodes say numbers that add up to nothing: what has a place is told all
// the same, once, and counted off.
func TestCountsWrap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := signalled(t)
		x.mu.Lock()
		defer x.mu.Unlock()
		about := Subject{App: "demo", Room: "r"}
		g := x.gather(about, ofLive)
		bob := []*wire.Line{{User: "bob", Content: "hi"}}
		x.hearTalk(g, "sin", false, &wire.Talk{Node: "iad", BeganMs: 5, Upto: 1, Lines: bob})
		x.hearTalk(g, "sin", false, &wire.Talk{Node: "sin", BeganMs: 5, Upto: math.MaxUint64})
		for range 3 {
			x.flush(g, time.Now())
			if x.talking.held != 0 || len(g.crowd.talk.lines) != 0 {
				t.Fatalf("%d bytes and %d lines are left", x.talking.held, len(g.crowd.talk.lines))
			}
		}
	})
}

// What is said live where nobody follows goes to the parent all the same, with what was
// left out. Then the parent is told that no more is wanted.
func TestLiveGoesToTheParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent []*wire.Aggregate
		x := NewSignals(SignalsConfig{Self: "fra", Parent: func(Subject) string { return "iad" }, Send: func(_ string, f *wire.Frame, _ int) bool {
			sent = append(sent, f.GetAggregate())
			return true
		}})
		about := Subject{App: "demo", Room: "r"}
		for range 100 {
			x.live(about, "bob", "goal!")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		x.Run(ctx)
		if len(sent) != 2 || len(sent[0].Talks) != 1 || len(sent[0].Talks[0].Lines) != talkLines || sent[0].Talks[0].Upto != 100 || !sent[1].Over {
			t.Errorf("told %v", sent)
		}
		if len(x.all) != 0 {
			t.Error("the room is left")
		}
	})
}

// What waits of what is said live is bounded for the node, and a room that has no place
// counts all the same.
func TestLiveIsBoundedForTheNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := NewSignals(SignalsConfig{Self: "fra", Parent: func(Subject) string { return "" }})
		text := strings.Repeat("x", wire.LineBytes)
		const rooms = talksBytes/talkBytes + 1000
		for k := range rooms {
			for range 20 {
				x.live(Subject{App: fmt.Sprint(k), Room: "r"}, "u", text)
			}
		}
		if most := talksBytes; x.talking.held > most || x.talking.held < most-talkBytes {
			t.Errorf("%d bytes wait", x.talking.held)
		}
		x.flushDue(time.Now())
		if x.talking.held != 0 || len(x.talking.by) != 0 {
			t.Errorf("%d bytes are left, of %d apps", x.talking.held, len(x.talking.by))
		}
	})
}

// An app that says more live than the node has place for leaves some of it to others.
func TestAppsShareThePlacesOfLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := NewSignals(SignalsConfig{Self: "fra", Parent: func(Subject) string { return "" }})
		text := strings.Repeat("x", wire.LineBytes)
		say := func(app string, rooms int) (waits int) {
			for k := range rooms {
				for range 20 {
					x.live(Subject{App: app, Room: fmt.Sprint(k)}, "u", text)
				}
			}
			return x.talking.by[app]
		}
		line := line{Line: &wire.Line{User: "u", Content: text}}.size()
		const rooms = talksBytes/talkBytes + 1000
		if got, share := say("greedy", rooms), talksBytes-talksBytes/4; got > share || got < share-line {
			t.Errorf("%d bytes of one app wait", got)
		}
		if got := say("other", 500); got != 500*(talkBytes/line)*line {
			t.Errorf("%d bytes of another one do", got)
		}
	})
}

// An app that takes all places for signals leaves some to others. Whose follow finds none
// is told so.
func TestAppsShareThePlacesOfSignals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, hub := newStore()
		defer hub.Close()
		x := signalled(t)
		x.apps = newApps(8)
		session := func(app string) *peer {
			return start(t, SessionConfig{Peer: Peer{App: app, User: "u"}, Hub: hub, Backend: new(backend), Signals: x})
		}
		followed := func(p *peer, id uint64) bool {
			f := followWithSignals(id)
			f.GetFollow().Room = fmt.Sprint("room-", id)
			p.say(f)
			for {
				if is := p.hear().GetFollowed(); is != nil {
					return !is.NoSignals
				}
			}
		}
		places := func(p *peer, from, n uint64) (got int) {
			for id := from; id < from+n; id++ {
				if followed(p, id) {
					got++
				}
			}
			return got
		}
		greedy, other := session("greedy"), session("other")
		if got := places(greedy, 1, 20); got != 6 {
			t.Errorf("one app has %d of 8 places", got)
		}
		if got := places(other, 1, 20); got != 2 {
			t.Errorf("another has %d", got)
		}
		if got := x.Stats().Dropped[ofOccupancy.drop(dropFull)]; got != 14+18 {
			t.Errorf("%d were dropped", got)
		}
		// Who gives places back makes place for others.
		for id := range uint64(6) {
			greedy.say(&wire.Frame{Body: &wire.Frame_Unfollow{Unfollow: &wire.Unfollow{Follow: id + 1}}})
		}
		time.Sleep(time.Second)
		if got := places(other, 50, 20); got != 4 {
			t.Errorf("then it has %d more", got)
		}
	})
}
