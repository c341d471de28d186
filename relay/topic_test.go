package relay

import (
	"fmt"
	"slices"
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

func newTopic(cfg HubConfig) *topic {
	return &topic{id: room.ID{App: "a", Room: "r"}, hub: NewHub(cfg)}
}

// at reads what the tail has after a position; ok is false if that is history.
func (t *topic) at(after uint64, max int) (events [][]byte, ok bool) {
	c := &cursor{topic: t, position: position{after, t.life}}
	for {
		got, waits, older, _ := t.read(c, max)
		if events = append(events, wire.SplitRun(got.run)...); c.after != after+uint64(len(events)) || len(wire.SplitRun(got.run)) != got.events {
			panic("the cursor is not where it has read to")
		}
		if waits || older {
			t.forget(c)
			return events, !older
		}
	}
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
				topic.begin(uint64(c.begin), 0)
			}
			for _, s := range c.seqs {
				topic.append(s, event(s, 1))
			}
			events, ok := topic.at(c.after, 1<<20)
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
	topic.hub.pump.workers = 0
	topic.begin(0, 0)
	c := &cursor{topic: topic}
	topic.append(1, event(1, 1))
	topic.append(2, event(2, 1))
	if got, waits, _, _ := topic.read(c, 1); got.events != 1 || waits {
		t.Fatalf("%d events, waits: %v; there is one more", got.events, waits)
	}
	if got, waits, _, _ := topic.read(c, 1); got.events != 1 || !waits {
		t.Fatalf("%d events, waits: %v; that was the last", got.events, waits)
	}
	topic.append(3, event(3, 1))
	topic.append(4, event(4, 1))
	if jobs := topic.turn.jobs; len(jobs) != 1 || len(jobs[0].cursors) != 1 || jobs[0].cursors[0] != c {
		t.Errorf("woken by %d jobs, want one", len(jobs))
	}
}

func TestTailIsBounded(t *testing.T) {
	topic := newTopic(HubConfig{TailBytes: 10_000})
	topic.begin(0, 0)
	for s := uint64(1); s <= 1000; s++ {
		topic.append(s, event(s, 100))
	}
	if n := topic.hub.Bytes(); n > 10_000 {
		t.Errorf("the hub holds %d bytes, above the bound of a topic", n)
	}
	if last, _ := topic.last(); last != 1000 {
		t.Errorf("the newest event is %d, want 1000", last)
	}
	if events, ok := topic.at(990, 1<<20); !ok || len(events) != 10 {
		t.Errorf("the newest ten are not in the tail: %v %v", seqs(events), ok)
	}
}

// The bound of all tails together holds for rooms that have gone quiet, too.
func TestTailsOfANodeAreBounded(t *testing.T) {
	s := new(store)
	hub := NewHub(HubConfig{Feed: s, NodeBytes: 5_000, Topics: 10})
	s.hub = hub
	defer hub.Close()
	for r := range 10 {
		id := room.ID{App: string(rune('a' + r)), Room: "r"}
		reader, err := hub.Follow(id, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer reader.Close()
		hub.Begin(id, 0, 0)
		for seq := uint64(1); seq <= 10; seq++ {
			hub.Append(id, seq, event(seq, 200))
			if n := hub.Bytes(); n > 5_000 {
				t.Fatalf("the tails hold %d bytes, above their bound", n)
			}
		}
	}
	if _, err := hub.Follow(room.ID{App: "a", Room: "one more"}, 0); wire.Code(err) != wire.CodeTooMany {
		t.Errorf("an eleventh room: %v, want %s", err, wire.CodeTooMany)
	}
}

// A feed that lags behind what the topic knows is asked again, so that a quiet
// room's last events are not kept back until somebody speaks.
func TestFeedThatLagsIsAskedAgain(t *testing.T) {
	topic := newTopic(HubConfig{})
	topic.begin(100, 0)
	if err := following(topic, 98, nil); !wire.AsError(err).Retryable {
		t.Errorf("nothing after 98 of 100: %v, want to try again", err)
	}
	if err := following(topic, 100, nil); err != nil {
		t.Errorf("nothing after 100 of 100: %v", err)
	}
}

func TestTopicOfAnotherEpoch(t *testing.T) {
	topic := newTopic(HubConfig{})
	topic.begin(0, 1)
	for s := uint64(1); s <= 5; s++ {
		topic.append(s, event(s, 1))
	}
	life, current := topic.meet(5, 1)
	if _, ok := topic.at(2, 1<<20); !ok || !current || topic.outlived(life) != nil {
		t.Error("the tail does not serve its own epoch")
	}
	if _, current := topic.meet(3, 7); current {
		t.Error("a tail of an earlier epoch is current")
	}
	c := &cursor{topic: topic, position: position{5, life}}
	topic.hub.pump.workers = 0
	_, _, _, _ = topic.read(c, 1)
	topic.begin(3, 7) // the room lost 4 and 5
	if len(topic.turn.jobs) != 1 || wire.Code(topic.outlived(life)) != wire.CodeEpochChanged {
		t.Error("who read the earlier epoch is not told")
	}
	topic.append(4, event(4, 9))
	if life, current = topic.meet(4, 7); !current || topic.outlived(life) != nil {
		t.Error("the new epoch is not current")
	}
	if events, ok := topic.at(3, 1<<20); !ok || len(events) != 1 || len(events[0]) != len(event(4, 9)) {
		t.Errorf("after 3 come %v, %v", events, ok)
	}
	if _, current := topic.meet(5, 1); current {
		t.Error("a replica that lags is current")
	}
	early := newTopic(HubConfig{})
	early.begin(0, 1)
	life, _ = early.meet(0, 1) // a follower who came before the room was made
	early.append(1, event(1, 1))
	early.begin(1, 7)
	if wire.Code(early.outlived(life)) != wire.CodeEpochChanged {
		t.Error("who follows since before the room was made is not told of another epoch")
	}
	unmade := newTopic(HubConfig{})
	unmade.begin(0, 7) // where it is not made in the end
	if _, current := unmade.meet(1, 1); !current {
		t.Error("a room that was not there has an epoch")
	}
}

// A chunk names those of its events that are traced, and no others.
func TestChunksNameTheTraced(t *testing.T) {
	const first = 5
	traced := map[uint64]bool{6: true, 7: true, 11: true}
	var events [][]byte
	for seq := uint64(first); seq < 14; seq++ {
		e := &wire.Event{Seq: seq, Content: "x"}
		if traced[seq] {
			e.Trace = []byte("0123456789abcdef")
		}
		events = append(events, wire.EncodeEvent(e))
	}
	b := blockOf(first, events)
	for after := uint64(first - 1); b.has(after); after++ {
		for _, most := range []int{1, 40, 1000} {
			got := b.after(after, most)
			var want []uint64
			for seq := after + 1; seq <= after+uint64(got.events); seq++ {
				if traced[seq] {
					want = append(want, seq)
				}
			}
			if !slices.Equal(seqs(got.traced), want) {
				t.Errorf("of %d events after %d %v are traced, want %v", got.events, after, seqs(got.traced), want)
			}
		}
	}
}
