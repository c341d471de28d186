package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/mesh"
)

// lan is a network of its own: network namespaces, each a machine with an address, on
// one bridge. Nothing of it is seen outside.
type lan struct {
	t         *testing.T
	home, dir string
	name      string
	machine   map[string]string // by the ids of nodes
}

// newLAN makes machines with the addresses 10.77.0.N, by the names of their nodes.
func newLAN(t *testing.T, machines map[string][]int) *lan {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs the right to make network namespaces: run as root")
	}
	for _, tool := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s, of Debian's packages iproute2 and nftables", tool)
		}
	}
	n := &lan{t: t, home: t.TempDir(), dir: t.TempDir(), machine: make(map[string]string), name: fmt.Sprintf("st%d%c", os.Getpid()%100000, t.Name()[4])}
	n.namespace("sw")
	n.ip("sw", "link", "add", "br0", "type", "bridge")
	n.ip("sw", "link", "set", "br0", "up")
	for machine, numbers := range machines {
		n.namespace(machine)
		n.ip("sw", "link", "add", machine, "type", "veth", "peer", "name", "eth0", "netns", n.ns(machine))
		n.ip("sw", "link", "set", machine, "master", "br0", "up")
		for _, i := range numbers {
			n.ip(machine, "addr", "add", fmt.Sprintf("10.77.0.%d/24", i), "dev", "eth0")
		}
		n.ip(machine, "link", "set", "eth0", "up")
		n.ip(machine, "link", "set", "lo", "up")
	}
	return n
}

func (n *lan) ns(machine string) string { return n.name + machine }

func (n *lan) data(id string) string { return filepath.Join(n.dir, id) }

func (n *lan) at(i int) string { return fmt.Sprintf("10.77.0.%d:7400", i) }

func (n *lan) namespace(machine string) {
	n.t.Helper()
	n.must(exec.Command("ip", "netns", "add", n.ns(machine)))
	n.t.Cleanup(func() { n.must(exec.Command("ip", "netns", "del", n.ns(machine))) })
}

func (n *lan) ip(machine string, args ...string) {
	n.t.Helper()
	n.must(exec.Command("ip", append([]string{"-n", n.ns(machine)}, args...)...))
}

// firewall gives a machine rules of nftables.
func (n *lan) firewall(machine, rules string) {
	n.t.Helper()
	cmd := n.on(machine, exec.Command("nft", "-f", "-"))
	cmd.Stdin = strings.NewReader(rules)
	n.must(cmd)
}

func (n *lan) must(cmd *exec.Cmd) {
	n.t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		n.t.Fatalf("%v: %v: %s", cmd.Args, err, out)
	}
}

// on has a command run on a machine.
func (n *lan) on(machine string, cmd *exec.Cmd) *exec.Cmd {
	args := append([]string{"ip", "netns", "exec", n.ns(machine), cmd.Path}, cmd.Args[1:]...)
	path, err := exec.LookPath("ip")
	if err != nil {
		n.t.Fatal(err)
	}
	cmd.Path, cmd.Args = path, args
	return cmd
}

// node runs a node on a machine.
func (n *lan) node(machine, id string, args ...string) *exec.Cmd {
	n.t.Helper()
	n.machine[id] = machine
	cmd := n.on(machine, program(n.t, n.home, append([]string{"run", "--data", n.data(id)}, args...)...))
	cmd.Stderr = testLog{n.t, id}
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	return cmd
}

// found makes the first node, fra-1 at 10.77.0.1, of a cluster of two regions.
func (n *lan) found(machine, other string) *exec.Cmd {
	n.t.Helper()
	output(n.t, n.home, "", "cluster", "init", n.data("fra-1"), "--regions", "fra,"+other, "--listen", n.at(1))
	// One group per region, so that it does not take long until all are where they should be.
	cmd := n.node(machine, "fra-1", "--groups-per-region", "1")
	waitFor(n.t, "the first node", func() bool { return len(n.members("fra-1")) == 1 })
	return cmd
}

// joins runs a node that joins by fra-1.
func (n *lan) joins(machine, id string, i int, region string, args ...string) *exec.Cmd {
	n.t.Helper()
	token := lines[starling.TokenInfo](n.t, n.ask("fra-1", "join-token", "create", "--region", region, "--json"))[0].Token
	return n.node(machine, id, append([]string{"--node", id, "--listen", n.at(i), "--region", region, "--join", n.at(1), "--token", token}, args...)...)
}

// ask runs a command beside a node, and returns what it printed; "" if it failed.
func (n *lan) ask(at string, args ...string) string {
	cmd := n.on(n.machine[at], program(n.t, n.home, append(args, "--data", n.data(at))...))
	cmd.Stderr = nil
	out, _ := cmd.Output()
	return string(out)
}

// members are those that a node sees, none if it does not answer.
func (n *lan) members(at string) []starling.MemberInfo {
	n.t.Helper()
	for _, all := range lines[[]starling.MemberInfo](n.t, n.ask(at, "members", "--json")) {
		return all
	}
	return nil
}

// path is how the link from one node to another goes.
func (n *lan) path(at, to string) string {
	for _, m := range n.members(at) {
		if m.ID == to {
			return m.Path
		}
	}
	return ""
}

// talker is a chat that a test writes to and reads from.
type talker struct {
	t   *testing.T
	in  io.Writer
	out chan string
}

func (n *lan) chat(at, user, room string) *talker {
	n.t.Helper()
	cmd := n.on(n.machine[at], program(n.t, n.home, "chat", room, "--as", user, "--data", n.data(at), "--json"))
	in, err := cmd.StdinPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	cmd.Stderr = testLog{n.t, user}
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	c := &talker{n.t, in, make(chan string, 100)}
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			c.out <- s.Text()
		}
		close(c.out)
	}()
	c.say(user + " is here") // who hears that will hear what comes
	c.hears(user+" is here", 15*time.Second)
	return c
}

func (c *talker) say(text string) { _, _ = fmt.Fprintln(c.in, text) }

// hears waits until a text is heard.
func (c *talker) hears(text string, within time.Duration) {
	c.t.Helper()
	for timeout := time.After(within); ; {
		select {
		case line, ok := <-c.out:
			if !ok {
				c.t.Fatalf("the chat ended before %q", text)
			}
			if strings.Contains(line, text) {
				return
			}
		case <-timeout:
			c.t.Fatalf("%q is not heard within %v", text, within)
		}
	}
}

// inbound drops what a machine has not asked for.
const inbound = `table inet starling { chain in {
	type filter hook input priority 0; policy drop;
	ct state established,related accept
	iif lo accept
	meta l4proto icmp accept
	}
}
`

// TestBoxes has two boxes behind firewalls that drop all that comes in unasked. They
// join, are the home of a room, chat with each other and with the rest; the node over
// which they hear each other dies, and they go on.
func TestBoxes(t *testing.T) {
	t.Parallel()
	n := newLAN(t, map[string][]int{"core": {1, 2, 3}, "box1": {11}, "box2": {12}})
	for _, box := range []string{"box1", "box2"} {
		n.firewall(box, inbound)
	}
	parents := map[string]*exec.Cmd{"fra-1": n.found("core", "shop")}
	for i, id := range []string{"fra-2", "fra-3"} {
		parents[id] = n.joins("core", id, i+2, "fra")
	}
	for i, box := range []string{"1", "2"} {
		n.joins("box"+box, "shop-"+box, 11+i, "shop", "--reachability", starling.ReachOutbound)
	}
	for _, at := range []string{"shop-1", "shop-2", "fra-3"} {
		waitFor(t, "links of "+at, func() bool {
			all := n.members(at)
			for _, m := range all {
				if m.ID != at && (m.State != "alive" || m.Path == "") {
					return false
				}
			}
			return len(all) == 5
		})
	}
	waitFor(t, "the shop's rooms in the shop", func() bool {
		for _, g := range lines[[]starling.GroupInfo](t, n.ask("shop-1", "groups", "--json"))[0] {
			for _, r := range g.Replicas {
				if g.Region == "shop" && r.Voter != (r.Region == "shop") {
					return false
				}
			}
		}
		return true
	})

	alice, bob, carol := n.chat("shop-1", "alice", "~shop/till"), n.chat("shop-2", "bob", "~shop/till"), n.chat("fra-2", "carol", "~shop/till")
	for i, from := range []*talker{alice, bob, carol} {
		text := fmt.Sprintf("hello from %d", i)
		from.say(text)
		for _, to := range []*talker{alice, bob, carol} {
			to.hears(text, 15*time.Second)
		}
	}
	for round, from, to := 0, alice, bob; round < 2; round, from, to = round+1, to, from {
		through := strings.TrimPrefix(n.path("shop-1", "shop-2"), "through ")
		if through == "fra-2" && round > 0 {
			break // carol's node; and one of three must be left
		}
		began := time.Now()
		if err := parents[through].Process.Kill(); err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf("still there, %d?", round)
		from.say(text)
		to.hears(text, 3*time.Second)
		t.Logf("%s dies: heard after %v", through, time.Since(began))
		waitFor(t, "another path", func() bool { return n.path("shop-1", "shop-2") != "through "+through })
	}
}

// TestUDPDropped has a firewall drop all UDP between two nodes: their link goes on over
// TCP. A new node that has no UDP at all joins by TCP.
func TestUDPDropped(t *testing.T) {
	t.Parallel()
	n := newLAN(t, map[string][]int{"one": {1}, "two": {2}, "three": {3}})
	n.found("one", "iad")
	n.joins("two", "iad-1", 2, "iad")
	waitFor(t, "a link", func() bool { return n.path("fra-1", "iad-1") == mesh.PathUDP })
	alice, bob := n.chat("fra-1", "alice", "~fra/hall"), n.chat("iad-1", "bob", "~fra/hall")
	alice.say("hello")
	bob.hears("hello", 15*time.Second)
	n.firewall("two", `table inet starling { chain in {
		type filter hook input priority 0; policy accept;
		iif != lo meta l4proto udp drop
		}
	}
	`)
	began := time.Now()
	alice.say("over TCP?")
	bob.hears("over TCP?", 15*time.Second)
	t.Logf("UDP is dropped: heard after %v", time.Since(began))
	check := lines[netCheck](t, n.ask("fra-1", "netcheck", "--json"))[0]
	if len(check.Nodes) != 2 || !check.Nodes[0].UDP.Works || check.Nodes[1].UDP.Works || !check.Nodes[1].TCP.Works || len(check.Advice) != 1 {
		t.Errorf("netcheck says %+v", check)
	}
	if path := n.path("fra-1", "iad-1"); path != mesh.PathTCP {
		t.Errorf("the link goes over %q", path)
	}
	n.firewall("three", `table inet starling { chain out {
		type filter hook output priority 0; policy accept;
		oif != lo meta l4proto udp drop
		}
	}
	`)
	n.joins("three", "iad-2", 3, "iad")
	waitFor(t, "links by TCP", func() bool {
		return n.path("iad-2", "fra-1") == mesh.PathTCP && n.path("iad-2", "iad-1") == mesh.PathTCP
	})
	dora := n.chat("iad-2", "dora", "~fra/hall")
	bob.say("welcome")
	dora.hears("welcome", 15*time.Second)
	if _, err := os.Stat(filepath.Join(n.data("iad-2"), nodeFile)); err != nil {
		t.Error(err)
	}
}
