package starling_test

import (
	"encoding/hex"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/geo"
	"github.com/starling-im/starling/wire"
)

// A message from Singapore to a room of Frankfurt that one more node in Singapore
// follows: each node tells what it did, and between two of them is the way there.
func TestTrace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "fra", "iad", "sin", "sin")
		for _, p := range w.peers {
			w.start(p.ID)
		}
		const room = "~fra/lobby"
		alice, bobs := w.dial("alice", 2), []*client.Client{w.dial("bob", 2), w.dial("bob", 3)}
		_, err := alice.Publish(t.Context(), client.Message{Room: room, Content: "untraced"})
		ok(t, err)
		var follows []*client.Follow
		for _, bob := range bobs {
			f, err := bob.FollowFromHead(t.Context(), room)
			ok(t, err)
			follows = append(follows, f)
		}
		time.Sleep(10 * time.Second) // the ways are known
		trace := [16]byte{1, 2, 3, 0xff}
		sent := time.Now()
		ack, err := alice.Publish(t.Context(), client.Message{Room: room, ID: "traced", Content: "x", Trace: trace})
		ok(t, err)
		for _, f := range follows {
			e, err := f.Next(t.Context())
			ok(t, err)
			if e.Trace != trace || e.Seq != ack.Seq {
				t.Errorf("the event is %+v", e)
			}
		}
		time.Sleep(time.Second) // what has been written is noted
		hops := traced(t, w, hex.EncodeToString(trace[:]))
		count := map[string]int{}
		first := map[string]starling.TraceHop{}
		for _, h := range hops {
			count[h.What]++
			if first[h.What].What == "" {
				first[h.What] = h
			}
			if h.Message != "traced" || h.Arrived < sent.UnixMicro() || h.Left < h.Arrived {
				t.Errorf("hop %+v", h)
			}
		}
		for what, n := range map[string]int{starling.HopEdge: 1, starling.HopPropose: 1, starling.HopApply: 3, starling.HopRelay: 1, starling.HopWrite: 3, starling.HopAck: 1} {
			if count[what] != n {
				t.Errorf("%d hops of %q, want %d: %+v", count[what], what, n, hops)
			}
		}
		edge, led, relay := first[starling.HopEdge], first[starling.HopPropose], first[starling.HopRelay]
		far, _ := geo.Pops().RTT("sin", "fra")
		if way := time.Duration(led.Arrived-edge.Left) * time.Microsecond; edge.Node != "sin-1" || edge.To != "fra-1" || led.Node != "fra-1" || (way-far/2).Abs() > time.Millisecond {
			t.Errorf("the way to the leader takes %v of a round trip of %v: %+v, %+v", way, far, edge, led)
		}
		if relay.Region != "sin" || relay.From == "" {
			t.Errorf("relayed by %+v", relay)
		}
		for _, args := range [][]string{{"trace"}, {"trace", "xyz"}, {"trace", "0102"}} {
			if _, err := w.nodes["fra-1"].node.Operate(t.Context(), args[0], args[1:]...); wire.Code(err) != wire.CodeBadRequest {
				t.Errorf("%q: %v", args, err)
			}
		}
		if _, err := alice.Query(t.Context(), "trace", hex.EncodeToString(trace[:])); wire.Code(err) != wire.CodeForbidden {
			t.Errorf("a user asks for hops: %v", err)
		}
		for _, c := range append(bobs, alice) {
			ok(t, c.Close())
		}
		w.stopAll()
	})
}

// traced asks a node for the hops of a trace on all.
func traced(t *testing.T, w *world, id string) (hops []starling.TraceHop) {
	t.Helper()
	answer, err := w.nodes["iad-1"].node.Operate(t.Context(), "trace", id)
	ok(t, err)
	ok(t, json.Unmarshal(answer, &hops))
	return hops
}
