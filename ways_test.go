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
	"github.com/starling-im/starling/geo"
)

// A room at home in Frankfurt is followed in Singapore and Hong Kong. Links that
// cost ten times as much, of both, move Singapore's relay to Hong Kong, which has the
// room anyway; everybody still sees each event once, and one copy goes to a region.
func TestCostMovesARelay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		room := roomOf("hkg-1", "sin-1", "sin-2") // Hong Kong may not turn to Singapore for it
		w := newWorld(t, "fra", "ams", "lhr", "sin", "sin", "hkg")
		at := func(price float64) {
			var costs []starling.Cost
			for _, r := range []string{"fra-1", "ams", "lhr"} { // a node, and regions
				costs = append(costs, starling.Cost{To: r, Price: price})
			}
			w.costs = map[string][]starling.Cost{"sin-1": costs, "sin-2": costs, "hkg-1": costs}
		}
		at(0.02)
		for _, p := range w.peers {
			w.start(p.ID)
		}
		speaker, said := w.dial("alice", 0), 0
		say := func(many int) {
			for range many {
				said++
				_, err := speaker.Publish(t.Context(), client.Message{Room: room, Content: fmt.Sprint("hello ", said)})
				ok(t, err)
			}
		}
		say(1)
		ctx, cancel := context.WithCancel(t.Context())
		var listeners []*client.Client
		var observers []*observer
		for i := 3; i < 6; i++ {
			c := w.dial(fmt.Sprint("bob-", i), i)
			listeners = append(listeners, c)
			observers = append(observers, w.observe(ctx, c, room))
		}
		time.Sleep(time.Minute)
		say(20)
		time.Sleep(10 * time.Second)
		checkPath(t, w, room, "far replica", "in hkg, which goes on to")

		at(0.2)
		for _, id := range []string{"sin-1", "sin-2", "hkg-1"} {
			w.stop(id)
		}
		w.start("hkg-1") // which then carries the room, at that price
		time.Sleep(30 * time.Second)
		w.start("sin-1")
		w.start("sin-2")
		time.Sleep(2 * time.Minute)
		checkPath(t, w, room, "detour", "0.2 per GB dearer, which counts as 200.0 ms")
		before := relayed(t, w)
		say(50)
		time.Sleep(10 * time.Second)
		for i, o := range observers {
			if seen := o.events(t); len(seen) != said {
				t.Errorf("observer %d saw %d events of %d", i, len(seen), said)
			}
		}
		for region, events := range relayed(t, w) {
			if got := events - before[region]; got != 50 {
				t.Errorf("%d copies of 50 events went into %s", got, region)
			}
		}
		cancel()
		for i, o := range observers {
			<-o.done
			ok(t, listeners[i].Close())
		}
		ok(t, speaker.Close())
		w.stopAll()
	})
}

// roomOf is a room of Frankfurt for which the first of some relays comes before the rest.
func roomOf(relays ...string) string {
	for i := 0; ; i++ {
		room := fmt.Sprint("~fra/lobby-", i)
		if geo.Rank("demo/"+room, relays)[0] == relays[0] {
			return room
		}
	}
}

// checkPath checks by what the relay of Singapore gets a room, and that its reasons
// name something.
func checkPath(t *testing.T, w *world, room, role, reason string) {
	t.Helper()
	answer, err := w.nodes["fra-1"].node.Operate(t.Context(), "path", "demo", room, "sin")
	ok(t, err)
	var p starling.PathInfo
	ok(t, json.Unmarshal(answer, &p))
	text := string(answer)
	for i, h := range p.Hops {
		if h.Region != "sin" || h.Role == "region relay" {
			continue
		}
		if h.Role != role || !h.Followed || !strings.Contains(strings.Join(h.Why, "\n"), reason) {
			t.Errorf("hop %d is by %q, want %q because of %q: %s", i, h.Role, role, reason, text)
		}
	}
	if last := p.Hops[len(p.Hops)-1]; p.Incomplete != "" || last.Follows != "" || p.RTT < 150 {
		t.Errorf("the path does not end at a replica: %s", text)
	}
}

// relayed counts the events that relays have sent into the far regions.
func relayed(t *testing.T, w *world) map[string]uint64 {
	t.Helper()
	answer, err := w.nodes["fra-1"].node.Operate(t.Context(), "links")
	ok(t, err)
	var links []starling.LinkInfo
	ok(t, json.Unmarshal(answer, &links))
	into := map[string]uint64{"sin": 0, "hkg": 0}
	for _, l := range links {
		from, _, _ := strings.Cut(l.From, "-")
		if to, _, _ := strings.Cut(l.To, "-"); l.Class == "relay" && from != to {
			if _, far := into[to]; far {
				into[to] += l.Events
			}
		}
	}
	return into
}

func TestTrips(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "fra", "iad", "sin")
		for _, p := range w.peers {
			w.start(p.ID)
		}
		time.Sleep(time.Minute)
		var trips []starling.TripInfo
		answer, err := w.nodes["fra-1"].node.Operate(t.Context(), "rtt", "iad-1", "sin")
		ok(t, err)
		ok(t, json.Unmarshal(answer, &trips))
		if len(trips) != 1 || trips[0].From != "iad-1" || trips[0].To != "sin-1" {
			t.Fatalf("got %s", answer)
		}
		trip := trips[0]
		for name, got := range map[string]float64{"measured": trip.Measured, "least": trip.Min, "estimate": trip.Estimate} {
			if got < 0.7*trip.Table || got > 1.3*trip.Table {
				t.Errorf("the %s is %v ms, the network takes %v", name, got, trip.Table)
			}
		}
		for _, bad := range [][]string{{"mars", "fra"}, {"fra", ""}, {"fra"}} {
			if answer, err := w.nodes["fra-1"].node.Operate(t.Context(), "rtt", bad...); err == nil {
				t.Errorf("rtt %q: %s", bad, answer)
			}
		}
		w.stopAll()
	})
}
