package client

import (
	"context"
	"fmt"
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
