package mesh

import (
	"context"
	"encoding/binary"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestClassesHaveAnOrder sends log entries while sessions send as much as the link
// carries: Raft has all of the link meanwhile, and not a turn among others.
func TestClassesHaveAnOrder(t *testing.T) {
	const size, others = 1 << 20, 8
	synctest.Test(t, func(t *testing.T) {
		n := newNarrow(t)
		ctx, cancel := context.WithCancel(t.Context())
		s, err := n.a.Open(ctx, "b", StreamRaft)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		entries := func() time.Duration {
			message := make([]byte, size)
			binary.BigEndian.PutUint32(message, size)
			binary.BigEndian.PutUint64(message[4:], uint64(time.Now().UnixNano()))
			if _, err := s.Write(message); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
			n.mu.Lock()
			defer n.mu.Unlock()
			return n.beats[len(n.beats)-1]
		}
		for range 5 { // until QUIC knows what the link carries
			entries()
		}
		alone := entries()
		var parts sync.WaitGroup
		for range others {
			parts.Go(func() { n.send(ctx, asEvents, snapshotSize) })
		}
		time.Sleep(2 * time.Second)
		beside := entries()
		t.Logf("%v alone, %v beside others", alone, beside)
		if beside > 2*alone+narrowRTT {
			t.Errorf("%v alone, %v beside others", alone, beside)
		}
		cancel()
		parts.Wait()
	})
}
