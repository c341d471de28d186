package relay

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling/wire"
)

// signalled starts the signals of a node without others.
func signalled(t *testing.T) *Signals {
	x := NewSignals(SignalsConfig{Self: "fra", Parent: func(Subject) string { return "" }})
	go x.Run(t.Context())
	return x
}

func signal(room string, typing bool, actAs string) *wire.Frame {
	return &wire.Frame{Id: 77, Body: &wire.Frame_Signal{Signal: &wire.Signal{Room: room, Typing: typing, ActAs: actAs}}}
}

func followWithSignals(id uint64) *wire.Frame {
	f := follow(id, 0)
	f.GetFollow().Signals = true
	return f
}

// hearSignals returns the next Signals; what else comes is passed over.
func (p *peer) hearSignals() *wire.Signals {
	for {
		if f := p.hear(); f.GetSignals() != nil {
			return f.GetSignals()
		}
	}
}

// Whoever follows with signals is told at once that somebody types, and that they have
// stopped, by their own word or by having none.
func TestTypingStartsAndStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, hub := newStore()
		defer hub.Close()
		x := signalled(t)
		config := func(user string) SessionConfig {
			return SessionConfig{Peer: Peer{App: "demo", User: user, ActAs: user == "bot"}, Hub: hub, Backend: new(backend), Signals: x}
		}
		alice, bot := start(t, config("alice")), start(t, config("bot"))
		alice.say(followWithSignals(9))
		if s := alice.hearSignals(); s.Follow != 9 || s.Sessions != 1 || s.Users != 1 {
			t.Fatalf("got %v", s)
		}
		time.Sleep(time.Second)
		tell := func(f *wire.Frame, want string, within time.Duration) {
			t.Helper()
			began := time.Now()
			if f != nil {
				bot.say(f)
			}
			for {
				if s := alice.hearSignals(); fmt.Sprint(s.Typing) == want {
					break
				}
			}
			if took := time.Since(began); took > within {
				t.Errorf("%v was heard after %v", want, took)
			}
		}
		tell(signal("r", true, ""), "[bot]", 0)
		tell(signal("r", true, "carol"), "[bot carol]", wire.AggregateEvery)
		tell(signal("r", false, ""), "[carol]", wire.AggregateEvery)
		tell(nil, "[]", wire.TypingFor)
		// Nobody else hears of it, and what is not for the sender is refused.
		alice.say(&wire.Frame{Body: &wire.Frame_Unfollow{Unfollow: &wire.Unfollow{Follow: 9}}})
		alice.say(signal("r", true, "carol"))
		if e := alice.hear().GetError(); e.GetCode() != wire.CodeForbidden {
			t.Errorf("got %v", e)
		}
		bot.say(signal("", true, ""))
		if e := bot.hear().GetError(); e.GetCode() != wire.CodeBadRequest {
			t.Errorf("got %v", e)
		}
		time.Sleep(time.Second)
		x.mu.Lock()
		defer x.mu.Unlock()
		if len(x.all) != 0 || len(x.due) != 0 {
			t.Errorf("%d rooms are left", len(x.all))
		}
	})
}

// A session that signals too often costs itself its signals.
func TestTooManySignalsAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, hub := newStore()
		defer hub.Close()
		x := signalled(t)
		p := start(t, SessionConfig{Peer: Peer{App: "demo", User: "u"}, Hub: hub, Backend: new(backend), Signals: x,
			Limits: Limits{SignalsPerSecond: 10, SignalsBurst: 50}})
		for range 1000 {
			p.say(signal("r", true, ""))
		}
		synctest.Wait()
		if got := x.Stats().Dropped[ofTyping.drop(dropRate)]; got != 950 {
			t.Errorf("%d were dropped", got)
		}
	})
}

// A reader that stops for a while misses signals, and no event; it hears at the end what
// is so then, not what was so meanwhile.
func TestSlowReaderMissesSignalsAndNoEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const events = 5000
		s, hub := newStore()
		defer hub.Close()
		x := signalled(t)
		p := start(t, SessionConfig{Peer: Peer{App: "demo", User: "u"}, Hub: hub, Backend: new(backend), Signals: x, Limits: Limits{WriteStall: time.Minute}})
		p.say(followWithSignals(9))
		for p.hear().GetFollowed() == nil { // what is signalled may come before
		}
		for range events {
			s.apply(theRoom, 200)
		}
		for k := range 40 {
			x.typing(Subject{App: "demo", Room: "r"}, fmt.Sprint("user-", k%10), k%20 < 10)
			time.Sleep(wire.AggregateEvery)
		}
		x.typing(Subject{App: "demo", Room: "r"}, "last", true)
		time.Sleep(2 * wire.AggregateEvery)
		if x.Stats().Dropped[ofTyping.drop(dropSlow)] == 0 {
			t.Error("no signals were dropped")
		}
		heard, seq, last := 0, uint64(0), false
		for seq < events || !last {
			f := p.hear()
			for _, e := range f.GetEvents().GetEvents() {
				if seq++; e.Seq != seq {
					t.Fatalf("seq %d, want %d", e.Seq, seq)
				}
			}
			if is := f.GetSignals(); is != nil {
				heard++
				last = len(is.Typing) == 1 && is.Typing[0] == "last"
			}
		}
		if heard > 5 {
			t.Errorf("%d of 40 signals were kept for a reader that stopped", heard)
		}
	})
}

// Who watches a user hears how the user is; it ends with the user's session. Too many
// are not watched.
func TestPresenceEndsWithTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, hub := newStore()
		defer hub.Close()
		x := signalled(t)
		config := func(user string) SessionConfig {
			return SessionConfig{Peer: Peer{App: "demo", User: user}, Hub: hub, Backend: new(backend), Signals: x}
		}
		present := func(own wire.State, watch ...string) *wire.Frame {
			return &wire.Frame{Id: 5, Body: &wire.Frame_Presence{Presence: &wire.Presence{Own: own, Watch: watch}}}
		}
		alice, bob := start(t, config("alice")), start(t, config("bob"))
		alice.say(present(0, make([]string, wire.Watches+1)...))
		if e := alice.hear().GetError(); e.GetCode() != wire.CodeTooMany || e.GetLimit() != wire.Watches {
			t.Errorf("got %v", e)
		}
		alice.say(present(0, "bob"))
		hears := func(want wire.State) {
			t.Helper()
			if s := alice.hearSignals().States; len(s) != 1 || s[0].User != "bob" || s[0].State != want {
				t.Fatalf("got %v, want %v", s, want)
			}
		}
		hears(wire.State_STATE_OFFLINE)
		for _, is := range []wire.State{wire.State_STATE_AWAY, wire.State_STATE_ONLINE, wire.State_STATE_OFFLINE, wire.State_STATE_ONLINE} {
			bob.say(present(is))
			if bob.hear().GetAnswer() == nil {
				t.Error("no answer")
			}
			hears(is)
		}
		_ = bob.conn.Close()
		hears(wire.State_STATE_OFFLINE)
		_ = alice.conn.Close()
		time.Sleep(time.Second)
		if x.mu.Lock(); len(x.all) != 0 {
			t.Errorf("%d users are left", len(x.all))
		}
		x.mu.Unlock()
	})
}

// Who finds no place for how they are, or for whom they watch, is told so, and is heard
// once there is place.
func TestPresenceWithoutAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, hub := newStore()
		defer hub.Close()
		x := signalled(t)
		x.apps = newApps(8)
		session := func(app, user string) *peer {
			return start(t, SessionConfig{Peer: Peer{App: app, User: user}, Hub: hub, Backend: new(backend), Signals: x})
		}
		present := func(p *peer, own wire.State, watch ...string) *wire.Frame {
			p.say(&wire.Frame{Id: 5, Body: &wire.Frame_Presence{Presence: &wire.Presence{Own: own, Watch: watch}}})
			for {
				if f := p.hear(); f.Id == 5 {
					return f
				}
			}
		}
		full := func(f *wire.Frame) {
			t.Helper()
			if e := f.GetError(); e.GetCode() != wire.CodeTooMany || !e.Retryable || e.Limit != 8 || e.RetryAfterMs != 1000 {
				t.Errorf("got %v", f)
			}
		}
		alice, bob := session("demo", "alice"), session("other", "bob")
		full(present(alice, 0, "a", "b", "c", "d", "e", "f", "bob"))
		if f := present(bob, wire.State_STATE_ONLINE); f.GetAnswer() == nil {
			t.Errorf("got %v", f)
		}
		carol := session("third", "carol")
		full(present(carol, wire.State_STATE_ONLINE))
		full(present(alice, 0, "a", "b", "c", "d", "e", "f", "g"))
		if f := present(alice, 0, "a", "b"); f.GetAnswer() == nil {
			t.Errorf("got %v", f)
		}
		time.Sleep(time.Second)
		if f := present(carol, wire.State_STATE_ONLINE, "carol"); f.GetAnswer() == nil {
			t.Errorf("got %v", f)
		}
		if is := carol.hearSignals().States; len(is) != 1 || is[0].State != wire.State_STATE_ONLINE {
			t.Errorf("heard %v", is)
		}
	})
}

// What a node tells is held to its bounds, and no client may tell it.
func TestAggregatesAreForNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, hub := newStore()
		defer hub.Close()
		x := signalled(t)
		aggregate := func(shares ...*wire.Share) *wire.Frame {
			return &wire.Frame{Body: &wire.Frame_Aggregate{Aggregate: &wire.Aggregate{App: "demo", Room: "r", Shares: shares}}}
		}
		config := SessionConfig{Peer: Peer{Node: "iad"}, Hub: hub, Backend: new(backend), Signals: x}
		iad := start(t, config)
		iad.say(aggregate(&wire.Share{Node: "iad", Stamp: 1, Typing: []string{"a", "b", "c"}, Typers: 3, Sessions: 1}))
		iad.say(aggregate(&wire.Share{Node: "sin", Stamp: 1, Typing: make([]string, wire.TypingNames+1)}))
		iad.say(aggregate(&wire.Share{Stamp: 1}))
		config.Peer = Peer{App: "demo", User: "mallory"}
		mallory := start(t, config)
		mallory.say(followWithSignals(1))
		if s := mallory.hearSignals(); fmt.Sprint(s.Typing) != "[a b c]" || s.Sessions != 2 {
			t.Errorf("got %v", s)
		}
		// The other node is told of the new session, and nothing that it told itself.
		if a := iad.hear().GetAggregate(); a.GetRoom() != "r" || len(a.GetShares()) != 1 || a.GetShares()[0].Node != "fra" || a.GetShares()[0].Sessions != 1 {
			t.Errorf("got %v", a)
		}
		mallory.say(aggregate())
		if err := <-mallory.end; wire.Code(err) != wire.CodeProtocol {
			t.Errorf("ended with %v", err)
		}
	})
}
