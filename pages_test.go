package starling_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/wire"
)

// Nodes without a replica pass on what others give them: pages of the largest
// messages, and of many small ones, must fit into a client's frames.
func TestPagesThroughANodeWithoutAReplica(t *testing.T) {
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
		for i := range small {
			_, err := near.Publish(t.Context(), client.Message{Room: "files", Content: fmt.Sprint(i, strings.Repeat("y", 1000))})
			ok(t, err)
		}
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
