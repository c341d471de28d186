package wire

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
)

// A frame put together from encodings is the frame that protobuf makes, and
// comes apart into the same encodings.
func TestAppendRun(t *testing.T) {
	events := []*Event{
		{}, {Seq: 1}, {Seq: math.MaxUint64, User: "u", Kind: Kind_KIND_JOIN, Content: strings.Repeat("x", 300)},
		{Seq: 3, Content: strings.Repeat("é", 20_000)}, {Seq: 4, MsgId: "m", Trace: []byte("0123456789abcdef")},
	}
	for n := range len(events) + 1 {
		for _, follow := range []uint64{0, 1, 127, 128, math.MaxUint64} {
			var encoded [][]byte
			size := 0
			for _, e := range events[:n] {
				encoded = append(encoded, EncodeEvent(e))
				size += RunSize(len(encoded[len(encoded)-1]))
			}
			got := AppendRun([]byte("before"), follow, Run(encoded))
			want := AppendMessage([]byte("before"), &Frame{Body: &Frame_Events{&Events{Follow: follow, Events: events[:n]}}})
			if !bytes.Equal(got, want) {
				t.Fatalf("%d events of follow %d: %x, want %x", n, follow, got, want)
			}
			if run := Run(encoded); len(run) != size || len(SplitRun(run)) != n {
				t.Errorf("a run of %d bytes and %d events, want %d and %d", len(run), len(SplitRun(run)), size, n)
			}
			f, split, ok := SplitEvents(got[len("before")+headerLen:])
			if !ok || f != follow || len(split) != n {
				t.Fatalf("SplitEvents = %d, %d events, %v", f, len(split), ok)
			}
			for i, b := range split {
				e, err := DecodeEvent(b)
				if err != nil || !proto.Equal(e, events[i]) || EventSeq(b) != events[i].Seq {
					t.Errorf("event %d is %v, %v", i, e, err)
				}
			}
		}
	}
}

// Whether an event is traced is seen at its end, also where that only looks so.
func TestEventTrace(t *testing.T) {
	const id = "0123456789abcdef"
	traced := EncodeEvent(&Event{Seq: 1, Content: "x", MsgId: "01HF7YAT00XEG0HYE6QWA87ZF0", Trace: []byte(id)})
	if got := EventTrace(traced); string(got) != id {
		t.Errorf("EventTrace = %q", got)
	}
	for name, e := range map[string]*Event{
		"nothing":    {},
		"untraced":   {Seq: 1, Content: "x", MsgId: "01HF7YAT00XEG0HYE6QWA87ZF0"},
		"looks so":   {Seq: 1, Content: eventTrace + id},
		"too long":   {Seq: 1, Trace: []byte(eventTrace + id)},
		"too short":  {Seq: 1, Trace: []byte("0123")},
		"in its own": {Seq: 1, MsgId: "x" + eventTrace + id},
	} {
		if got := EventTrace(EncodeEvent(e)); got != nil {
			t.Errorf("%s: EventTrace = %x", name, got)
		}
	}
	for name, e := range map[string]*Event{
		"traced": {Seq: 1, Content: strings.Repeat("x", Content), MsgId: "01HF7YAT00XEG0HYE6QWA87ZF0", Trace: []byte(id)},
		"not":    {Seq: 1, Content: "x", MsgId: "01HF7YAT00XEG0HYE6QWA87ZF0"},
	} {
		b := EncodeEvent(e)
		if n := testing.AllocsPerRun(1000, func() { EventTrace(b) }); n != 0 {
			t.Errorf("%v allocations to see that an event is %s", n, name)
		}
	}
}

// What is read of an encoded event without decoding it is what is in it, whatever is around.
func TestEventClientMsgID(t *testing.T) {
	for want, e := range map[string]*Event{
		"":    {Seq: 1, Content: "x"},
		"c-1": {Seq: 1, Content: "x", TsMs: -1, ClientMsgId: "c-1", MsgId: "m", Trace: []byte("0123456789abcdef")},
		"c-2": {ClientMsgId: "c-2"},
	} {
		b := EncodeEvent(e)
		if got := EventClientMsgID(b); string(got) != want {
			t.Errorf("EventClientMsgID = %q, want %q", got, want)
		}
		if cut := b[:len(b)-1]; EventClientMsgID(cut) != nil {
			t.Errorf("%x, which is cut off, has a client_msg_id", cut)
		}
	}
}

func TestSplitEventsLeavesOtherFrames(t *testing.T) {
	for _, f := range frames() {
		if _, _, ok := SplitEvents(AppendMessage(nil, f)[headerLen:]); ok != (f.GetEvents() != nil) {
			t.Errorf("SplitEvents of %T: %v", f.Body, ok)
		}
	}
}

func FuzzSplitEvents(f *testing.F) {
	for _, frame := range frames() {
		f.Add(AppendMessage(nil, frame)[headerLen:])
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		follow, events, ok := SplitEvents(payload)
		if !ok {
			return
		}
		// What it accepts, protobuf understands in the same way.
		frame := new(Frame)
		if err := frame.UnmarshalVT(payload); err != nil {
			for _, e := range events {
				if _, err := DecodeEvent(e); err != nil {
					return // it does not look into the events
				}
			}
			t.Fatalf("protobuf refuses it: %v", err)
		}
		if frame.GetEvents().GetFollow() != follow || len(frame.GetEvents().GetEvents()) != len(events) {
			t.Errorf("follow %d with %d events, protobuf has %v", follow, len(events), frame)
		}
	})
}
