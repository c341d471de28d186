package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/edge"
	"github.com/starling-im/starling/identity"
	"github.com/starling-im/starling/wire"
)

// runHere runs a command in this process and returns all that it writes.
func runHere(t *testing.T, stdin string, args ...string) (out string, status int) {
	t.Helper()
	t.Setenv("STARLING_HOME", t.TempDir())
	var b bytes.Buffer
	status = run(t.Context(), args, strings.NewReader(stdin), &b, &b)
	return b.String(), status
}

func TestExitStatuses(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	someToken := identity.NewToken("starling", "fra", identity.Pin{}).String()
	for _, tt := range []struct {
		args   string
		status int
		says   string
	}{
		{"version", exitOK, "edge-node "},
		{"version --json", exitOK, `"go":`},
		{"--version", exitOK, "edge-node "},
		{"__complete version --log-level ", exitOK, "debug\ninfo\nwarn\nerror\n"},
		{"__complete dev --limits ", exitOK, "bench\nproduction\n"},
		{"__complete run --survive ", exitOK, "region\nnode\nnone\n"},
		{"__complete replay ", exitOK, "jsonl\ngz\n"},
		{"__complete config check ", exitOK, "yaml\nyml\n"},
		{"__complete groups explain ", exitOK, ":4\n"}, // no files
		{"__complete groups replace 1 a ", exitOK, ":4\n"},
		{"__complete monitor --level ", exitOK, "debug\ninfo\nwarn\nerror\n"},
		{"__complete token ", exitOK, ":4\n"},
		{"nosuch", exitUsage, "edge-node: unknown command"},
		{"version --nosuch", exitUsage, "edge-node: unknown flag"},
		{"chta", exitUsage, `unknown command "chta" for "edge-node"; Did you mean this? chat`},
		{"config nosuch", exitUsage, `unknown command "nosuch" for "edge-node config"`},
		{"version extra", exitUsage, `"extra" is one argument too many; usage: edge-node version`},
		{"apps rules put demo x", exitUsage, "REGION is missing; usage: edge-node apps rules put APP PATTERN"},
		{"apps rules delete demo x y", exitUsage, `"y" is one argument too many`},
		{"groups add", exitUsage, "--region is missing"},
		{"groups add --region fra --count 0", exitUsage, "--count is 0, not 1 to 64"},
		{"groups add --region fra --count 65", exitUsage, "--count is 65"},
		{"groups add --region fra --survive all", exitUsage, `--survive is "all", not one of node, region, none`},
		{"apps rules put demo x fra --survive all", exitUsage, "--survive"},
		{"apps rules put demo  fra", exitUsage, `PATTERN is "", no name`},
		{"groups explain x", exitUsage, `GROUP is "x", not a number such as 3; usage: edge-node groups explain GROUP`},
		{"groups recover -- -1", exitUsage, "GROUP"},
		{"groups move-leader 1", exitUsage, "NODE is missing"},
		{"groups replace 1 a", exitUsage, "NEW is missing; usage: edge-node groups replace GROUP {OLD NEW | --cancel}"},
		{"groups replace 1 a b --cancel", exitUsage, `"a" is one argument too many`},
		{"groups replace 1 a b --within -1s", exitUsage, "--within is -1s"},
		{"groups move-leader 1 a", exitFailed, "start a mesh with `edge-node dev`"},
		{"groups replace 1 a b", exitFailed, "start a mesh"},
		{"apps rules list nosuch", exitFailed, "start a mesh"},
		{"members", exitFailed, "start a mesh"},
		{"links", exitFailed, "start a mesh"},
		{"monitor", exitUsage, "which node? Say --data FOLDER"},
		{"monitor --data nowhere --level loud", exitUsage, `--level is "loud", not one of debug, info, warn, error`},
		{"monitor --data nowhere", exitFailed, "no node runs on nowhere"},
		{"links x", exitUsage, "one argument too many"},
		{"completion tcsh", exitUsage, `unknown command "tcsh" for "edge-node completion"`},
		{"export", exitUsage, "ROOM is missing; usage: edge-node export ROOM"},
		{"chat lobby --log-level loud", exitUsage, "--log-level"},
		{"replay f --window 0", exitUsage, "--window"},
		{"replay f --rate 1 --speed 1", exitUsage, "exclude each other"},
		{"dev --regions fra,fra", exitUsage, "twice"},
		{"dev --regions atlantis --wan", exitUsage, "atlantis"},
		{"dev --limits none", exitUsage, "--limits"},
		{"token", exitUsage, "for whom"},
		{"token alice --as bob", exitUsage, "Name one user"},
		{"token alice --expires 25h", exitUsage, "--expires is 25h0m0s"},
		{"token alice --expires -1s", exitUsage, "--expires is -1s"},
		{"rooms", exitFailed, "start a mesh with `edge-node dev`"},
		{"run --config nowhere.yaml", exitFailed, "nowhere.yaml"},
		{"run", exitFailed, "there is no node in the folder data: make a cluster with"},
		{"run --data nowhere --token x", exitUsage, "--token is for a new node: say with --join"},
		{"run --data nowhere --token x --join 127.0.0.1", exitUsage, `--join is "127.0.0.1", not host:port`},
		{"run --data nowhere --token " + someToken + " --join 10.0.0.1:7400", exitUsage, "other machines cannot reach this node at 127.0.0.1:7400"},
		{"run --data nowhere --token " + someToken + " --join 10.0.0.1:7400 --listen 127.0.0.1:1x", exitFailed, "not host:port"},
		{"run --data nowhere --token " + someToken + " --join 127.0.0.1:1 --listen " + taken.Addr().String(), exitFailed, "port in use"},
		{"cluster init nowhere --regions fra --listen 127.0.0.1:99999", exitUsage, "not host:port"},
		{"trace", exitUsage, "ROOM is missing; usage: edge-node trace {ROOM | --id HEX}"},
		{"trace lobby --within 0s", exitUsage, "--within is 0s"},
		{"trace lobby --otlp collector:4318", exitUsage, "--otlp"},
		{"trace lobby --as ", exitUsage, `--as is ""`},
		{"trace lobby --id 0af7651916cd43dd8448eb211c80319c", exitUsage, "one argument too many"},
		{"trace --id 0af7", exitUsage, `--id is "0af7", not 32 hex digits`},
		{"trace --id 0af7651916cd43dd8448eb211c80319c --from sin", exitUsage, "--id and --from exclude each other"},
		{"chat lobby --as ", exitUsage, `--as is ""`},
		{"chat lobby --transport ws", exitUsage, `--transport is "ws", not one of quic, websocket`},
		{"trace lobby", exitFailed, "start a mesh"},
		{"netcheck 127.0.0.1:99999", exitUsage, "not host:port"},
	} {
		out, status := runHere(t, "", words(tt.args)...)
		if status != tt.status || !strings.Contains(out, tt.says) {
			t.Errorf("%q: status %d, output %q; want %d, %q", tt.args, status, out, tt.status, tt.says)
		}
	}
}

func TestRunOnATakenFolder(t *testing.T) {
	dir := t.TempDir()
	l, err := listenAdmin(dir)
	if err != nil {
		t.Fatal(err)
	}
	out, status := runHere(t, "", "run", "--data", dir, "--node", "fra-1")
	if want := "a node runs on the folder " + dir + " already"; status != exitFailed || !strings.Contains(out, want) {
		t.Errorf("status %d, output %q; want %q", status, out, want)
	}
	_ = l.Close()
	if out, _ := runHere(t, "", "run", "--data", dir, "--node", "fra-1"); strings.Contains(out, "already") {
		t.Errorf("after it has ended: %q", out)
	}
}

// words splits a command line at its spaces; a space at the end is before an
// empty word, as when a shell asks for completions.
func words(line string) []string { return strings.Split(line, " ") }

func TestEveryCommandHelps(t *testing.T) {
	for _, c := range new(app).root().Commands() {
		if c.Hidden || c.Name() == "help" {
			continue
		}
		if c.Long == "" || c.Example == "" {
			t.Errorf("%s has no long help or no examples", c.Name())
		}
	}
}

func TestGivenToken(t *testing.T) {
	now := time.Now()
	token, err := edge.Mint(edge.Key{ID: "k", App: "demo", Secret: make([]byte, 32)}, edge.Claims{User: "alice", Expires: now.Add(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		token, user, app string
		at               time.Time
		says             string
	}{
		{token, "", "", now, ""},
		{token, "alice", "demo", now, ""},
		{token, "bob", "", now, "--as and --token contradict"},
		{token, "", "other", now, "--app and --token contradict"},
		{token, "", "", now.Add(time.Minute), "token_expired"},
		{"nonsense", "bob", "x", now, ""}, // the mesh shall judge
		{"", "bob", "", now, ""},
	} {
		if err := readToken(tt.token).check(tt.user, tt.app, tt.at); (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%q as %q of %q: %v, want %q", tt.token, tt.user, tt.app, err, tt.says)
		}
	}
}

func TestReadLine(t *testing.T) {
	long := strings.Repeat("x", wire.Content)
	in := bufio.NewReaderSize(strings.NewReader("a b \n\n"+long+"\n"+long+"yy\nbad \xff\nlast"), wire.Content+1)
	for _, want := range []struct {
		text string
		err  error
	}{
		{"a b ", nil}, {"", nil}, {long, nil}, {"", client.ErrTooLarge}, {"", errNotText}, {"last", nil}, {"", io.EOF},
	} {
		if text, err := readLine(in); text != want.text || !errors.Is(err, want.err) {
			t.Errorf("line of %d bytes, %v; want %d, %v", len(text), err, len(want.text), want.err)
		}
	}
}

func TestUnderstand(t *testing.T) {
	for line, want := range map[string]utterance{
		"hi":             {kind: client.KindMessage, text: "hi"},
		"/me waves":      {kind: client.KindAction, text: "waves"},
		"/join":          {kind: client.KindJoin},
		"/leave bye now": {kind: client.KindLeave, text: "bye now"},
		"/quit":          {quit: true},
		"/mean":          {kind: client.KindMessage, text: "/mean", unknown: true},
	} {
		if got := understand(line); got != want {
			t.Errorf("%q: %+v, want %+v", line, got, want)
		}
	}
}

func TestPrintable(t *testing.T) {
	e := client.Event{User: "mal\x1b[2Jlory", Kind: client.KindMessage, Content: "a\tb\u202ec 日本 🎉"}
	if got, want := sentence(e), "mal�[2Jlory: a b�c 日本 🎉"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
