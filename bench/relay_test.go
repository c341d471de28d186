package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestEachPeer measures each system and workload for a moment.
func TestEachPeer(t *testing.T) {
	edgeNode, err := buildEdgeNode(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, system := range peerNames() {
		t.Run(system, func(t *testing.T) {
			t.Parallel() // most of the time they wait
			m := &machine{dir: t.TempDir(), edgeNode: edgeNode, log: io.Discard}
			for _, kind := range []string{kindIdle, kindFanout, kindRooms, kindReconnect} {
				if system == starlingQUICName && kind == kindReconnect {
					continue // a quiet client over QUIC may need 15 s to notice
				}
				t.Run(kind, func(t *testing.T) { peerTurn(t, m, system, kind) })
			}
		})
	}
}

func peerTurn(t *testing.T, m *machine, system, kind string) {
	o := relayOptions{kind: kind, clients: 12, window: 16, size: 64, seconds: 0.3, warmUp: 50 * time.Millisecond}
	rows, err := m.relayTurn(t.Context(), kind, system, o.work())
	if (system == mosquittoName || system == ejabberdName) && errors.Is(err, errMissing) {
		mayBeMissing(t, system, kind)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		r.System = system
		t.Log(r)
		checkRow(t, kind, r)
	}
	if left, err := os.ReadDir(m.dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// mayBeMissing sees that a run goes on where a system of Debian's is not
// installed, and says so.
func mayBeMissing(t *testing.T, system, kind string) {
	var out strings.Builder
	o := relayOptions{kind: kind, rounds: 1, peers: []string{system}, clients: 1, window: 1, size: 64, seconds: 0.1, dir: t.TempDir(), json: true}
	if err := relay(t.Context(), o, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	var r row
	if err := json.Unmarshal([]byte(out.String()), &r); err != nil || !strings.Contains(r.Missing, "not installed") {
		t.Errorf("row %q, %v", out.String(), err)
	}
}

// checkRow sees that a row has what its kind has.
func checkRow(t *testing.T, kind string, r row) {
	t.Helper()
	linux := runtime.GOOS == "linux"
	bad := r.Limits == "" || r.Missing != ""
	switch kind {
	case kindIdle:
		bad = bad || linux && r.KiBPerConn == nil
	case kindReconnect:
		bad = bad || r.BackS == nil || *r.BackS <= 0 || r.Lost == nil || *r.Lost < 0 || r.Deliveries == 0
		bad = bad || r.System == starlingWSName && *r.Lost+*r.Repeated > 0
	default:
		bad = bad || r.Deliveries == 0 || r.DeliveriesPerS <= 0 || r.P50 <= 0 || r.P99 < r.P50 || r.Lost == nil || *r.Lost != 0
		bad = bad || linux && (r.CPUPerM == nil || r.ClientCPUPerM == nil)
	}
	if bad {
		b, _ := json.Marshal(r)
		t.Errorf("%s", b)
	}
}

// TestOrderIsChecked sees that a follower does not take what it had before,
// and counts what it misses.
func TestOrderIsChecked(t *testing.T) {
	var failed error
	c := &crowd{
		began: time.Now(), tokens: make(chan struct{}, 4), fail: func(err error) { failed = err },
	}
	r := &crowdRoom{members: 1, pending: make([]atomic.Int32, 4)}
	c.rooms = []*crowdRoom{r}
	f := &follower{crowd: c, name: "user0", next: []uint64{1}}
	say := func(number uint64) { f.message(stamp{number: number}.write(64), 0) }
	for i := range r.pending {
		r.pending[i].Store(1)
	}
	say(1)
	say(3)
	if failed != nil || c.lost.Load() != 1 || f.got.Load() != 2 || len(c.tokens) != 3 {
		t.Errorf("%v, %d lost, %d got, %d places", failed, c.lost.Load(), f.got.Load(), len(c.tokens))
	}
	say(3)
	if failed == nil || !strings.Contains(failed.Error(), "message 3 of room 0 after message 3") {
		t.Errorf("a message that comes twice: %v", failed)
	}
	failed = nil
	f.message([]byte("what nobody has said so far"), 0)
	if !errors.Is(failed, errStamp) {
		t.Errorf("another message: %v", failed)
	}
}

func TestStamp(t *testing.T) {
	want := stamp{room: 199, number: 1 << 30, sent: 3 * time.Hour}
	for _, size := range []int{0, stampBytes, 128} {
		b := want.write(size)
		got, err := readStamp(b)
		if err != nil || got != want || len(b) != max(size, stampBytes) {
			t.Errorf("%d bytes, %+v, %v", len(b), got, err)
		}
		for _, c := range b {
			if c < ' ' || c > '~' {
				t.Fatalf("%q is no text", b)
			}
		}
	}
	if _, err := readStamp([]byte("short")); !errors.Is(err, errStamp) {
		t.Error(err)
	}
}

// TestWork holds the workloads to what they are said to be.
func TestWork(t *testing.T) {
	o := relayOptions{kind: kindRooms, clients: 1000, window: 1}
	w := o.work()
	members := w.members()
	least, most := len(members[0]), 0
	for _, m := range members {
		least, most = min(least, len(m)), max(most, len(m))
		if sorted := slices.Sorted(slices.Values(m)); len(slices.Compact(sorted)) != len(m) {
			t.Fatal("a member is in a room twice")
		}
	}
	if len(members) != manyRooms || least < leastInRoom || most > mostInRoom || most-least < 40 {
		t.Errorf("%d rooms of %d to %d", len(members), least, most)
	}
	again := fmt.Sprint(w.members())
	if again != fmt.Sprint(members) {
		t.Error("two systems get different rooms")
	}
	dice := rand.New(rand.NewPCG(1, 1))
	var sizes []int
	for range 10_000 {
		sizes = append(sizes, w.size(dice))
	}
	slices.Sort(sizes)
	if median, long := sizes[5000], sizes[9900]; median < 40 || median > 60 || long < 200 {
		t.Errorf("messages of %d bytes, one in a hundred of %d", median, long)
	}
	o = relayOptions{kind: kindFanout, clients: 7, window: 1, size: 128}
	if w = o.work(); len(w.members()) != 1 || w.meanMembers() != 7 || w.size(dice) != 128 {
		t.Errorf("%+v", w)
	}
}

func TestRelayTable(t *testing.T) {
	var rows []row
	for i, rate := range []float64{300, 100, 200} {
		cpu, lost := float64(i), 0
		r := row{System: "a", Workload: "fanout-max"}
		r.DeliveriesPerS, r.CPUPerM, r.Lost = rate, &cpu, &lost
		rows = append(rows, r)
	}
	rows = append(rows, row{System: "b", Workload: kindFanout, Missing: "it is not installed"})
	var out strings.Builder
	if err := printTable(&out, deliveryColumns, rows); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	if got := strings.Fields(lines[1]); !slices.Equal(got, []string{"fanout-max", "a", "200", "100..300", "1.00", "-", "0.00", "0.00", "0", "3"}) {
		t.Errorf("line %q", got)
	}
	if !strings.Contains(lines[2], "missing: it is not installed") || len(lines) != 4 {
		t.Errorf("table %q", out.String())
	}
}

func TestRelayRefuses(t *testing.T) {
	for args, says := range map[string]string{
		"idle --peers nobody":         `"nobody"`,
		"fanout --rounds 0":           "--rounds is 0",
		"fanout --window 0":           "--window is 0",
		"fanout --size 3":             "--size is 3",
		"rooms --clients 0":           "--clients is 0",
		"idle --seconds NaN":          "--seconds is NaN",
		"reconnect --seconds 3":       "--seconds",
		"crowd":                       "not to be called",
		"rooms extra":                 "extra",
		"fanout --warm-up -1s":        "--warm-up is -1s",
		"reconnect --dir /dev/null":   "/dev/null",
		"serve " + natsName:           "not to be called",
		"idle --rounds 1000 --json":   "--rounds is 1000",
		"reconnect --clients 1000000": "--clients is 1000000",
	} {
		cmd := root()
		cmd.SetArgs(strings.Fields(args))
		cmd.SetIn(strings.NewReader(""))
		if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", args, err, says)
		}
	}
}
