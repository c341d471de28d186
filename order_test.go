package starling_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling/client"
)

// A device sends without waiting for answers while leaders are killed and cut
// off. Its messages stand in the room in the order in which it sent them.
func TestOwnSendsKeepTheirOrder(t *testing.T) {
	t.Parallel()
	for seed := range rounds(2, 100) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 2))
			w := newWorld(t, "fra", "iad", "sin")
			for _, p := range w.peers {
				w.start(p.ID)
			}
			room := fmt.Sprint("room-", seed)
			c := w.dial("alice", 2)
			var mu sync.Mutex
			var seqs []uint64
			var open sync.WaitGroup
			send := func(d time.Duration) {
				for until := time.Now().Add(d); time.Now().Before(until); {
					mu.Lock()
					i := len(seqs)
					seqs = append(seqs, 0)
					mu.Unlock()
					open.Add(1)
					c.Send(t.Context(), client.Message{Room: room, Content: fmt.Sprint(i)}, func(a client.Ack, err error) {
						defer open.Done()
						mu.Lock()
						defer mu.Unlock()
						if seqs[i] = a.Seq; err != nil {
							t.Errorf("seed %d, send %d: %v", seed, i, err)
						}
					})
					time.Sleep(time.Duration(rng.IntN(40)) * time.Millisecond)
				}
			}
			send(3 * time.Second)
			for _, id := range []string{"fra-1", "iad-1"} {
				if rng.IntN(2) == 0 {
					w.kill(id, 0)
					send(5 * time.Second)
					w.start(id)
				} else {
					w.net.Cut([]string{w.host(id)}, []string{w.host("fra-1"), w.host("iad-1"), w.host("sin-1")})
					send(8 * time.Second)
					w.net.Heal()
				}
				send(6 * time.Second)
			}
			open.Wait()
			for i := 1; i < len(seqs); i++ {
				if seqs[i] <= seqs[i-1] {
					t.Errorf("seed %d: send %d has seq %d, the one before it %d", seed, i, seqs[i], seqs[i-1])
				}
			}
			_ = c.Close()
			w.stopAll()
		})
	}
}
