package client

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling/wire"
)

// What a follow hears of who types: without oneself, what is late left out, and forgotten
// when nothing is heard for a while.
func TestSignals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.dial()
		heard := make(chan string, 16)
		f, err := c.Follow(context.Background(), "r", 0, WithSignals(func(s Signals) {
			heard <- fmt.Sprintf("%v and %d type, %d sessions", s.Typing, s.Others, s.Sessions)
		}))
		if err != nil {
			t.Fatal(err)
		}
		asked := sayings(w, (*wire.Frame).GetFollow)
		if len(asked) != 1 || !asked[0].Signals {
			t.Fatalf("asked %v", asked)
		}
		say := func(edition uint64, sessions uint32, others uint32, typing ...string) {
			w.all(&wire.Frame{Body: &wire.Frame_Signals{Signals: &wire.Signals{
				Follow: f.sub.id, Typing: typing, Others: others, Sessions: sessions, Edition: edition,
			}}})
		}
		hears := func(want string, after time.Duration) {
			t.Helper()
			began := time.Now()
			if got := <-heard; got != want || time.Since(began) != after {
				t.Fatalf("heard %q after %v, not %q after %v", got, time.Since(began), want, after)
			}
		}
		say(1, 2, 0, "bob")
		hears("[bob] and 0 type, 2 sessions", 0)
		say(2, 2, 0, "bob", "carol")
		hears("[bob carol] and 0 type, 2 sessions", 0)
		say(1, 2, 0, "bob") // late
		time.Sleep(4 * time.Second)
		say(3, 2, 0, "bob", "carol") // again: nothing new, but it holds for longer
		hears("[] and 0 type, 2 sessions", typingUnheard)
		say(4, 3, 7)
		hears("[] and 7 type, 3 sessions", 0)
		w.cutAll()
		hears("[] and 0 type, 3 sessions", typingUnheard)
		say(1, 1, 0) // another session begins anew
		hears("[] and 0 type, 1 sessions", 0)
		say(2, 1, 1)
		hears("[] and 1 type, 1 sessions", 0)
		f.Close()
		time.Sleep(time.Minute)
		if len(heard) > 0 {
			t.Errorf("heard %q after the end", <-heard)
		}
		_ = c.Close()
	})
}

// Typing is said once in three seconds, however many keys are hit.
func TestTyping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.dial()
		for range 60 {
			c.Typing("r")
			time.Sleep(100 * time.Millisecond)
		}
		c.StopTyping("r")
		c.Typing("r")
		synctest.Wait()
		said := ""
		for _, s := range sayings(w, (*wire.Frame).GetSignal) {
			said += fmt.Sprintf("%s %v, ", s.Room, s.Typing)
		}
		if want := "r true, r true, r false, r true, "; said != want {
			t.Errorf("said %q, not %q", said, want)
		}
		_ = c.Close()
	})
}

// Presence is said again to each node, and until one has taken it.
func TestPresence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.dial()
		heard := make(chan string, 4)
		if err := c.Present(Presence{Watch: make([]string, wire.Watches+1)}); wire.Code(err) != wire.CodeTooMany {
			t.Errorf("got %v", err)
		}
		if err := c.Present(Presence{Own: Away, Watch: []string{"bob"}, Each: func(user string, is State) { heard <- user + " is " + is.String() }}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		w.all(&wire.Frame{Body: &wire.Frame_Signals{Signals: &wire.Signals{States: []*wire.UserState{
			{User: "carol", State: wire.State_STATE_ONLINE}, {User: "bob", State: wire.State_STATE_AWAY},
		}}}})
		if got := <-heard; got != "bob is away" {
			t.Errorf("heard that %s", got)
		}
		w.cutAll()
		time.Sleep(time.Minute)
		said := sayings(w, (*wire.Frame).GetPresence)
		if len(said) != 2 || said[1].Own != wire.State_STATE_AWAY || len(said[1].Watch) != 1 {
			t.Errorf("said %v", said)
		}
		_ = c.Close()
	})
}

// Presence that finds no place on the node is said again when the node says.
func TestPresenceWithoutAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.unheard = wire.Errorf(wire.CodeTooMany, "no place").After(5 * time.Second)
		w.unheard.Retryable = true
		c := w.dial()
		if err := c.Present(Presence{Watch: []string{"bob"}}); err != nil {
			t.Fatal(err)
		}
		for _, s := range []struct {
			after time.Duration
			said  int
		}{{5*time.Second - 1, 1}, {2, 2}, {time.Minute, 2}} {
			time.Sleep(s.after)
			synctest.Wait()
			if said := sayings(w, (*wire.Frame).GetPresence); len(said) != s.said {
				t.Errorf("%v later it was said %d times, not %d", s.after, len(said), s.said)
			}
		}
		_ = c.Close()
	})
}

// What is said live is heard once, and what is missing of the count was left out.
func TestLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.dial()
		heard := make(chan string, 16)
		f, err := c.Follow(context.Background(), "r", 0, WithLive(func(is Live) {
			text := ""
			for _, l := range is.Lines {
				text += fmt.Sprintf("%s at %d: %s, ", l.User, l.Time.UnixMilli(), l.Content)
			}
			heard <- fmt.Sprintf("%sand %d more", text, is.LeftOut)
		}))
		if err != nil {
			t.Fatal(err)
		}
		if asked := sayings(w, (*wire.Frame).GetFollow); len(asked) != 1 || !asked[0].Signals {
			t.Fatalf("asked %v", asked)
		}
		say := func(edition, said uint64, texts ...string) {
			is := &wire.Signals{Follow: f.sub.id, Edition: edition, Said: said}
			for _, text := range texts {
				is.Live = append(is.Live, &wire.Line{User: "bob", Content: text, TsMs: 7})
			}
			w.all(&wire.Frame{Body: &wire.Frame_Signals{Signals: is}})
		}
		for _, s := range []struct {
			edition, said uint64
			texts         []string
			want          string // "" = nothing is heard
		}{
			{1, 0, nil, ""},
			{2, 1, []string{"hi"}, "bob at 7: hi, and 0 more"},
			{3, 5, []string{"a", "b"}, "bob at 7: a, bob at 7: b, and 2 more"},
			{5, 9, []string{"d"}, "bob at 7: d, and 3 more"}, // edition 4 got lost
			{4, 7, []string{"c"}, ""},                        // or came late
			{6, 9, nil, ""},
			{7, 11, nil, "and 2 more"},
		} {
			say(s.edition, s.said, s.texts...)
			synctest.Wait()
			got := ""
			if len(heard) > 0 {
				got = <-heard
			}
			if got != s.want {
				t.Errorf("edition %d: heard %q, not %q", s.edition, got, s.want)
			}
		}
		w.cutAll()
		time.Sleep(time.Second)
		synctest.Wait()
		say(1, 2, "again") // another node counts anew
		if got, want := <-heard, "bob at 7: again, and 1 more"; got != want {
			t.Errorf("heard %q, not %q", got, want)
		}
		_ = c.Close()
		if err := c.SayLive("r", "hi"); wire.Code(err) != wire.CodeUnavailable {
			t.Errorf("after the end: %v", err)
		}
	})
}

// Who says something live no longer types; what cannot be said is an error at once.
func TestSayLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.dial()
		c.Typing("r")
		if err := c.SayLive("r", strings.Repeat("x", wire.LineBytes)); err != nil {
			t.Error(err)
		}
		c.Typing("r")
		if err := c.SayLiveAs("bob", "r", "hi"); err != nil {
			t.Error(err)
		}
		for text, code := range map[string]string{"": wire.CodeBadRequest, "\xff": wire.CodeBadRequest, strings.Repeat("x", wire.LineBytes+1): wire.CodeTooLarge} {
			if err := c.SayLive("r", text); wire.Code(err) != code {
				t.Errorf("%.9q: %v, not %s", text, err, code)
			}
		}
		synctest.Wait()
		said := ""
		for _, s := range sayings(w, (*wire.Frame).GetSignal) {
			said += fmt.Sprintf("%v %s %d, ", s.Typing, s.ActAs, len(s.Live))
		}
		if want := "true  0, false  512, true  0, false bob 2, "; said != want {
			t.Errorf("said %q, not %q", said, want)
		}
		_ = c.Close()
	})
}

// A node without a place for the signals of a follow says so.
func TestUnheardSignals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.noSignals = true
		c := w.dial()
		var heard []Signals
		f, err := c.Follow(context.Background(), "r", 0, WithSignals(func(s Signals) { heard = append(heard, s) }))
		if err != nil {
			t.Fatal(err)
		}
		if len(heard) != 1 || !heard[0].Unheard {
			t.Errorf("heard %+v", heard)
		}
		f.Close()
		_ = c.Close()
	})
}
