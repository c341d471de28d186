package starling_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling/client"
)

// A node is killed and comes back on its disk, again and again, at any moment.
// Who follows it, and no other node, still sees every event soon after.
func TestFollowerOfANodeThatComesBack(t *testing.T) {
	t.Parallel()
	for seed := range rounds(8, 400) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			w := newWorld(t, "fra", "iad", "sin")
			for _, p := range w.peers {
				w.start(p.ID)
			}
			ctx, cancel := context.WithCancel(t.Context())
			room := fmt.Sprint("room-", seed) // in any region's group
			sender, reader := w.dial("alice", 2), w.dial("bob", 0)
			_, err := sender.Publish(ctx, client.Message{Room: room, Content: "first"})
			ok(t, err)
			seen := w.observe(ctx, reader, room)
			sent := 1
			say := func(d time.Duration) {
				for until := time.Now().Add(d); time.Now().Before(until); sent++ {
					_, err := sender.Publish(ctx, client.Message{Room: room, Content: fmt.Sprint(sent)})
					ok(t, err)
				}
			}
			say(time.Duration(rng.IntN(3000)) * time.Millisecond)
			w.kill("fra-1", 0)
			say(time.Duration(rng.IntN(4000)) * time.Millisecond)
			w.start("fra-1")
			say(time.Duration(rng.IntN(3000)) * time.Millisecond)
			for deadline := time.Now().Add(20 * time.Second); len(seen.events(t)) < sent && time.Now().Before(deadline); {
				time.Sleep(50 * time.Millisecond)
			}
			if n := len(seen.events(t)); n < sent {
				t.Errorf("seed %d: the follower has %d of %d events, 20 s after the last", seed, n, sent)
			}
			cancel()
			<-seen.done
			_ = sender.Close()
			_ = reader.Close()
			w.stopAll()
		})
	}
}
