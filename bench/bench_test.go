package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// TestMain makes the test binary be the bench, whose parts are processes.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && slices.Contains([]string{servePart, sendPart, crowdPart, throngPart}, os.Args[1]) {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestEachSystem measures each system for a moment.
func TestEachSystem(t *testing.T) {
	m := &machine{dir: t.TempDir(), log: io.Discard}
	var err error
	if m.edgeNode, err = buildEdgeNode(t.Context(), m.dir); err != nil {
		t.Fatal(err)
	}
	for _, system := range systemNames() {
		t.Run(system, func(t *testing.T) {
			w := workload{Window: 16, Rooms: 4, Size: 128, Sessions: 3, Seconds: 0.5, WarmUp: 100 * time.Millisecond}
			if hasGroups[system] {
				w.Groups = 2
			}
			r, err := m.turn(t.Context(), system, turn{system, w, 1})
			if err != nil {
				t.Fatal(err)
			}
			t.Log(r)
			wantGroups := map[string]int{jetstreamName: 1, perRoomName: 4, starlingName: 2, raftName: 2}[system]
			if r.Messages == 0 || r.PerS <= 0 || r.P50 <= 0 || r.P99 < r.P50 || r.Groups != wantGroups {
				t.Errorf("%+v", r)
			}
			if runtime.GOOS == "linux" && (r.CPU == nil || *r.CPU <= 0) {
				t.Errorf("no processor time: %+v", r)
			}
			if left, err := os.ReadDir(m.dir); err != nil || len(left) > 1 { // the program
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// TestSlowDisk sees that a disk that is slowed makes acks late, or that the
// row says why it cannot be.
func TestSlowDisk(t *testing.T) {
	m := &machine{dir: t.TempDir(), log: io.Discard}
	w := workload{Window: 1, Rooms: 1, Size: 128, Sessions: 1, Seconds: 0.5, Fsync: 20 * time.Millisecond}
	r, err := m.turn(t.Context(), "slow", turn{raftName, w, 1})
	if err != nil {
		t.Fatal(err)
	}
	_, none := exec.LookPath("strace")
	switch {
	case none != nil && r.Missing == "":
		t.Error("there is no strace, and the row does not say so")
	case none == nil && (r.P50 < 20 || *r.FsyncMs != 20):
		t.Errorf("acks come within %v ms where a sync takes 20: %+v", r.P50, r)
	}
}

// TestFailedTurn sees that the others have their turns, and that the run fails.
func TestFailedTurn(t *testing.T) {
	var out strings.Builder
	broken := filepath.Join(t.TempDir(), "edge-node")
	if err := os.WriteFile(broken, []byte("#!/bin/sh\necho it is out of order >&2\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	o := durableOptions{rounds: 1, peers: []string{starlingName, raftName}, seconds: 0.2, dir: t.TempDir(), edgeNode: broken}
	err := durable(t.Context(), o, &out, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "starling, durable-256: ") || !strings.Contains(err.Error(), "it is out of order") {
		t.Errorf("the run ended with %v", err)
	}
	if text := out.String(); !strings.Contains(text, "missing: ") || !strings.Contains(text, raftName) {
		t.Errorf("table %q", text)
	}
}

// TestSameLoop holds the loop that drives the other systems to that of
// edge-node bench.
func TestSameLoop(t *testing.T) {
	for _, name := range []string{"load.go", "pace.go", "times.go"} {
		ours, err := os.ReadFile(filepath.Join("internal/load", name))
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := os.ReadFile(filepath.Join("../cmd/edge-node/internal/load", name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(ours, theirs) {
			t.Errorf("internal/load/%s differs from cmd/edge-node/internal/load/%s: copy that one here", name, name)
		}
	}
}

func TestTurnsAlternate(t *testing.T) {
	var begin []string
	all := turns(durableOptions{rounds: 4, peers: []string{"a", "b", "c"}})
	for i := 0; i < len(all); i += 3 {
		begin = append(begin, all[i].system)
	}
	if len(all) != 12 || !slices.Equal(begin, []string{"a", "b", "c", "a"}) {
		t.Errorf("%d turns, rounds begin with %v", len(all), begin)
	}
	swept := turns(durableOptions{rounds: 1, peers: systemNames(), sweep: true})
	names := map[string]int{}
	for _, t := range swept {
		names[t.work.Name()]++
	}
	for name, want := range map[string]int{
		"durable-1": 4, "durable-16": 4, "durable-256": 4, "durable-4096": 4,
		"durable-256-groups-256": 2, "durable-256-fsync-5ms": 4,
	} {
		if names[name] != want {
			t.Errorf("%d turns of %s, want %d", names[name], name, want)
		}
	}
}

func TestTable(t *testing.T) {
	var rows []row
	for i, rate := range []float64{300, 100, 200} {
		cpu, fsync := float64(i), 0.0
		rows = append(rows, row{System: "a", Workload: "w", PerS: rate, P50: rate / 100, P99: 5, CPU: &cpu, FsyncMs: &fsync, Groups: 4})
	}
	rows = append(rows, row{System: "b", Workload: "w", Missing: "no strace"})
	rows = append(rows, row{System: "b", Workload: "w", PerS: 50})
	var out strings.Builder
	if err := printTable(&out, durableColumns, rows); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	if got := strings.Fields(lines[1]); !slices.Equal(got, []string{"w", "a", "200", "100..300", "2.00", "5.00", "1.00", "-", "-", "3"}) {
		t.Errorf("line %q", got)
	}
	if !strings.HasSuffix(lines[2], "1") || !strings.Contains(lines[3], "missing: no strace") || len(lines) != 5 {
		t.Errorf("table %q", out.String())
	}
	b, err := json.Marshal(rows[0])
	for _, key := range []string{"system", "workload", "round", "per_s", "p50_ms", "p99_ms", "cpu_s_per_100k", "fsync_delay_ms", "groups"} {
		if err != nil || !strings.Contains(string(b), `"`+key+`":`) {
			t.Errorf("%s has no %s", b, key)
		}
	}
	back := 1.0
	b, err = json.Marshal(row{System: "a", Workload: kindReconnect, relayFigures: relayFigures{BackS: &back}})
	if want := `{"system":"a","workload":"reconnect","round":0,"back_s":1}`; err != nil || string(b) != want {
		t.Errorf("%s, %v, want what it has: %s", b, err, want)
	}
}

func TestRefuses(t *testing.T) {
	for args, says := range map[string]string{
		"durable --peers nobody":  `"nobody"`,
		"durable --rounds 0":      "--rounds is 0",
		"durable --seconds NaN":   "--seconds is NaN",
		"durable --warm-up -1s":   "--warm-up is -1s",
		"durable extra":           "extra",
		"serve jetstream":         "not to be called",
		"durable --dir /dev/null": "/dev/null",
	} {
		cmd := root()
		cmd.SetArgs(strings.Fields(args))
		cmd.SetIn(strings.NewReader(""))
		if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", args, err, says)
		}
	}
}

// TestRaftStore sees that a group finds its own log again, and only that.
func TestRaftStore(t *testing.T) {
	db, err := openRaftStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	one, two := &groupStore{db, 1}, &groupStore{db, 2}
	var logs []*raft.Log
	for i := uint64(1); i <= 10; i++ {
		logs = append(logs, &raft.Log{Index: i, Term: 7, Type: raft.LogCommand, Data: []byte{byte(i)}, AppendedAt: time.Unix(0, 5)})
	}
	if err := one.StoreLogs(logs); err != nil {
		t.Fatal(err)
	}
	if err := one.DeleteRange(1, 3); err != nil {
		t.Fatal(err)
	}
	first, err1 := one.FirstIndex()
	last, err2 := one.LastIndex()
	none, err3 := two.LastIndex()
	if first != 4 || last != 10 || none != 0 || err1 != nil || err2 != nil || err3 != nil {
		t.Errorf("log from %d to %d, the other to %d", first, last, none)
	}
	var l raft.Log
	if err := one.GetLog(5, &l); err != nil || l.Term != 7 || !bytes.Equal(l.Data, []byte{5}) || !l.AppendedAt.Equal(time.Unix(0, 5)) {
		t.Errorf("entry 5 is %+v, %v", l, err)
	}
	if err := two.GetLog(5, &l); err != raft.ErrLogNotFound {
		t.Errorf("entry 5 of the other: %v", err)
	}
	if err := one.SetUint64([]byte("term"), 9); err != nil {
		t.Fatal(err)
	}
	if term, err := one.GetUint64([]byte("term")); term != 9 || err != nil {
		t.Errorf("term %d, %v", term, err)
	}
	if _, err := two.GetUint64([]byte("term")); err == nil || err.Error() != "not found" {
		t.Errorf("an absent value: %v", err)
	}
}
