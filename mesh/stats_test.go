package mesh

import (
	"context"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling/internal/simnet"
	"github.com/starling-im/starling/wire"
)

// of returns the traffic with a peer in a class.
func (s Stats) of(peer string, class Class) Traffic {
	i := slices.IndexFunc(s.Traffic, func(t Traffic) bool { return t.Peer == peer && t.Class == class })
	if i < 0 {
		return Traffic{}
	}
	return s.Traffic[i]
}

// TestStats sends frames and a snapshot: both ends count the same, and what is counted
// of a node goes with the node.
func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, simnet.Options{})
		a := start(t, w.config("a", addrA))
		got := make(chan int64, 2)
		b := start(t, w.config("b", addrB, addrA), func(m *Mesh) {
			drain := func(_ context.Context, _ string, s *Stream) {
				n, _ := io.Copy(io.Discard, s)
				got <- n
			}
			m.Handle(StreamRelay, drain)
			m.Handle(StreamSnapshot, drain)
		})
		a.wait(10*time.Second, "link", linked("b"))
		var frames []byte
		for range 3 {
			frames = wire.AppendMessage(frames, &wire.Frame{Body: &wire.Frame_Answer{Answer: &wire.Answer{Json: make([]byte, 100)}}})
		}
		const snapshot = 100 << 10
		for kind, data := range map[byte][]byte{StreamRelay: frames, StreamSnapshot: make([]byte, snapshot)} {
			s, err := a.Open(t.Context(), "b", kind)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write(data); err != nil {
				t.Fatal(err)
			}
			_ = s.Close()
			if n := <-got; n != int64(len(data)) {
				t.Errorf("%d of %d bytes came", n, len(data))
			}
		}
		time.Sleep(time.Minute)
		at, to := a.Stats(), b.Stats()
		for class, want := range map[Class]Count{Events: {uint64(len(frames)), 3}, Bulk: {snapshot, 1}} {
			if sent, received := at.of("b", class).Sent, to.of("a", class).Received; sent != want || received != want {
				t.Errorf("%v: sent %v, received %v, not %v", class, sent, received, want)
			}
		}
		if x, y := at.of("b", Gossip), to.of("a", Gossip); x.Sent.Messages < 10 || y.Sent.Messages < 10 || y.Received.Messages < 10 {
			t.Errorf("gossip: %+v and %+v", x, y)
		}
		if len(at.Links) != 1 || at.Links[0].Peer != "b" || at.Links[0].Bulk != 0 {
			t.Errorf("links: %+v", at.Links)
		}
		b.shutdown()
		a.table.mu.Lock()
		delete(a.table.all, "b")
		a.table.publish()
		a.table.mu.Unlock()
		time.Sleep(2 * measureEvery)
		if x := a.Stats().Traffic; slices.ContainsFunc(x, func(t Traffic) bool { return t.Peer == "b" }) {
			t.Errorf("still counted: %+v", x)
		}
	})
}
