//go:build unix

package docs_test

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// guides are the tests that run the commands of the pages in docs/guide.
var guides = map[string]func(*testing.T, *document){
	"docs/guide/first-cluster.md": firstCluster,
	"docs/guide/run-a-node.md":    runANode,
}

// TestGuides runs every command of every guide.
func TestGuides(t *testing.T) {
	pages, err := filepath.Glob("docs/guide/*.md")
	if err != nil || len(pages) < len(guides) {
		t.Fatalf("the guides are %q (%v), not those that are run", pages, err)
	}
	for _, page := range pages {
		t.Run(filepath.Base(page), func(t *testing.T) {
			if guides[page] == nil {
				t.Fatalf("no test runs %s", page)
			}
			guides[page](t, open(t, page))
		})
	}
}

// installed installs the program as a page says, and returns an empty folder and what
// runs the page's commands in it, at as many ports that are free here.
func installed(t *testing.T, page *document, ports int) (dir string, here *strings.Replacer, run func(string) *terminal) {
	t.Helper()
	bin, dir := t.TempDir(), t.TempDir()
	t.Setenv("GOBIN", bin)
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	t.Setenv("STARLING_HOME", t.TempDir())
	here = portsFrom(freePorts(t, ports))
	start(t, page.command(t, "install", 0)).end(t)
	return dir, here, func(name string) *terminal { return startIn(t, dir, here.Replace(page.command(t, name, 0))) }
}

// runANode starts three nodes as the page says, at ports that are free here.
func runANode(t *testing.T, page *document) {
	dir, here, run := installed(t, page, 3)
	dev := run("dev")
	dev.wait(t, "chat lobby")
	dev.interrupt(t)
	for name, text := range files(t, page) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(here.Replace(text)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check := run("check")
	check.end(t)
	check.wait(t, "node.yaml is fine: node fra-1 in fra")
	nodes := []*terminal{run("fra"), run("iad"), run("sin")}
	for _, n := range nodes {
		n.wait(t, "listens on")
	}
	healthy(t, func() *terminal { return run("health") })
	healthy(t, func() *terminal { return run("surely") })
	members := run("members")
	members.end(t)
	for _, id := range []string{"fra-1", "iad-1", "sin-1"} {
		members.wait(t, id)
	}
	rtt := run("rtt")
	rtt.end(t)
	rtt.wait(t, "sin-1")
	run("token").end(t)
	alice := run("chat")
	alice.say(t, "three of three")
	alice.wait(t, "three of three")
	bob := run("websocket")
	bob.say(t, "over TCP")
	alice.wait(t, "over TCP")
	bob.leave(t)
	late := run("trace")
	late.end(t)
	late.wait(t, "3 of 3 clients have it")
	way := run("path")
	way.end(t)
	way.wait(t, "it holds a replica itself")
	nodes[2].interrupt(t)
	alice.say(t, "two of three")
	alice.wait(t, "two of three")
	nodes[2] = run("sin")
	nodes[2].wait(t, "listens on")
	alice.leave(t)
	for _, n := range nodes {
		n.interrupt(t)
		if strings.Contains(n.text(), "edge-node:") {
			t.Errorf("a node that was stopped ends with an error:\n%s", n.text())
		}
	}
}

// firstCluster makes the cluster of the page, at a port that is free here.
func firstCluster(t *testing.T, page *document) {
	_, _, run := installed(t, page, 1)
	run("init").end(t)
	run("drawer").end(t)
	nodes := []*terminal{run("fra")}
	nodes[0].wait(t, "member alive")
	run("token").end(t)
	for i, name := range []string{"joins", "third"} {
		if i == 1 {
			run("another").end(t)
		}
		n := run(name)
		n.wait(t, "link up")
		nodes = append(nodes, n)
	}
	members := run("members")
	members.end(t)
	for _, id := range []string{"fra-1", "iad-1", "iad-2"} {
		members.wait(t, id)
	}
	show := run("show")
	show.end(t)
	show.wait(t, "region   iad")
	alice := run("chat")
	alice.say(t, "three of three")
	alice.wait(t, "three of three")
	alice.leave(t)
	region := run("region")
	region.end(t)
	region.wait(t, "The region sin is added")
	run("invite").end(t)
	nodes = append(nodes, run("sin"))
	nodes[3].wait(t, "link up")
	run("groups").end(t)
	rule := run("rule")
	rule.end(t)
	rule.wait(t, "sin")
	check := run("netcheck")
	check.end(t)
	check.wait(t, "iad-1")
	nodes[2].interrupt(t)
	nodes[2] = run("outbound")
	nodes[2].wait(t, "link up")
	run("fifth").end(t)
	nodes = append(nodes, run("spare"))
	votes(t, func() *terminal { return run("voter") })
	drained := run("drain")
	drained.end(t)
	drained.wait(t, "has left")
	nodes[2].end(t)
	nodes[2] = run("third")
	nodes[2].wait(t, "link up")
	revoked := run("revoke")
	revoked.end(t)
	revoked.wait(t, "revoked")
	nodes[2].wait(t, "revoked") // it was told so, or found its links cut
	run("rotate").end(t)
	for _, n := range nodes {
		n.interrupt(t)
	}
}

// votes asks for a node until it votes in all groups of its region.
func votes(t *testing.T, ask func() *terminal) {
	t.Helper()
	for late := time.Now().Add(patience); ; time.Sleep(again) {
		x := ask()
		<-x.ended // it may be unknown yet
		if strings.Contains(x.text(), "voter    5 6 7 8\n") {
			return
		}
		if time.Now().After(late) {
			t.Fatalf("iad-3 does not vote: %s", x.text())
		}
	}
}

// healthy asks for the health of a node until it is ready, and looks for each
// figure of the answer in HACKING.md.
func healthy(t *testing.T, ask func() *terminal) {
	t.Helper()
	for late := time.Now().Add(patience); ; time.Sleep(again) {
		x := ask()
		x.end(t)
		answer := map[string]any{}
		text := x.text()
		if i := strings.Index(text, "{"); i >= 0 { // curl shows its progress before
			if err := json.NewDecoder(strings.NewReader(text[i:])).Decode(&answer); err != nil {
				t.Fatalf("%v: %s", err, text)
			}
		}
		if answer["ready"] == true {
			for field := range answer {
				want(t, read(t, "HACKING.md"), "\n| `"+field+"` | ")
			}
			return
		}
		if time.Now().After(late) {
			t.Fatalf("the node is not ready: %s", text)
		}
	}
}

// files returns the files that a page tells to save, by name.
func files(t *testing.T, page *document) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, m := range regexp.MustCompile("(?s)<!-- file: (\\S+) -->\n```\\w+\n(.*?\n)```").FindAllStringSubmatch(read(t, page.name), -1) {
		all[m[1]] = m[2]
	}
	if len(all) == 0 {
		t.Fatalf("%s has no files", page.name)
	}
	return all
}

// firstPort is where the nodes of a guide begin to count.
const firstPort = 7400

// portsFrom puts other ports in place of those in a guide.
func portsFrom(first, n int) *strings.Replacer {
	var pairs []string
	for i := range n {
		pairs = append(pairs, strconv.Itoa(firstPort+i), strconv.Itoa(first+i))
	}
	return strings.NewReplacer(pairs...)
}

// freePorts finds n ports in a row that are free on UDP and TCP.
func freePorts(t *testing.T, n int) (first, count int) {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		first = l.Addr().(*net.TCPAddr).Port
		_ = l.Close()
		if first+n <= 1<<16 && allFree(first, n) {
			return first, n
		}
	}
	t.Fatalf("no %d free ports in a row", n)
	return 0, 0
}

func allFree(first, n int) bool {
	for i := range n {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(first+i))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return false
		}
		defer l.Close()
		p, err := net.ListenPacket("udp", addr)
		if err != nil {
			return false
		}
		defer p.Close()
	}
	return true
}
