package oracle

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"golang.org/x/tools/txtar"
)

// TestRules reads histories and what must be found in them: each rule is
// broken at least once, and a sound history passes.
func TestRules(t *testing.T) {
	archive, err := txtar.ParseFile("testdata/rules.txtar")
	if err != nil {
		t.Fatal(err)
	}
	broken := map[Rule]bool{}
	for i := 0; i+1 < len(archive.Files); i += 2 {
		name, _ := strings.CutSuffix(archive.Files[i].Name, ".history")
		t.Run(name, func(t *testing.T) {
			if want := name + ".want"; archive.Files[i+1].Name != want {
				t.Fatalf("%s follows, not %s", archive.Files[i+1].Name, want)
			}
			var h History
			if err := h.Decode(bytes.NewReader(archive.Files[i].Data)); err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for _, f := range Check(&h) {
				fmt.Fprintln(&got, f)
				broken[f.Rule] = broken[f.Rule] || !f.Undecided
			}
			if want := string(archive.Files[i+1].Data); got.String() != want {
				t.Errorf("found\n%swant\n%s", got.String(), want)
			}
		})
	}
	for rule := Stored; rule <= SameState; rule++ {
		if !broken[rule] {
			t.Errorf("no history breaks the rule %v", rule)
		}
	}
}

func TestEncodeAndDecode(t *testing.T) {
	archive, err := txtar.ParseFile("testdata/rules.txtar")
	if err != nil {
		t.Fatal(err)
	}
	var h, again History
	var b bytes.Buffer
	for _, err := range []error{h.Decode(bytes.NewReader(archive.Files[0].Data)), h.Encode(&b), again.Decode(&b)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(h.Sends) == 0 || !reflect.DeepEqual(h, again) {
		t.Errorf("%+v\nbecame\n%+v", h, again)
	}
	for text, want := range map[string]string{
		`{"send":{"room":"x","id":"1","outcome":"lost"}}`:  `record 1: a send ends`,
		"{\"state\":{}}\n{}":                               `record 2: 0 records`,
		`{"seen":{"observer":"x","sequence":1}}`:           `record 1: json: unknown field`,
		`{"seen":{"observer":"x"},"read":{"observer":""}}`: `record 1: 2 records`,
		`{"seen":`: `record 1: unexpected EOF`,
	} {
		if err := new(History).Decode(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// Acks and exports are what processes leave behind.
func TestAcksAndExports(t *testing.T) {
	const acks = `{"room":"lobby","client_msg_id":"a1","seq":1}
{"room":"lobby","client_msg_id":"a2","seq":2}
{"room":"lobby","client_ms
{"room":"lobby","client_msg_id":"a3","seq":3}
{"room":"lob`
	const export = `{"room":"lobby","seq":1,"user":"u","text":"x","client_msg_id":"a1"}
{"room":"lobby","seq":2,"user":"u","text":"x","client_msg_id":"b2"}
`
	var h History
	if err := h.AddAcks(strings.NewReader(acks)); err != nil || len(h.Sends) != 3 {
		t.Fatalf("%d acks, %v", len(h.Sends), err)
	}
	if err := h.AddExport("export", "lobby", strings.NewReader(export)); err != nil {
		t.Fatal(err)
	}
	found := fmt.Sprint(Check(&h, Stored))
	if want := "[stored: room lobby: a2 was acked with seq 2, where export read b2 stored: room lobby: a3 was acked with seq 3, and is not in what export read up to 2]"; found != want {
		t.Errorf("found %s, want %s", found, want)
	}
	if err := h.AddExport("export", "lobby", strings.NewReader(`{"room":`)); err == nil {
		t.Error("an export that was cut short is taken")
	}
}

// TestRealTimeAgreesWithPorcupine compares the rule with a general checker of
// linearizability, on small histories that are sound or nearly so.
func TestRealTimeAgreesWithPorcupine(t *testing.T) {
	sound, refused := 0, 0
	for seed := range uint64(3000) {
		h := chance(rand.New(rand.NewPCG(seed, 0)))
		found := Check(h, RealTime)
		want := porcupine.CheckOperationsTimeout(model, operations(h), 10*time.Second)
		if want == porcupine.Unknown {
			t.Fatalf("seed %d: porcupine takes too long", seed)
		}
		if (len(found) == 0) != (want == porcupine.Ok) {
			t.Errorf("seed %d: porcupine says %v, the rule finds %v in %+v", seed, want, found, h)
		}
		if want == porcupine.Ok {
			sound++
		} else {
			refused++
		}
	}
	if sound < 300 || refused < 300 {
		t.Errorf("%d sound histories and %d others: the test proves little", sound, refused)
	}
}

// chance makes a history of a room: operations that take effect one after the
// other, some of which then are said to have taken place a little earlier or later.
func chance(r *rand.Rand) *History {
	h := new(History)
	head := uint64(0)
	for i := range 3 + r.IntN(8) {
		at := int64(100 + 10*i)
		call, ret := at-int64(r.IntN(25)), at+int64(r.IntN(25))
		if r.IntN(4) == 0 {
			shift := int64(r.IntN(120) - 60)
			call, ret = call+shift, ret+shift
		}
		if r.IntN(3) == 0 {
			h.add(Read{Observer: "reader", Room: "x", Head: head, Call: call, Return: ret, Linearizable: true})
			continue
		}
		head++
		s := Send{Room: "x", ID: fmt.Sprint(head), Call: call, Return: ret, Outcome: Acked, Seq: head}
		if r.IntN(4) == 0 {
			s.Outcome, s.Seq, s.Return = Unknown, 0, 0
		}
		h.add(s)
		h.add(Seen{Observer: "export", Room: "x", Seq: head, ID: s.ID})
	}
	return h
}

// model is a log of which only the length is looked at.
var model = porcupine.Model{
	Init: func() any { return uint64(0) },
	Step: func(state, input, output any) (bool, any) {
		head, n := state.(uint64), output.(uint64)
		if input == "read" {
			return n == head, head
		}
		return n == head+1, head + 1
	},
}

func operations(h *History) (ops []porcupine.Operation) {
	for i, e := range h.Seen { // the sends in the order of their seqs
		s := h.Sends[i]
		if s.Return == 0 {
			s.Return = 1 << 60
		}
		ops = append(ops, porcupine.Operation{Input: "append", Output: e.Seq, Call: s.Call, Return: s.Return})
	}
	for _, r := range h.Reads {
		ops = append(ops, porcupine.Operation{Input: "read", Output: r.Head, Call: r.Call, Return: r.Return})
	}
	return ops
}

// A long history is judged in seconds, and one flaw in it is found.
func TestManyRecords(t *testing.T) {
	n := 200_000
	if os.Getenv("STARLING_LONG") != "" {
		n = 1_000_000
	}
	h := new(History)
	for i := range n / 4 {
		room, seq := fmt.Sprint("room-", i%20), uint64(i/20+1)
		s := Send{Room: room, User: "u", Device: "d", ID: fmt.Sprint(i), Hash: 1, N: i + 1, Call: int64(10 * i), Return: int64(10*i + 500), Outcome: Acked, Seq: seq}
		h.add(s)
		for _, o := range []string{"fra", "iad", "export"} {
			h.add(Seen{Observer: o, Room: room, Seq: seq, User: "u", ID: s.ID, Hash: 1, At: s.Return})
		}
	}
	for i := range 20 {
		h.add(Read{Observer: "export", Room: fmt.Sprint("room-", i), Head: uint64(n / 80), Call: int64(100 * n), Return: int64(100*n + 1), Linearizable: true, Complete: true})
	}
	began := time.Now()
	if found := Check(h); len(found) > 0 {
		t.Errorf("found %v", found)
	}
	t.Logf("%d records in %v", n, time.Since(began))
	h.Seen[n/2].Hash = 2
	for _, rule := range []Rule{OneOrder, NoInvention} {
		if found := Check(h, rule); len(found) == 0 {
			t.Errorf("%v: one flaw among %d records is not found", rule, n)
		}
	}
}
