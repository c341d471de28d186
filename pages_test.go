package starling_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/wire"
)

// Nodes without a replica pass on what others give them: pages of the largest
// messages, and of many small ones, must fit into a client's frames.
func TestPagesThroughANodeWithoutAReplica(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "fra", "iad", "sin", "gru", "syd")
		for _, p := range w.peers {
			w.start(p.ID)
		}
		near := w.dial("alice", 0)
		const large, small = 5, 400
		for i := range large {
			_, err := near.Publish(t.Context(), client.Message{Room: "files", Content: fmt.Sprint(i, strings.Repeat("x", wire.Content-2))})
			ok(t, err)
		}
		fill(t, near, "files", small, 1000)
		for i, p := range w.peers {
			c := w.dial("bob", i)
			f, err := c.Follow(t.Context(), "files", 0)
			ok(t, err)
			for seq := uint64(1); seq <= large+small; seq++ {
				e, err := f.Next(t.Context())
				ok(t, err)
				if e.Seq != seq {
					t.Fatalf("%s: followed seq %d, want %d", p.Region, e.Seq, seq)
				}
			}
			for after := uint64(0); after < large+small; {
				page, err := c.History(t.Context(), "files", after, 0, client.Linearizable())
				ok(t, err)
				for _, e := range page.Events {
					if after++; e.Seq != after {
						t.Fatalf("%s: read seq %d, want %d", p.Region, e.Seq, after)
					}
				}
			}
			ok(t, c.Close())
		}
		ok(t, near.Close())
		w.stopAll()
	})
}

// A list of rooms comes by pages, each of them small enough for a frame, in which
// no room is left out or comes twice, wherever it lives and however long its name.
func TestRoomsByPages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "fra", "iad", "sin")
		for _, p := range w.peers {
			w.start(p.ID)
		}
		c := w.dial("alice", 0)
		var want []string
		for i := range 1300 {
			name := fmt.Sprintf("room-%d", i)
			if i%3 == 0 { // "<" takes six bytes in JSON
				name = fmt.Sprintf("%04d-%s", i, strings.Repeat("<", 120))
			}
			want = append(want, name)
		}
		var sent sync.WaitGroup
		for _, name := range want {
			sent.Add(1)
			c.Send(t.Context(), client.Message{Room: name, Content: "x"}, func(_ client.Ack, err error) {
				if err != nil {
					t.Error(err)
				}
				sent.Done()
			})
		}
		sent.Wait()
		slices.Sort(want)
		var got []string
		pages := 0
		for after := []string(nil); ; pages++ {
			answer, err := c.Query(t.Context(), "rooms", after...)
			ok(t, err)
			var page []starling.RoomInfo
			ok(t, json.Unmarshal(answer, &page))
			if len(page) == 0 {
				break
			}
			for _, r := range page {
				got = append(got, r.Room)
			}
			after = got[len(got)-1:]
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d rooms on %d pages, want %d", len(got), pages, len(want))
		}
		if _, err := c.Query(t.Context(), "rooms", "a", "b"); wire.Code(err) != wire.CodeBadRequest {
			t.Errorf("two arguments: %v", err)
		}
		ok(t, c.Close())
		w.stopAll()
	})
}

// A local read says how old it may be: seldom more than what lies between two words
// of a quiet leader, and on a node that is cut off as long as that lasts. What it
// lacks was acknowledged within that time.
func TestLocalReadsSayTheirAge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "fra", "iad", "sin", "gru", "syd")
		for _, p := range w.peers {
			w.start(p.ID)
		}
		var readers []*client.Client
		for i := range w.peers {
			readers = append(readers, w.dial("bob", i))
		}
		c := w.dial("alice", 0)
		var acked []time.Time
		say := func() {
			_, err := c.Publish(t.Context(), client.Message{Room: "lobby", Content: "x"})
			ok(t, err)
			acked = append(acked, time.Now())
		}
		const trip = 400 * time.Millisecond // more than any way takes
		age := func(i int) time.Duration {
			t.Helper()
			page, err := readers[i].History(t.Context(), "lobby", 0, 1)
			ok(t, err)
			if page.Age < 0 {
				t.Fatalf("%s does not know how old its page is", w.peers[i].Region)
			}
			if n := int(page.Head); n < len(acked) && time.Since(acked[n]) > page.Age+2*trip {
				t.Errorf("%s: a page of age %v lacks what was acknowledged %v ago", w.peers[i].Region, page.Age, time.Since(acked[n]))
			}
			return page.Age
		}
		for range rounds(10, 10) {
			say()
			time.Sleep(time.Second)
		}
		for range rounds(20, 100) {
			for i := range readers {
				if d := age(i); d > 1600*time.Millisecond+2*trip {
					t.Errorf("%s: a page is %v old", w.peers[i].Region, d)
				}
				page, err := readers[i].History(t.Context(), "lobby", 0, 1, client.Linearizable())
				ok(t, err)
				if page.Age != 0 || int(page.Head) != len(acked) {
					t.Errorf("%s: a linearizable page has %d of %d events and is %v old", w.peers[i].Region, page.Head, len(acked), page.Age)
				}
			}
			say()
		}
		// The room lives in gru, with replicas in fra and iad; sin and syd ask others.
		w.net.Cut([]string{w.host("iad-1")}, []string{w.host("fra-1"), w.host("sin-1"), w.host("gru-1"), w.host("syd-1")})
		for range 20 {
			say()
			time.Sleep(time.Second)
		}
		if d := age(1); d < 20*time.Second {
			t.Errorf("a node that was cut off for 20 s says that it is %v old", d)
		}
		w.net.Heal()
		time.Sleep(20 * time.Second)
		if d := age(1); d > 2*time.Second+2*trip {
			t.Errorf("long after the cut the node says that it is %v old", d)
		}
		_ = c.Close()
		for _, r := range readers {
			_ = r.Close()
		}
		w.stopAll()
	})
}

// fill sends so many messages of about so many bytes to a room, without waiting for each,
// and waits for all.
func fill(t *testing.T, c *client.Client, room string, many, bytes int) {
	t.Helper()
	var sent sync.WaitGroup
	for i := range many {
		sent.Add(1)
		c.Send(t.Context(), client.Message{Room: room, Content: fmt.Sprint(i, strings.Repeat("x", bytes))}, func(_ client.Ack, err error) {
			if err != nil {
				t.Error(err)
			}
			sent.Done()
		})
	}
	sent.Wait()
}
