package starling

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/starling-im/starling/relay"
	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

func tracedCommand(trace string) room.Command {
	return room.Command{ID: room.ID{App: "demo", Room: "r"}, User: "u", ClientMsgID: "m", Kind: room.Message, Content: "hello", Access: room.Open, Placement: 7, Trace: trace}
}

func tracedEvent(trace string) []byte {
	return encodeEvent(&room.Event{Seq: 9, User: "u", Kind: room.Message, Content: "hello", ClientMsgID: "m", MsgID: "01HF7YAT00XEG0HYE6QWA87ZF0", Trace: trace})
}

// A message that is not traced costs no memory anywhere on its way.
func TestUntracedCostsNothing(t *testing.T) {
	n := newTracer("fra-1", "fra")
	c := tracedCommand("")
	command, event := c.Append(nil), tracedEvent("")
	done := func(*wire.Ack, error) {}
	begun := time.Now()
	if allocated := testing.AllocsPerRun(1000, func() {
		n.published(&c, done)
		n.sent(command, "fra-1")
		if n.proposed(command) != nil {
			t.Fatal("an untraced command is followed")
		}
		n.arrived(event, HopApply, "", begun)
		n.wrote(event, relay.Peer{User: "u"}, begun)
	}); allocated != 0 {
		t.Errorf("%v allocations per message without a trace", allocated)
	}
	if len(n.kept) != 0 {
		t.Errorf("%d traces of none", len(n.kept))
	}
	with := testing.AllocsPerRun(1000, func() { tracedEvent("") })
	without := testing.AllocsPerRun(1000, func() {
		wire.EncodeEvent(&wire.Event{Seq: 9, User: "u", Kind: wire.Kind_KIND_MESSAGE, Content: "hello", ClientMsgId: "m", MsgId: "01HF7YAT00XEG0HYE6QWA87ZF0"})
	})
	if with != without {
		t.Errorf("encoding an event takes %v allocations, without the field %v", with, without)
	}
}

// However many follow a room, what is noted of a traced message is its first hops: the
// writes beyond them cost no memory.
func TestTracedCostsLittle(t *testing.T) {
	const trace = "0123456789abcdef"
	n := newTracer("fra-1", "fra")
	event := tracedEvent(trace)
	write := func() { n.wrote(event, relay.Peer{User: "u"}, time.Now()) }
	if allocated := testing.AllocsPerRun(1000, write); allocated != 0 {
		t.Errorf("%v allocations per write of an event of which nothing is known", allocated)
	}
	n.arrived(event, HopApply, "", time.Now())
	for range hopsKept {
		write()
	}
	if allocated := testing.AllocsPerRun(1000, write); allocated != 0 {
		t.Errorf("%v allocations per write beyond the hops that are kept", allocated)
	}
	if hops := n.of(traceID([]byte(trace))); len(hops) != hopsKept {
		t.Errorf("%d hops, want %d", len(hops), hopsKept)
	}
}

func TestTracerIsBounded(t *testing.T) {
	n := newTracer("fra-1", "fra")
	id := func(i int) string {
		return string(binary.BigEndian.AppendUint64(make([]byte, room.TraceBytes-8), uint64(i)))
	}
	for i := range tracesKept + 10 {
		for range hopsKept + 10 {
			n.arrived(tracedEvent(id(i)), HopRelay, "iad-1", time.Time{})
		}
	}
	if len(n.kept) != tracesKept {
		t.Errorf("%d traces, want %d", len(n.kept), tracesKept)
	}
	for i, want := range map[int]int{9: 0, 10: hopsKept, tracesKept + 9: hopsKept} {
		if got := len(n.of(traceID([]byte(id(i))))); got != want {
			t.Errorf("trace %d has %d hops, want %d", i, got, want)
		}
	}
}

// The hops of one node, which is edge, leader and all else.
func TestHops(t *testing.T) {
	const trace = "0123456789abcdef"
	n := newTracer("fra-1", "fra")
	c := tracedCommand(trace)
	command, event := c.Append(nil), tracedEvent(trace)
	n.wrote(event, relay.Peer{User: "early"}, time.Now()) // history, of which nothing is known
	done := n.published(&c, func(*wire.Ack, error) {})
	n.sent(command, "fra-1")
	n.proposed(command)()
	began := time.Now()
	n.arrived(event, HopApply, "", began)
	n.wrote(event, relay.Peer{Node: "iad-1"}, began.Add(time.Minute))
	n.wrote(event, relay.Peer{User: "u"}, began)
	done(&wire.Ack{Seq: 9}, nil)
	done(nil, wire.Errorf(wire.CodeUnavailable, "lost"))
	want := []TraceHop{
		{What: HopEdge, To: "fra-1", User: "u"}, {What: HopPropose}, {What: HopApply, Seq: 9},
		{What: HopWrite, Seq: 9, To: "iad-1"}, {What: HopWrite, Seq: 9, User: "u"}, {What: HopAck, Seq: 9, User: "u"},
	}
	hops := n.of(traceID([]byte(trace)))
	if len(hops) != len(want) {
		t.Fatalf("%d hops, want %d: %+v", len(hops), len(want), hops)
	}
	for i, h := range hops {
		if h.Left < h.Arrived || h.Arrived == 0 || h.To == "iad-1" && h.Queued < (59*time.Second).Microseconds() {
			t.Errorf("the times of %+v", h)
		}
		h.Arrived, h.Left, h.Queued = 0, 0, 0
		want[i].Node, want[i].Region, want[i].Message = "fra-1", "fra", "m"
		if h != want[i] {
			t.Errorf("hop %d is %+v, want %+v", i, h, want[i])
		}
	}
}
