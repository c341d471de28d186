package room

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
)

// few makes collisions likely: of rooms, users, ids and words.
func randomCommand(r *rand.Rand) Command {
	pick := func(n int, prefix string) string { return fmt.Sprint(prefix, r.IntN(n)) }
	return Command{
		ID: ID{App: pick(2, "app"), Room: pick(3, "room")}, User: pick(4, "user"), ClientMsgID: pick(40, "m"),
		Kind: Kind(1 + r.IntN(5)), Content: pick(2, "text"), Access: Access(1 + r.IntN(2)),
	}
}

func TestAgainstModel(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		s, m := newMemory(), NewMachine(Config{Encode: encodeJSON, CacheRooms: 1 + r.IntN(8)})
		models := map[ID]*model{}
		msgIDs := map[string]bool{}
		now, last := int64(1000), map[ID]int64{}
		for step := range 150 {
			c := randomCommand(r)
			now += int64(r.IntN(5)) - 2 // clocks run backwards, too
			if models[c.ID] == nil {
				models[c.ID] = &model{}
			}
			seq, duplicate, code := models[c.ID].apply(c)
			got := m.Apply(s, now, [][]byte{c.Append(nil)})[0].(Result)
			if got.Ack.Seq != uint64(seq) || got.Ack.Duplicate != duplicate || codeOf(got.Refusal) != code {
				t.Fatalf("seed %d step %d: %+v: got %+v, want seq %d duplicate %v %q", seed, step, c, got, seq, duplicate, code)
			}
			published := m.Take()
			if want := code == "" && !duplicate; want != (len(published) == 1) {
				t.Fatalf("seed %d step %d: published %d events", seed, step, len(published))
			}
			for _, p := range published {
				e := decodeJSON(t, p.Data)
				if e.TS < last[c.ID] || msgIDs[e.MsgID] || e.MsgID != got.Ack.MsgID || p.ID != c.ID {
					t.Fatalf("seed %d step %d: event %+v", seed, step, e)
				}
				last[c.ID], msgIDs[e.MsgID] = e.TS, true
			}
		}
		compare(t, s, models)
	}
}

// randomPlaced is a random command of any kind, also of those between nodes.
func randomPlaced(r *rand.Rand) Command {
	c := randomCommand(r)
	switch r.IntN(8) {
	case 0:
		c = Command{ID: c.ID, Kind: Claim, Placement: 1 + uint64(r.IntN(6))}
	case 1:
		c = Command{ID: c.ID, Kind: Elsewhere, Placement: 1 + uint64(r.IntN(6)), Group: 1 + uint32(r.IntN(2))}
	default:
		if c.Placement = uint64(r.IntN(8)); c.Placement == 7 {
			c.Placement = Exists
		}
	}
	return c
}

// A group makes no room by a placement that is older than the newest claim, nor
// one that is elsewhere, and a claim tells what there is.
func TestClaimsAgainstModel(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 2))
		s, m := newMemory(), NewMachine(Config{Encode: encodeJSON, CacheRooms: 1 + r.IntN(8), Group: 5})
		newest, heads, moved := uint64(0), map[ID]uint64{}, map[ID]uint32{}
		for step := range 150 {
			c := randomPlaced(r)
			got := m.Apply(s, int64(step), [][]byte{c.Append(nil)})[0].(Result)
			code, seq := codeOf(got.Refusal), got.Ack.Seq
			ok := true
			switch head := heads[c.ID]; {
			case c.Kind == Elsewhere && head > 0:
				ok = code == CodeExists
			case c.Kind == Elsewhere && moved[c.ID] == 0:
				moved[c.ID] = c.Group
				ok = code == ""
			case c.Kind == Elsewhere:
				ok = (code == "") == (moved[c.ID] == c.Group) && (code == "" || code == CodeMoved)
			case head == 0 && moved[c.ID] != 0:
				ok = code == CodeMoved && got.Refusal.Group == moved[c.ID]
			case c.Kind == Claim:
				ok = code == "" && seq == head
			case head == 0 && (c.Placement < newest || c.Placement == Exists):
				ok = code == CodeStale
			case c.Placement < newest:
				ok = code == CodeMoved && got.Refusal.Group == 5
			default:
				ok = code != CodeStale && code != CodeMoved
				heads[c.ID] = max(head, seq)
			}
			if c.Kind == Claim {
				newest = max(newest, c.Placement)
			}
			if !ok || Placement(s) != newest {
				t.Fatalf("seed %d step %d: %+v: %+v, placement %d of %d", seed, step, c, got, Placement(s), newest)
			}
			if err := Check(s, c.ID); err != nil {
				t.Fatal(err)
			}
			if r.IntN(10) == 0 {
				m.Reset()
			}
		}
	}
}

// compare checks what is stored against the models.
func compare(t *testing.T, s *memory, models map[ID]*model) {
	t.Helper()
	rooms := 0
	for id, want := range models {
		if err := Check(s, id); err != nil {
			t.Fatal(err)
		}
		st, ok := Load(s, id)
		if ok != (want.access != 0) || st.Access != want.access || int(st.Members) != len(want.members) {
			t.Fatalf("%v is %+v, model %+v", id, st, want)
		}
		if ok {
			rooms++
		}
		events := Read(s, id, 0, 1000, 1<<20)
		if len(events) != len(want.said) {
			t.Fatalf("%v has %d events, model %d", id, len(events), len(want.said))
		}
		for i, b := range events {
			e, c := decodeJSON(t, b), want.said[i]
			if e.Seq != uint64(i+1) || e.User != c.User || e.Kind != c.Kind || e.Content != c.Content || e.ClientMsgID != c.ClientMsgID {
				t.Fatalf("%v event %d is %+v, model %+v", id, i+1, e, c)
			}
		}
	}
	if CountRooms(s) != rooms {
		t.Fatalf("CountRooms = %d, model %d", CountRooms(s), rooms)
	}
}

// entry is one entry of a log.
type entry struct {
	now      int64
	commands [][]byte
}

// A log's entries may be applied one by one or many at once, by replicas with
// caches of any size that start again at any time.
func TestReplicasAgree(t *testing.T) {
	type replica struct {
		hash      [32]byte
		results   []any
		published []Published
		data      map[string][]byte
	}
	run := func(r *rand.Rand, log []entry) replica {
		s, m := newMemory(), NewMachine(Config{Encode: encodeJSON, CacheRooms: 1 + r.IntN(10)})
		var out replica
		for _, e := range log {
			for rest := e.commands; len(rest) > 0; {
				n := 1 + r.IntN(len(rest))
				out.results = append(out.results, m.Apply(s, e.now, rest[:n])...)
				out.published = append(out.published, m.Take()...)
				rest = rest[n:]
				if r.IntN(5) == 0 {
					m.Reset()
				}
			}
		}
		out.hash, out.data = Hash(s), s.data
		return out
	}
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		var log []entry
		for i := range 20 {
			e := entry{now: int64(i)}
			for range 1 + r.IntN(20) {
				b := randomPlaced(r).Append(nil)
				if r.IntN(10) == 0 {
					// Garbage in the log, but not of a later release.
					b[3+r.IntN(len(b)-3)] ^= byte(1 + r.IntN(255))
				}
				e.commands = append(e.commands, b)
			}
			log = append(log, e)
		}
		first := run(r, log)
		for range 3 {
			if other := run(r, log); !reflect.DeepEqual(first, other) {
				t.Fatalf("seed %d: replicas differ, hashes %x and %x", seed, first.hash, other.hash)
			}
		}
		log[0].commands = [][]byte{say(ID{"x", "x"}, "x", "x", "x").Append(nil)}
		if other := run(r, log); first.hash == other.hash {
			t.Fatalf("seed %d: another log has the same hash", seed)
		}
	}
}

func TestNothingKeepsTheCommand(t *testing.T) {
	s, m := newMemory(), NewMachine(Config{Encode: encodeJSON})
	b := goldenCommand.Append(nil)
	r := m.Apply(s, 5, [][]byte{b})[0].(Result)
	published := m.Take()
	data := bytes.Clone(published[0].Data)
	clear(b)
	m.Apply(s, 6, [][]byte{say(goldenCommand.ID, "eve", "e", "other").Append(nil)})
	if !bytes.Equal(data, published[0].Data) || published[0].ID != goldenCommand.ID || r.Ack.Seq != 1 {
		t.Errorf("an event changed after it was published: %s", published[0].Data)
	}
}

// nowhere is a store that costs nothing: what is left is the machine.
type nowhere struct{ Reader }

func (nowhere) Get([]byte) ([]byte, bool) { return nil, false }
func (nowhere) Set(_, _ []byte)           {}
func (nowhere) Delete([]byte)             {}

func BenchmarkApply(b *testing.B) {
	data := make([]byte, 200)
	m := NewMachine(Config{Encode: func(*Event) []byte { return data }})
	batch := make([][]byte, 64)
	for i := range batch {
		id := ID{"acme", fmt.Sprint("room", i%8)}
		batch[i] = say(id, fmt.Sprint("user", i), fmt.Sprint("0190f5fe-0000-7000-8000-", i), "a message of a common length, as people write in chats").Append(nil)
	}
	b.ReportAllocs()
	for b.Loop() {
		m.Apply(nowhere{}, 1_700_000_000_000, batch)
		m.Take()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(batch)), "ns/command")
}
