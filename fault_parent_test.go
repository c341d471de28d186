package starling_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/client"
)

// parentOf is the node that Singapore gets a room from, "" if it is not
// known, and what is known of the path.
func (w *world) parentOf(room string) (parent, path string) {
	answer, err := w.nodes["fra-1"].node.Operate(w.t.Context(), "path", "demo", room, "sin")
	ok(w.t, err)
	var p starling.PathInfo
	ok(w.t, json.Unmarshal(answer, &p))
	for _, h := range p.Hops {
		if h.Follows != "" && !strings.HasPrefix(h.Follows, "sin") {
			parent = h.Follows
		}
	}
	return parent, string(answer)
}

// TestFault14ParentGoes kills the node over which Singapore gets a room, again and again,
// and starts it anew while the next one is followed: everybody sees each event once.
func TestFault14ParentGoes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		room := roomOf("hkg-1", "sin-1", "sin-2")
		w := newWorld(t, "fra", "ams", "lhr", "sin", "sin", "hkg")
		for _, p := range w.peers {
			w.start(p.ID)
		}
		speaker := w.dial("alice", 0, 1, 2)
		defer speaker.Close()
		said := 0
		say := func(many int) {
			for range many {
				said++
				_, err := speaker.Publish(t.Context(), client.Message{Room: room, ID: fmt.Sprint(said), Content: fmt.Sprint("hello ", said)})
				ok(t, err)
			}
		}
		say(1)
		ctx, cancel := context.WithCancel(t.Context())
		c := w.dial("bob", 4)
		defer c.Close()
		o := w.observe(ctx, c, room)
		time.Sleep(20 * time.Second)
		say(20)
		time.Sleep(5 * time.Second)
		killed := map[string]bool{}
		for range 3 {
			parent, path := w.parentOf(room)
			if parent == "" {
				t.Fatalf("Singapore has no parent: %s", path)
			}
			killed[parent] = true
			w.kill(parent, 0)
			say(20)
			w.start(parent)
			say(20)
			time.Sleep(time.Minute)
			if seen := o.events(t); len(seen) != said {
				t.Fatalf("%d of %d events were seen after %s died", len(seen), said, parent)
			}
		}
		t.Logf("parents that died: %v", killed)
		cancel()
		<-o.done
		w.stopAll()
	})
}
