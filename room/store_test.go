package room

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"testing"
)

// memory is a Store of the simplest kind. It hands out values that it
// overwrites at the next call, as the contract of Reader allows.
type memory struct {
	data map[string][]byte
	sets int // how many
	out  []byte
}

func newMemory() *memory { return &memory{data: map[string][]byte{}} }

func (m *memory) lend(v []byte) []byte {
	for i := range m.out {
		m.out[i] = 0xee
	}
	m.out = bytes.Clone(v)
	return m.out
}

func (m *memory) Get(key []byte) ([]byte, bool) {
	v, ok := m.data[string(key)]
	return m.lend(v), ok
}

func (m *memory) Scan(from, to []byte, fn func(key, value []byte) bool) {
	for _, k := range slices.Sorted(maps.Keys(m.data)) {
		if k >= string(from) && k < string(to) && !fn([]byte(k), m.lend(m.data[k])) {
			return
		}
	}
}

func (m *memory) Last(from, to []byte) (last []byte, ok bool) {
	m.Scan(from, to, func(key, _ []byte) bool { last, ok = bytes.Clone(key), true; return true })
	return last, ok
}

func (m *memory) Set(key, value []byte) {
	m.sets++
	m.data[string(key)] = bytes.Clone(value)
}

func (m *memory) Delete(key []byte) { delete(m.data, string(key)) }

// encodeJSON stands in for the protocol's encoding.
func encodeJSON(e *Event) []byte {
	b, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	return b
}

func decodeJSON(t testing.TB, b []byte) (e Event) {
	t.Helper()
	if err := json.Unmarshal(b, &e); err != nil {
		t.Fatal(err)
	}
	return e
}

func say(id ID, user, clientMsgID, content string) Command {
	return Command{ID: id, User: user, ClientMsgID: clientMsgID, Kind: Message, Content: content, Access: Open}
}

func TestStateIsWrittenOncePerBatch(t *testing.T) {
	s, m := newMemory(), NewMachine(Config{Encode: encodeJSON})
	var batch [][]byte
	for i := range 10 {
		batch = append(batch, say(ID{"a", "r"}, "u", string(rune('a'+i)), "x").Append(nil))
	}
	m.Apply(s, 1, batch)
	if want := 10*2 + 1 + 1; s.sets != want {
		t.Errorf("%d writes, want %d: an event and a receipt each, one state, one count", s.sets, want)
	}
}

func TestActiveRoomNeedsNoRead(t *testing.T) {
	m := NewMachine(Config{Encode: encodeJSON})
	s := &countingReads{memory: newMemory()}
	for i := range 5 {
		m.Apply(s, 1, [][]byte{say(ID{"a", "r"}, "u", string(rune('a'+i)), "x").Append(nil)})
	}
	if want := 1 + 1 + 1 + 1; s.gets != want {
		t.Errorf("%d reads, want %d: the state, the placement, the epoch and the count once", s.gets, want)
	}
}

type countingReads struct {
	*memory
	gets int
}

func (c *countingReads) Get(key []byte) ([]byte, bool) {
	c.gets++
	return c.memory.Get(key)
}

func TestReadBounds(t *testing.T) {
	s, m := newMemory(), NewMachine(Config{Encode: func(e *Event) []byte { return []byte(e.Content) }})
	id := ID{"a", "r"}
	for i, content := range []string{"1234567890", "12345", "1", "2", "3"} {
		// Neighbours in the key order must never be seen.
		for _, room := range []string{"r", "q", "r0", "ra"} {
			m.Apply(s, 1, [][]byte{say(ID{"a", room}, "u", string(rune('a'+i)), content).Append(nil)})
		}
	}
	for _, c := range []struct {
		after           uint64
		limit, maxBytes int
		want            string
	}{
		{0, 10, 1000, "1234567890 12345 1 2 3"},
		{0, 2, 1000, "1234567890 12345"},
		{0, 10, 15, "1234567890 12345"},
		{0, 10, 14, "1234567890"},
		{0, 10, 0, "1234567890"}, // progress, whatever the bound
		{3, 10, 1000, "2 3"},
		{5, 10, 1000, ""},
		{1<<64 - 1, 10, 1000, ""},
		{0, 0, 1000, ""},
	} {
		if got := string(bytes.Join(Read(s, id, c.after, c.limit, c.maxBytes), []byte(" "))); got != c.want {
			t.Errorf("Read(after %d, limit %d, %d bytes) = %q, want %q", c.after, c.limit, c.maxBytes, got, c.want)
		}
	}
}

func TestListPages(t *testing.T) {
	s, m := newMemory(), NewMachine(Config{Encode: encodeJSON})
	rooms := []string{"a", "a!", "aa", "b", "ä", "~fra/x"}
	for _, app := range []string{"one", "on", "onee"} {
		for _, room := range rooms {
			m.Apply(s, 1, [][]byte{say(ID{app, room}, "u", "1", "").Append(nil)})
		}
	}
	var got []string
	for after := ""; ; {
		page := List(s, "one", after, 2)
		if len(page) == 0 {
			break
		}
		for _, info := range page {
			if info.ID.App != "one" || info.State.Head != 1 {
				t.Errorf("listed %+v", info)
			}
			got = append(got, info.ID.Room)
			after = info.ID.Room
		}
	}
	if want := slices.Sorted(slices.Values(rooms)); !slices.Equal(got, want) {
		t.Errorf("pages hold %q, want %q", got, want)
	}
	var all []ID
	for after := (ID{}); ; after = all[len(all)-1] {
		page := ListAll(s, after, 4)
		if len(page) == 0 {
			break
		}
		for _, info := range page {
			all = append(all, info.ID)
		}
	}
	if want := len(slices.Compact(slices.Clone(all))); len(all) != 3*len(rooms) || want != len(all) {
		t.Errorf("pages of all apps hold %v", all)
	}
	if n := CountRooms(s); n != 3*len(rooms) {
		t.Errorf("CountRooms = %d", n)
	}
}

func TestCheckFindsDamage(t *testing.T) {
	id := ID{"a", "r"}
	build := func() *memory {
		s, m := newMemory(), NewMachine(Config{Encode: encodeJSON})
		m.Apply(s, 1, [][]byte{
			say(id, "u", "1", "x").Append(nil), say(id, "u", "2", "y").Append(nil),
			Command{ID: id, User: "u", ClientMsgID: "3", Kind: Join}.Append(nil),
		})
		return s
	}
	if err := Check(build(), id); err != nil {
		t.Fatal(err)
	}
	for name, harm := range map[string]func(s *memory){
		"event lost":       func(s *memory) { s.Delete(appendEventKey(nil, id, 2)) },
		"last event lost":  func(s *memory) { s.Delete(appendEventKey(nil, id, 3)) },
		"event too many":   func(s *memory) { s.Set(appendEventKey(nil, id, 4), []byte{eventVersion}) },
		"event newer":      func(s *memory) { s.Set(appendEventKey(nil, id, 2), []byte{eventVersion + 1}) },
		"receipt lost":     func(s *memory) { s.Delete(appendReceiptKey(nil, id, "u", "1")) },
		"receipt too many": func(s *memory) { s.Set(appendReceiptKey(nil, id, "u", "4"), Receipt{Seq: 1}.append(nil)) },
		"receipt beyond":   func(s *memory) { s.Set(appendReceiptKey(nil, id, "u", "1"), Receipt{Seq: 9}.append(nil)) },
		"receipt damaged":  func(s *memory) { s.Set(appendReceiptKey(nil, id, "u", "1"), []byte{1, 2}) },
		"member lost":      func(s *memory) { s.Delete(appendMemberKey(nil, id, "u")) },
		"state lost":       func(s *memory) { s.Delete(appendKey(nil, tableState, id)) },
	} {
		s := build()
		harm(s)
		if Check(s, id) == nil {
			t.Errorf("%s: not found", name)
		}
	}
}

// applyOrStop applies commands, and returns the refusal that the machine
// panics with, if it does.
func applyOrStop(m *Machine, s Store, now int64, commands ...[]byte) (results []any, stop *Refusal) {
	defer func() {
		if r := recover(); r != nil {
			stop = r.(*Refusal)
		}
	}()
	return m.Apply(s, now, commands), nil
}

func TestNewerReleaseEndsTheHost(t *testing.T) {
	good := say(ID{"a", "r"}, "u", "1", "x")
	newerFormat := append([]byte{commandVersion + 1}, good.Append(nil)[1:]...)
	newerKind, newerAccess := good, good
	newerKind.Kind, newerAccess.Access = Create+1, Members+1
	for name, c := range map[string]struct {
		state   []byte
		command []byte
	}{
		"state":   {bytes.Repeat([]byte{stateVersion + 1}, stateBytes), good.Append(nil)},
		"command": {nil, newerFormat},
		"large":   {nil, append(newerFormat, make([]byte, commandBytes)...)},
		"kind":    {nil, newerKind.Append(nil)},
		"access":  {nil, newerAccess.Append(nil)},
	} {
		s := newMemory()
		if c.state != nil {
			s.Set(appendKey(nil, tableState, good.ID), c.state)
		}
		_, stop := applyOrStop(NewMachine(Config{Encode: encodeJSON}), s, 1, c.command)
		if !errors.Is(stop, &Refusal{Code: CodeNewerFormat}) {
			t.Errorf("%s: stopped by %v, want newer_format", name, stop)
		}
	}
}
