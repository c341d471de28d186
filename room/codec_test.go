package room

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

var goldenCommand = Command{
	ID: ID{"acme", "#ubuntu"}, User: "alice", ClientMsgID: "m-1",
	Kind: Message, Type: "text", Content: "héllo 👋", Access: Open,
}

const goldenTrace = "0123456789abcdef"

// These bytes are in logs and on disks: if this test fails, a format has
// changed, and needs a new version.
func TestFormats(t *testing.T) {
	s, m := newMemory(), NewMachine(Config{Encode: func(e *Event) []byte { return []byte(e.MsgID) }})
	results := m.Apply(s, 1_700_000_000_000, [][]byte{
		goldenCommand.Append(nil),
		Command{ID: goldenCommand.ID, User: "bob", ClientMsgID: "b", Kind: Join}.Append(nil),
	})
	if r := results[1].(Result); r.Refusal != nil {
		t.Fatal(r.Refusal)
	}
	id := goldenCommand.ID
	placed := goldenCommand
	placed.Placement = 7
	traced := placed
	traced.Trace = goldenTrace
	elsewhere := Command{ID: ID{"acme", "r"}, Kind: Elsewhere, Placement: 7, Group: 9}
	m.Apply(s, 1_700_000_000_001, [][]byte{elsewhere.Append(nil), Command{ID: id, Kind: Claim, Placement: 7}.Append(nil)})
	get := func(key []byte) []byte {
		v, ok := s.Get(key)
		if !ok {
			t.Errorf("no value for key %x", key)
		}
		return bytes.Clone(v)
	}
	for _, c := range []struct {
		name string
		got  []byte
		want string
	}{
		{"command", goldenCommand.Append(nil), "0101010461636d6507237562756e747505616c696365036d2d3104746578740b68c3a96c6c6f20f09f918b"},
		{"placed command", placed.Append(nil), "0201010000000000000007000000000461636d6507237562756e747505616c696365036d2d3104746578740b68c3a96c6c6f20f09f918b"},
		{"traced command", traced.Append(nil), "030101" + "0000000000000007" + "00000000" + "30313233343536373839616263646566" + "0461636d6507237562756e747505616c696365036d2d3104746578740b68c3a96c6c6f20f09f918b"},
		{"claim", Command{ID: id, Kind: Claim, Placement: 7}.Append(nil), "0280000000000000000007000000000461636d6507237562756e747500000000"},
		{"elsewhere", elsewhere.Append(nil), "0281000000000000000007000000090461636d650172000000" + "00"},
		{"placement", get([]byte{tablePlacement}), "0100000000000000070000000000000001"},
		{"moved", get(appendKey(nil, tableMoved, elsewhere.ID)), "0100000009"},
		{"moved key", appendKey(nil, tableMoved, elsewhere.ID), "7061636d65007200"},
		{"state", get(appendKey(nil, tableState, id)), "010100000001000000000000000100000000000000020000018bcfe56800e3a008f9c6bf1483bfefb78981cfbbcac6c3fbf8ef9d9ba71f140fc9679cf003"},
		{"event", get(appendEventKey(nil, id, 2)), "013031484637594154303057454730485945365157413837465a46"},
		{"receipt", get(appendReceiptKey(nil, id, "alice", "m-1")), "010000000000000001018bcfe56800e502433a77608d5859d18bc4e22ddbfc28d5cc24191fd6b95bbf"},
		{"member", get(appendMemberKey(nil, id, "bob")), "010000000000000002"},
		{"count", get([]byte{tableCount}), "010000000000000001"},
		{"event key", appendEventKey(nil, id, 2), "6561636d6500237562756e7475000000000000000002"},
		{"receipt key", appendReceiptKey(nil, id, "alice", "m-1"), "7261636d6500237562756e7475006d2d3100616c696365"},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s is\n%s, was\n%s", c.name, got, c.want)
		}
	}
}

func TestDecodeCommandRefuses(t *testing.T) {
	good := goldenCommand.Append(nil)
	got, err := DecodeCommand(good)
	if err != nil || got != goldenCommand {
		t.Fatalf("DecodeCommand = %+v, %v", got, err)
	}
	for n := range good {
		if _, err := DecodeCommand(good[:n]); !errors.Is(err, &Refusal{Code: CodeBadRequest}) {
			t.Errorf("cut after %d bytes: %v", n, err)
		}
	}
	for name, c := range map[string]struct {
		in   []byte
		code string
	}{
		"trailing":        {append(bytes.Clone(good), 0), CodeBadRequest},
		"newer":           {append([]byte{commandVersion + 1}, good[1:]...), CodeNewerFormat},
		"placed, and not": {append([]byte{2, 1, 1}, append(make([]byte, placedBytes), good[3:]...)...), CodeBadRequest},
		"plain claim":     {append([]byte{1, byte(Claim), 0}, good[3:]...), CodeBadRequest},
		"placed, cut":     {append([]byte{2, 1, 1}, make([]byte, placedBytes-1)...), CodeBadRequest},
		"traced, cut":     {append([]byte{3, 1, 1}, make([]byte, placedBytes+TraceBytes-1)...), CodeBadRequest},
		"a traced claim":  {Command{ID: goldenCommand.ID, Kind: Claim, Placement: 1, Trace: "x"}.Append(nil)[:20], CodeBadRequest},
		"version 0":       {append([]byte{0}, good[1:]...), CodeBadRequest},
		"padded length":   {append([]byte{1, 1, 1, 0x84, 0x00}, good[4:]...), CodeBadRequest},
		"endless":         {[]byte{1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, CodeBadRequest},
		"oversize":        {append(bytes.Clone(good), make([]byte, commandBytes)...), CodeTooLarge},
		"newer, oversize": {append([]byte{commandVersion + 1}, make([]byte, commandBytes)...), CodeNewerFormat},
	} {
		if _, err := DecodeCommand(c.in); !errors.Is(err, &Refusal{Code: c.code}) {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}
}

// Who looks on changes nothing: a traced room is the room without traces, and a retry
// may have another trace or none.
func TestTraceIsNoPartOfTheRoom(t *testing.T) {
	traced := goldenCommand
	traced.Trace = goldenTrace
	var hashes [2][32]byte
	for i, commands := range [][]Command{{goldenCommand, traced}, {traced, goldenCommand}} {
		s, m := newMemory(), NewMachine(Config{Encode: func(e *Event) []byte { return []byte(e.MsgID + e.Trace) }})
		for n, r := range m.Apply(s, 1_700_000_000_000, [][]byte{commands[0].Append(nil), commands[1].Append(nil)}) {
			if r := r.(Result); r.Refusal != nil || r.Ack.Duplicate != (n == 1) {
				t.Errorf("command %d of case %d: %+v", n, i, r)
			}
		}
		if published := m.Take(); len(published) != 1 || string(published[0].Data[26:]) != commands[0].Trace {
			t.Errorf("published %+v", published)
		}
		hashes[i] = Hash(s)
	}
	if hashes[0] != hashes[1] {
		t.Error("the trace is in the hash of the room")
	}
}

// Whether a command is traced is seen without decoding it.
func TestTraceOfACommand(t *testing.T) {
	traced := goldenCommand
	traced.Trace = goldenTrace
	if got := Trace(traced.Append(nil)); string(got) != goldenTrace {
		t.Errorf("Trace = %q", got)
	}
	for _, b := range [][]byte{nil, {tracedVersion}, goldenCommand.Append(nil), Command{ID: goldenCommand.ID, Kind: Claim, Placement: 1}.Append(nil)} {
		if n := testing.AllocsPerRun(100, func() {
			if Trace(b) != nil {
				t.Fatalf("%x is traced", b)
			}
		}); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

func TestLargestCommandFits(t *testing.T) {
	name := strings.Repeat("n", NameBytes)
	c := Command{
		ID: ID{name, strings.Repeat("r", longRoomBytes)}, User: name, ClientMsgID: name, Type: name,
		Kind: Message, Content: strings.Repeat("x", ContentBytes), Access: Open, Placement: 1, Trace: goldenTrace,
	}
	if got, err := DecodeCommand(c.Append(nil)); err != nil || got != c {
		t.Errorf("DecodeCommand: %v", err)
	}
}

func TestValidate(t *testing.T) {
	long := strings.Repeat("é", NameBytes/2)
	for name, c := range map[string]struct {
		edit func(*Command)
		code string
	}{
		"good":             {func(c *Command) {}, ""},
		"longest names":    {func(c *Command) { c.ID.App, c.ID.Room, c.User, c.ClientMsgID, c.Type = long, long, long, long, long }, ""},
		"no type":          {func(c *Command) { c.Type = "" }, ""},
		"no content":       {func(c *Command) { c.Content = "" }, ""},
		"slashes, spaces":  {func(c *Command) { c.ID.Room, c.User = "../a b/~x", "a b" }, ""},
		"content controls": {func(c *Command) { c.Content = "\x00\x02bold\n" }, ""},
		"replacement rune": {func(c *Command) { c.User = "a\ufffd" }, ""},
		"largest content":  {func(c *Command) { c.Content = strings.Repeat("x", ContentBytes) }, ""},

		"no app":              {func(c *Command) { c.ID.App = "" }, CodeBadRequest},
		"no room":             {func(c *Command) { c.ID.Room = "" }, CodeBadRequest},
		"no user":             {func(c *Command) { c.User = "" }, CodeBadRequest},
		"no client_msg_id":    {func(c *Command) { c.ClientMsgID = "" }, CodeBadRequest},
		"long room":           {func(c *Command) { c.ID.Room = long + "x" }, CodeBadRequest},
		"long user":           {func(c *Command) { c.User = long + "x" }, CodeBadRequest},
		"NUL in room":         {func(c *Command) { c.ID.Room = "a\x00b" }, CodeBadRequest},
		"newline in user":     {func(c *Command) { c.User = "a\nb" }, CodeBadRequest},
		"DEL in app":          {func(c *Command) { c.ID.App = "a\x7f" }, CodeBadRequest},
		"C1 in type":          {func(c *Command) { c.Type = "a\u0085" }, CodeBadRequest},
		"broken UTF-8 name":   {func(c *Command) { c.User = "a\xff" }, CodeBadRequest},
		"surrogate in name":   {func(c *Command) { c.User = "\xed\xa0\x80" }, CodeBadRequest},
		"decomposed name":     {func(c *Command) { c.ID.Room = "e\u0301" }, CodeBadRequest},
		"broken UTF-8 text":   {func(c *Command) { c.Content = "a\xc3" }, CodeBadRequest},
		"large content":       {func(c *Command) { c.Content = strings.Repeat("x", ContentBytes+1) }, CodeTooLarge},
		"kind 0":              {func(c *Command) { c.Kind = 0 }, CodeBadRequest},
		"kind 6":              {func(c *Command) { c.Kind = 6 }, CodeBadRequest},
		"traced":              {func(c *Command) { c.Trace = goldenTrace }, ""},
		"short trace":         {func(c *Command) { c.Trace = goldenTrace[1:] }, CodeBadRequest},
		"long trace":          {func(c *Command) { c.Trace = goldenTrace + "0" }, CodeBadRequest},
		"a claim":             {func(c *Command) { *c = Command{ID: c.ID, Kind: Claim, Placement: 1} }, CodeBadRequest},
		"elsewhere":           {func(c *Command) { *c = Command{ID: c.ID, Kind: Elsewhere, Placement: 1, Group: 1} }, CodeBadRequest},
		"a group":             {func(c *Command) { c.Group = 1 }, CodeBadRequest},
		"access 3":            {func(c *Command) { c.Access = 3 }, CodeBadRequest},
		"create for no one":   {func(c *Command) { c.Kind, c.Access = Create, 0 }, CodeBadRequest},
		"create with members": {func(c *Command) { c.Kind, c.Access = Create, Members }, ""},
	} {
		cmd := goldenCommand
		c.edit(&cmd)
		err := cmd.Validate()
		if c.code == "" && err != nil || c.code != "" && !errors.Is(err, &Refusal{Code: c.code}) {
			t.Errorf("%s: %v, want %q", name, err, c.code)
		}
	}
}

func TestMsgIDsSortByTime(t *testing.T) {
	last := ""
	for _, ts := range []int64{0, 1, 31, 32, 1000, 1_700_000_000_000, maxTS} {
		id := newMsgID(ts, [32]byte{byte(ts)})
		if id.TS() != ts {
			t.Errorf("TS = %d, want %d", id.TS(), ts)
		}
		if s := id.String(); len(s) != 26 || s <= last {
			t.Errorf("%s does not follow %s", s, last)
		}
		last = id.String()
	}
	// The example of the ULID specification's 48 + 80 bits, at its greatest.
	var top MsgID
	for i := range top {
		top[i] = 0xff
	}
	if top.String() != "7ZZZZZZZZZZZZZZZZZZZZZZZZZ" {
		t.Errorf("greatest id is %s", top)
	}
}

func FuzzDecodeCommand(f *testing.F) {
	f.Add(goldenCommand.Append(nil))
	f.Add(Command{ID: ID{"a", "b"}, User: "u", ClientMsgID: "1", Kind: Create, Access: Members}.Append(nil))
	f.Add([]byte{3, 0, 0xff})
	f.Add([]byte("\x01\xeb0\x010\x010\x010\x010\x00\x00"))
	f.Add(Command{ID: ID{"a", "b"}, Kind: Claim, Placement: 3}.Append(nil))
	f.Add(Command{ID: ID{"a", "b"}, Kind: Elsewhere, Placement: 3, Group: 2}.Append(nil))
	f.Add(Command{ID: ID{"a", "b"}, User: "u", ClientMsgID: "1", Kind: Message, Access: Open, Placement: 3}.Append(nil))
	f.Add(Command{ID: ID{"a", "b"}, User: "u", ClientMsgID: "1", Kind: Message, Access: Open, Trace: goldenTrace}.Append(nil))
	f.Add(Command{ID: ID{"a", "b"}, User: "u", ClientMsgID: "1", Kind: Create + 1, Access: Members + 1}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeCommand(b)
		if err != nil {
			if !errors.As(err, new(*Refusal)) {
				t.Fatalf("untyped error %v", err)
			}
		} else if again := c.Append(nil); c.newer() == nil && !bytes.Equal(again, b) {
			t.Fatalf("%x decodes to %+v, which encodes to %x", b, c, again)
		}
		s, m := newMemory(), NewMachine(Config{Encode: encodeJSON})
		results, stop := applyOrStop(m, s, 1, b, b)
		if newer := errors.Is(err, &Refusal{Code: CodeNewerFormat}) || err == nil && c.newer() != nil; newer != (stop != nil) {
			t.Fatalf("stopped by %v, newer: %v", stop, newer)
		}
		if stop != nil {
			if len(s.data) > 0 || len(m.Take()) > 0 {
				t.Fatal("stopped too late")
			}
			return
		}
		first := results[0].(Result)
		if err != nil && first.Refusal == nil {
			t.Fatal("applied what cannot be decoded")
		}
		if n := len(m.Take()); (first.Refusal == nil && c.Kind < Claim) != (n == 1) {
			t.Fatalf("%d events", n)
		}
		if err := Check(s, c.ID); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzState(f *testing.F) {
	f.Add(State{Epoch: 1, Head: 2, TS: 3, Access: Members, Members: 1, Digest: [32]byte{9}}.Append(nil))
	f.Add([]byte{2})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeState(b)
		if err != nil {
			if !errors.As(err, new(*Refusal)) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if err := s.Check(); err != nil {
			t.Fatal(err)
		}
		if again := s.Append(nil); !bytes.Equal(again, b) {
			t.Fatalf("%x becomes %x", b, again)
		}
	})
}
