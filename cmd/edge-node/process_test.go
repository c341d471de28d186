package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/cmd/edge-node/internal/home"
)

func records(t *testing.T, path string) []record {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return lines[record](t, string(b))
}

// TestMesh is a day with a mesh: a chat between two regions, a replay during
// which a node is killed, and an export, in order and byte for byte.
func TestMesh(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Log("children outlive a killed dev here; the test stops them itself")
	}
	home := t.TempDir()
	m := startMesh(t, home, t.TempDir())
	if len(m.Nodes) != 3 || m.App != devApp {
		t.Errorf("dev said %+v", m.ready)
	}
	chatAcross(t, home)
	liveAcross(t, home)
	replayWithKill(t, m)
	exportAsRecorded(t, home)

	waitFor(t, "leader of each of 13 groups, some of which may be going home", func() bool {
		groups := lines[[]starling.GroupInfo](t, output(t, home, "", "groups", "--json"))[0]
		return len(groups) == 13 && !slices.ContainsFunc(groups, func(g starling.GroupInfo) bool { return g.Leader == "" })
	})
	if members := lines[[]starling.MemberInfo](t, output(t, home, "", "members", "--json"))[0]; len(members) != 3 {
		t.Errorf("members: %+v", members)
	}
	changePlaces(t, home)
	if took := m.stop(t); took > 3*time.Second {
		t.Errorf("dev took %v to stop", took)
	}
}

// chatAcross lets bob hear in one region what alice says in another.
func chatAcross(t *testing.T, home string) {
	bob := program(t, home, "chat", "lobby", "--as", "bob", "--region", "sin", "--json")
	in, err := bob.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := bob.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := bob.Start(); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in, "I am here")
	heard := bufio.NewReader(out)
	if line, err := heard.ReadString('\n'); err != nil || !strings.Contains(line, `"text":"I am here"`) {
		t.Fatalf("bob hears %q of himself: %v", line, err)
	}
	said := output(t, home, "hello, \x1b[1mбоб\n/me waves\n", "chat", "lobby", "--as", "alice", "--region", "fra")
	if want := "alice: hello, �[1mбоб\n"; !strings.Contains(said, want) || !strings.Contains(said, "* alice waves\n") {
		t.Errorf("alice sees %q", said)
	}
	for _, want := range []string{`"seq":2,"user":"alice","kind":"message","text":"hello, \u001b[1mбоб"`, `"seq":3,"user":"alice","kind":"action","text":"waves"`} {
		if line, err := heard.ReadString('\n'); err != nil || !strings.Contains(line, want) {
			t.Errorf("bob hears %q (%v), want %s", line, err, want)
		}
	}
	in.Close()
	if err := bob.Wait(); err != nil {
		t.Errorf("bob: %v", err)
	}
}

// liveAcross lets bob hear in one region what alice says live in another, which has no place
// in the room: what is sent after it has the next seq. He hears himself first, so that he is there.
func liveAcross(t *testing.T, home string) {
	bob := program(t, home, "chat", "final", "--as", "bob", "--region", "sin", "--live", "--json", "--transport", "websocket")
	in, err := bob.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := bob.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := bob.Start(); err != nil {
		t.Fatal(err)
	}
	heard := bufio.NewReader(out)
	hears := func(want string) {
		t.Helper()
		if line, err := heard.ReadString('\n'); err != nil || !strings.Contains(line, want) {
			t.Errorf("bob hears %q (%v), want %s", line, err, want)
		}
	}
	fmt.Fprintln(in, "/join")
	hears(`"seq":1,"user":"bob","kind":"join"`)
	fmt.Fprintln(in, "hi")
	hears(`{"room":"final","live":true,"user":"bob","text":"hi","ts":`)
	output(t, home, "goal!\n", "chat", "final", "--as", "alice", "--region", "fra", "--live")
	hears(`{"room":"final","live":true,"user":"alice","text":"goal!","ts":`)
	said := output(t, home, "what a game\n", "chat", "final", "--as", "alice", "--region", "fra")
	if !strings.Contains(said, "     2  alice: what a game\n") {
		t.Errorf("alice sees %q", said)
	}
	hears(`"seq":2,"user":"alice","kind":"message","text":"what a game"`)
	in.Close()
	if err := bob.Wait(); err != nil {
		t.Errorf("bob: %v", err)
	}
}

// replayWithKill replays the sample while a node is killed and comes back.
func replayWithKill(t *testing.T, m *devMesh, flags ...string) {
	t.Helper()
	cmd := program(t, m.home, append([]string{"replay", sample, "--in-order", "--rate", "100", "--json"}, flags...)...)
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(time.Second, func() { killNode(t, m.Nodes[0].PID) })
	defer kill.Stop()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("replay: %v\n%s", err, out.String())
	}
	s := lines[summary](t, out.String())[0]
	if s.Messages != 300 || s.Acked != 300 || s.Events != 300 || len(s.Regions) != 3 || len(s.Anomalies()) > 0 {
		t.Errorf("replay: %+v", s)
	}
}

// exportAsRecorded compares an export with the file that was replayed.
func exportAsRecorded(t *testing.T, home string) {
	want := records(t, sample)
	for i, e := range lines[exportedEvent](t, output(t, home, "", "export", "#ubuntu", "--json")) {
		got := record{e.Room, e.User, e.Kind, e.Text}
		if i >= len(want) || e.Seq != uint64(i+1) || got != want[i] {
			t.Fatalf("event %d is %+v", i, e)
		}
		if i == len(want)-1 {
			return
		}
	}
	t.Error("the export is too short")
}

// TestAllKilled kills every process in the middle of a replay and starts the
// mesh again on its data, at other ports: what was acked is there, and the
// same run completes.
func TestAllKilled(t *testing.T) {
	if runtime.GOOS != "linux" {
		return // elsewhere children outlive a killed dev
	}
	t.Parallel()
	home, data := t.TempDir(), t.TempDir()
	acks := filepath.Join(t.TempDir(), "acks.jsonl")
	m := startMesh(t, home, data)
	args := []string{"replay", sample, "--run", "r", "--acks", acks, "--json", "--window", "8"}
	first := program(t, home, append(args, "--rate", "100")...)
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "some acks", func() bool { b, _ := os.ReadFile(acks); return bytes.Count(b, []byte("\n")) > 50 })
	m.kill()
	_ = first.Process.Kill()
	_ = first.Wait()

	m = startMesh(t, home, data)
	n := checkAcks(t, home, acks)
	s := lines[summary](t, output(t, home, "", args...))[0]
	if s.Acked != 300 || s.Events != 300 || s.Before < n || len(s.Anomalies()) > 0 {
		t.Errorf("after %d acks the same run: %+v", n, s)
	}
	checkAcks(t, home, acks)
	second := program(t, home, "dev", "--data", data, "--context", "second")
	var says bytes.Buffer
	second.Stderr = &says
	if err := second.Run(); err == nil || !strings.Contains(says.String(), "in use by another edge-node") {
		t.Errorf("a second dev on the same data: %v, %s", err, says.String())
	}
	m.stop(t)
}

// checkAcks looks each acked message up in the export and returns how many
// there were.
func checkAcks(t *testing.T, home, path string) int {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := make(map[string][]uint64)
	for _, e := range lines[exportedEvent](t, output(t, home, "", "export", "#ubuntu", "--json")) {
		at[e.ID] = append(at[e.ID], e.Seq)
	}
	acks := lines[exportedEvent](t, string(b))
	for _, a := range acks {
		if !slices.Equal(at[a.ID], []uint64{a.Seq}) {
			t.Errorf("%s was acked with seq %d and is at %d", a.ID, a.Seq, at[a.ID])
		}
	}
	return len(acks)
}

// waitFor polls until ok, for things that say nothing when they happen. What takes long
// to look at, such as what a command prints, is looked at less often: those who look
// must not keep the processors from those they wait for.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for began := time.Now(); ; {
		looked := time.Now()
		if ok() {
			return
		}
		if time.Since(began) > time.Minute {
			t.Fatal("no " + what)
		}
		time.Sleep(min(max(10*time.Millisecond, 4*time.Since(looked)), 200*time.Millisecond))
	}
}

// TestDevInProcess is the newcomer's start, with what can go wrong.
func TestDevInProcess(t *testing.T) {
	home := t.TempDir()
	t.Setenv("STARLING_HOME", home)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	out, in := io.Pipe()
	var status int
	var dev sync.WaitGroup
	dev.Go(func() {
		status = run(ctx, []string{"dev", "--json", "--regions", "fra,iad", "--limits", "production"}, nil, in, testLog{t, "dev"})
		in.Close()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("dev said %q: %v", line, err)
	}
	first := lines[ready](t, line)[0]
	_, port, _ := strings.Cut(first.Nodes[0].QUIC, ":")

	var b bytes.Buffer
	if code := run(ctx, []string{"dev"}, nil, &b, &b); code != exitFailed || !strings.Contains(b.String(), `context "default" is running`) {
		t.Errorf("a second dev: status %d, %s", code, b.String())
	}
	b.Reset()
	if code := run(ctx, []string{"dev", "--context", "other", "--port", port}, nil, &b, &b); code != exitFailed || !strings.Contains(b.String(), "port in use") {
		t.Errorf("a port in use: status %d, %s", code, b.String())
	}
	b.Reset()
	bad := []string{"replay", sample, "--token", "nonsense"}
	if code := run(ctx, bad, nil, &b, &b); code != exitFailed || !strings.Contains(b.String(), "unauthenticated") {
		t.Errorf("a wrong token: status %d, %s", code, b.String())
	}
	b.Reset()
	long := strings.Repeat("x", 40<<10)
	if code := run(ctx, []string{"chat", "r", "--as", "a"}, strings.NewReader("one\n"+long+"\nthree\n"), &b, &b); code != exitFailed ||
		!strings.Contains(b.String(), "line 2: too_large") || !strings.Contains(b.String(), "a: three") {
		t.Errorf("a line too long: status %d, %s", code, b.String())
	}
	demoTokenIsTaken(t, first.Context)
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"replay", empty}, exitOK, "has no records"},
		{[]string{"replay", sample, "--room", "nosuch"}, exitOK, `no record of the rooms ["nosuch"]`},
		{[]string{"replay", t.TempDir()}, exitFailed, "is a folder"},
		{[]string{"replay", sample, "--region", "nowhere"}, exitFailed, `no region "nowhere"; it has fra, iad`},
		{[]string{"chat", "r", "--region", "nowhere"}, exitFailed, `no region "nowhere"; it has fra, iad`},
		{[]string{"__complete", "chat", "r", "--region", ""}, exitOK, "fra\niad\n"},
		{[]string{"__complete", "rooms", "--app", ""}, exitOK, "demo\nstarling\n"},
		{[]string{"__complete", "export", ""}, exitOK, "r\n"},
		{[]string{"__complete", "chat", ""}, exitOK, "r\n"},
		{[]string{"__complete", "trace", ""}, exitOK, "r\n"},
		{[]string{"chat", "r", "--app", "nope"}, exitFailed, `no key of app "nope", only of demo, starling: name one of these, or pass --token`},
		{[]string{"chat", "r", "--token", strings.TrimSpace(output(t, home, "", "token", "alice")), "--as", "bob"}, exitUsage, "contradict"},
	} {
		b.Reset()
		if code := run(ctx, tt.args, nil, &b, &b); code != tt.status || !strings.Contains(b.String(), tt.says) || strings.Contains(b.String(), "DELIVERED") {
			t.Errorf("%q: status %d, %s", tt.args, code, b.String())
		}
	}
	if token := output(t, home, "", "token", "alice"); strings.Count(token, ".") != 2 {
		t.Errorf("token is %q", token)
	}
	noGrant := strings.TrimSpace(output(t, home, "", "token", "alice"))
	b.Reset()
	if code := run(ctx, []string{"replay", sample, "--token", noGrant}, nil, &b, &b); code != exitFailed || !strings.Contains(b.String(), "forbidden") {
		t.Errorf("no grant: status %d, %s", code, b.String())
	}
	stop()
	dev.Wait()
	if status != exitOK {
		t.Errorf("dev ended with status %d", status)
	}
	if _, err := os.Stat(first.Context); !os.IsNotExist(err) {
		t.Errorf("the context of a mesh without data stays: %v", err)
	}
}

// demoTokenIsTaken comes to a mesh with a token that dev printed for it.
func demoTokenIsTaken(t *testing.T, mesh string) {
	t.Helper()
	of, err := home.Load("", mesh)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if code := run(t.Context(), []string{"chat", "r", "--token", of.Tokens["alice"]}, strings.NewReader("let me in\n"), &b, &b); code != exitOK || !strings.Contains(b.String(), "alice: let me in") {
		t.Errorf("the token that dev made: status %d, %s", code, b.String())
	}
}
