package starling_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/starling-im/starling/client"
)

// acked is what senders were told, by id.
type acked struct {
	mu  sync.Mutex
	seq map[string]uint64
}

func (a *acked) add(id string, seq uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seq[id] = seq
}

func (a *acked) copy() map[string]uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := make(map[string]uint64, len(a.seq))
	for id, seq := range a.seq {
		m[id] = seq
	}
	return m
}

// powerLoss runs a chat and cuts the power of all nodes at one moment: what
// was not synced is gone from every disk. It starts the mesh again from what
// is left and returns how many acknowledged messages are missing or elsewhere.
func powerLoss(t *testing.T, seed uint64, sync bool) (acks, lost int) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(seed, 0))
		w := newWorld(t, "fra", "iad", "sin")
		w.sync = sync
		for _, p := range w.peers {
			w.start(p.ID)
		}
		got := &acked{seq: make(map[string]uint64)}
		ctx, cancel := context.WithCancel(t.Context())
		c := w.dial("alice", 0)
		senders := chat(ctx, c, got)
		for len(got.copy()) == 0 { // until the mesh is up
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Duration(rng.IntN(2_000_000)) * time.Microsecond)
		before := got.copy()
		left := make(map[string]*vfs.MemFS)
		for id, disk := range w.disks {
			left[id] = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(2) * rng.IntN(100) * btoi(sync), RNG: rng})
		}
		cancel()
		senders.Wait()
		_ = c.Close()
		w.stopAll()

		w.disks = left
		for _, p := range w.peers {
			ok(t, os.RemoveAll(w.path(p.ID)))
			w.start(p.ID)
		}
		c = w.dial("alice", 0)
		acks, lost = len(before), missing(t, c, before)
		_ = c.Close()
		w.stopAll()
	})
	return acks, lost
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// chat sends to one room from sixteen senders until ctx ends.
func chat(ctx context.Context, c *client.Client, got *acked) *sync.WaitGroup {
	senders := new(sync.WaitGroup)
	for s := range 16 {
		senders.Go(func() {
			for k := 0; ctx.Err() == nil; k++ {
				id := fmt.Sprintf("%d-%d", s, k)
				if ack, err := c.Publish(ctx, client.Message{Room: "lobby", ID: id, Content: "x"}); err == nil {
					got.add(id, ack.Seq)
				}
			}
		})
	}
	return senders
}

// missing counts the acks that the room's history does not bear out.
func missing(t *testing.T, c *client.Client, acks map[string]uint64) int {
	stored := make(map[string]uint64)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for after := uint64(0); ; {
		page, err := c.History(ctx, "lobby", after, 200, client.Linearizable())
		if err != nil {
			if ctx.Err() != nil {
				t.Fatal(err)
			}
			time.Sleep(50 * time.Millisecond)
			continue
		}
		for _, e := range page.Events {
			if e.Seq != after+1 {
				t.Fatalf("the history has a hole before seq %d", e.Seq)
			}
			after = e.Seq
			stored[e.ID] = e.Seq
		}
		if !page.More {
			break
		}
	}
	n := 0
	for id, seq := range acks {
		if stored[id] != seq {
			n++
		}
	}
	return n
}

// rounds is how often a test of chance tries: more if STARLING_LONG is set.
func rounds(usual, long uint64) uint64 {
	if os.Getenv("STARLING_LONG") != "" {
		return long
	}
	return usual
}

func TestAckedSurvivesPowerLossOfAllNodes(t *testing.T) {
	total, moments := 0, rounds(50, 500)
	for seed := range moments {
		acks, lost := powerLoss(t, seed, true)
		if lost > 0 {
			t.Errorf("seed %d: %d of %d acknowledged messages are lost", seed, lost, acks)
		}
		total += acks
	}
	t.Logf("%d acknowledged messages, all there after %d power losses", total, moments)
}

// The negative control: with sync off the same test must lose messages.
func TestWithoutSyncAckedIsLost(t *testing.T) {
	for seed := range uint64(5) {
		if acks, lost := powerLoss(t, seed, false); lost > 0 {
			t.Logf("seed %d: %d of %d acknowledged messages are lost, as they should", seed, lost, acks)
			return
		}
	}
	t.Error("nothing is lost although the disks forget: the test proves nothing")
}
