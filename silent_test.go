package starling_test

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/client"
)

// A leader falls silent while users of all other nodes, with and without a
// replica, each wait for the answer to the one message that they have sent, and to
// a question. They get them from the next leader, long before the links to the
// silent one end.
func TestNobodyWaitsForSilentLeader(t *testing.T) {
	t.Parallel()
	const elected, known, asked = 3 * time.Second, 2 * time.Second, 3 * time.Second // a vote may split
	for range rounds(3, 50) {
		synctest.Test(t, func(t *testing.T) {
			w := newRegion(t, 5)
			for _, p := range w.peers {
				w.start(p.ID)
			}
			p := w.until("a leader at home", 20*time.Second, func(p starling.GroupPlan) bool { return len(p.Voters) == 3 && p.Next == "" })
			time.Sleep(5 * time.Second) // all nodes know of all
			var rest []string
			var users []*client.Client
			for i, peer := range w.peers {
				if peer.ID != p.Leader {
					rest = append(rest, w.host(peer.ID))
					users = append(users, w.dial("user-"+peer.ID, i))
				}
			}
			for _, c := range users {
				_, err := c.Publish(t.Context(), client.Message{Room: "lobby", Content: "hello"})
				ok(t, err)
			}
			w.net.Cut([]string{w.host(p.Leader)}, rest)
			cut := time.Now()
			var waiting sync.WaitGroup
			took, read := make([]time.Duration, len(users)), make([]time.Duration, len(users))
			for i, c := range users {
				waiting.Go(func() {
					if _, err := c.History(t.Context(), "lobby", 0, 1, client.Linearizable()); err != nil {
						t.Error(err)
					}
					read[i] = time.Since(cut)
				})
				waiting.Go(func() {
					if _, err := c.Publish(t.Context(), client.Message{Room: "lobby", Content: "are you there?"}); err != nil {
						t.Error(err)
					}
					took[i] = time.Since(cut)
				})
			}
			waiting.Wait()
			if slices.Max(took) > elected+known || slices.Max(read) > elected+asked+known {
				t.Error("that is too long")
			}
			t.Logf("acks after %v, reads after %v", took, read)
			w.net.Heal()
			for _, c := range users {
				_ = c.Close()
			}
			w.stopAll()
		})
	}
}
