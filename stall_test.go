package starling_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/wire"
)

// A follower stops reading for half a minute of load. It then gets every seq, and
// others were not held up: neither by one that stops within the client library
// nor by one whose connection takes nothing any more.
func TestFollowerThatStopsReadingMissesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "fra", "iad", "sin")
		for _, p := range w.peers {
			w.start(p.ID)
		}
		ctx, cancel := context.WithCancel(t.Context())
		c, slow := w.dial("alice", 0), w.dial("bob", 0)
		_, err := c.Publish(ctx, client.Message{Room: "lobby", Content: "0"})
		ok(t, err)
		follow, err := slow.Follow(ctx, "lobby", 0)
		ok(t, err)
		conn := w.raw()
		deaf(t, conn, tokenFor(t, w.key, time.Hour))
		carol := w.dial("carol", 0)
		brisk := w.observe(ctx, carol, "lobby")

		began := time.Now()
		var senders sync.WaitGroup
		for s := range 8 {
			senders.Go(func() {
				for k := 0; time.Since(began) < 30*time.Second; k++ {
					_, err := c.Publish(ctx, client.Message{Room: "lobby", ID: fmt.Sprintf("%d-%d", s, k), Content: string(make([]byte, 4000))})
					ok(t, err)
					time.Sleep(loadPause(0))
				}
			})
		}
		senders.Wait()
		head, err := c.History(ctx, "lobby", 0, 1, client.Linearizable())
		ok(t, err)
		time.Sleep(5 * time.Second)
		if n := len(brisk.events(t)); n != int(head.Head) {
			t.Errorf("the brisk follower has %d events, the room %d", n, head.Head)
		}
		if conn.Context().Err() == nil {
			t.Error("a connection that takes nothing for half a minute is still open")
		}
		for want := uint64(1); want <= head.Head; want++ {
			e, err := follow.Next(ctx)
			ok(t, err)
			if e.Seq != want {
				t.Fatalf("the slow follower got seq %d, want %d", e.Seq, want)
			}
		}
		if n := w.nodes[w.peers[0].ID].node.Stats().MaxUnsentBytes; n == 0 || n > wire.SessionUnsent {
			t.Errorf("%d bytes waited for one session, the bound is %d", n, wire.SessionUnsent)
		}
		t.Logf("%d events of 4 kB; at most %d bytes waited for one session", head.Head, w.nodes[w.peers[0].ID].node.Stats().MaxUnsentBytes)
		cancel()
		<-brisk.done
		for _, c := range []*client.Client{c, slow, carol} {
			_ = c.Close()
		}
		w.stopAll()
	})
}

// deaf says Hello, follows the lobby, and never reads what comes of it.
func deaf(t *testing.T, conn *quic.Conn, token string) {
	s, err := conn.OpenStreamSync(t.Context())
	ok(t, err)
	_, err = s.Write(append(hello(token), wire.AppendMessage(nil, &wire.Frame{Id: 2, Body: &wire.Frame_Follow{Follow: &wire.Follow{Room: "lobby"}}})...))
	ok(t, err)
	r := wire.NewReader(s, wire.ClientFrame)
	for range 2 { // Welcome and Followed
		_, err := r.Frame()
		ok(t, err)
	}
}
