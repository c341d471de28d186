package relay

import (
	"fmt"
	"testing"

	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

func event(seq uint64, size int) []byte {
	return wire.EncodeEvent(&wire.Event{Seq: seq, Content: string(make([]byte, size))})
}

func seqs(events [][]byte) (s []uint64) {
	for _, e := range events {
		s = append(s, wire.EventSeq(e))
	}
	return s
}

type bell struct{ rung int }

func (b *bell) wake() { b.rung++ }

func newTopic(cfg HubConfig) *topic {
	return &topic{id: room.ID{App: "a", Room: "r"}, hub: NewHub(cfg)}
}

func TestTopicReads(t *testing.T) {
	const history, none = "history", "[]"
	for _, c := range []struct {
		name  string
		begin int // -1: not begun
		seqs  []uint64
		after uint64
		want  string
	}{
		{"not begun: only the feed knows", -1, nil, 0, history},
		{"begun at the head: nothing yet", 7, nil, 7, none},
		{"begun at the head: older is history", 7, nil, 6, history},
		{"the tail after the position", 0, []uint64{1, 2, 3}, 1, "[2 3]"},
		{"at the end of the tail", 0, []uint64{1, 2, 3}, 3, none},
		{"beyond the end: a replica that lags", 0, []uint64{1, 2, 3}, 9, none},
		{"before the tail", -1, []uint64{5, 6}, 2, history},
		{"a repeated event is dropped", 0, []uint64{1, 2, 2, 1, 3}, 0, "[1 2 3]"},
		{"a jump starts anew: what is between is history", 0, []uint64{1, 2, 7}, 2, history},
		{"a jump starts anew: from there on it is the tail", 0, []uint64{1, 2, 7}, 6, "[7]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			topic := newTopic(HubConfig{})
			if c.begin >= 0 {
				topic.begin(uint64(c.begin))
			}
			for _, s := range c.seqs {
				topic.append(s, event(s, 1))
			}
			events, _, ok := topic.read(c.after, 1<<20)
			got := fmt.Sprint(seqs(events))
			if !ok {
				got = history
			}
			if got != c.want {
				t.Errorf("read(%d) = %s, want %s", c.after, got, c.want)
			}
		})
	}
}

func TestTopicWakesOnceAndOnlyIfNothingWasMissed(t *testing.T) {
	topic := newTopic(HubConfig{})
	topic.begin(0)
	_, version, _ := topic.read(0, 1)
	topic.append(1, event(1, 1))
	b := new(bell)
	if topic.wait(b, version) {
		t.Fatal("wait registered although an event came since the read")
	}
	_, version, _ = topic.read(1, 1)
	if !topic.wait(b, version) {
		t.Fatal("wait refused although nothing came")
	}
	topic.append(2, event(2, 1))
	topic.append(3, event(3, 1))
	if b.rung != 1 {
		t.Errorf("woken %d times, want once", b.rung)
	}
}

func TestTailIsBounded(t *testing.T) {
	topic := newTopic(HubConfig{TailBytes: 10_000, NodeBytes: 5_000})
	topic.begin(0)
	for s := uint64(1); s <= 1000; s++ {
		topic.append(s, event(s, 100))
	}
	if n := topic.hub.Bytes(); n > 5_200 {
		t.Errorf("the hub holds %d bytes, above its bound", n)
	}
	if last, _ := topic.last(); last != 1000 {
		t.Errorf("the newest event is %d, want 1000", last)
	}
	if events, _, ok := topic.read(990, 1<<20); !ok || len(events) != 10 {
		t.Errorf("the newest ten are not in the tail: %v %v", seqs(events), ok)
	}
}
