package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/starling-im/starling"
)

// joiner is a cluster that a test makes node by node.
type joiner struct {
	t    *testing.T
	home string
	dir  string
	port string
}

func newJoiner(t *testing.T) *joiner {
	t.Helper()
	probe, err := listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(probe.addr())
	probe.close()
	return &joiner{t: t, home: t.TempDir(), dir: t.TempDir(), port: port}
}

// TestJoin makes a cluster of three nodes with tokens, each at an address of its own,
// and has it refuse who must not come in, each for its own reason.
func TestJoin(t *testing.T) {
	t.Parallel()
	c := newJoiner(t)
	output(t, c.home, "", "cluster", "init", c.data("fra-1"), "--regions", "fra,iad", "--listen", c.addr(1))
	if err := os.Rename(filepath.Join(c.data("fra-1"), offlineFolder), c.data("drawer")); err != nil {
		t.Fatal(err) // nodes start without it
	}
	c.run("fra-1", "--data", c.data("fra-1"))
	waitFor(t, "the first node", func() bool { return c.try("members", "--data", c.data("fra-1")) == nil })
	short := c.token("fra-1", "fra", "--ttl", "1s")
	ran := time.Now().Add(time.Second)
	for i, id := range []string{"iad-1", "iad-2"} {
		// The second one asks a node that does not sign, which passes the question on.
		c.run(id, c.joining(id, i+2, i+1, "iad", c.token("fra-1", "iad"))...)
		c.waitAlive(id, i+2)
	}
	waitFor(t, "end of a token", func() bool { return time.Now().After(ran) })
	c.refusals(short)

	output(t, c.home, "", "keys", "rotate", "--data", c.data("iad-1"))
	bob := output(t, c.home, "hello\n/quit\n", "chat", "lobby", "--as", "bob", "--data", c.data("iad-2"), "--json")
	if !strings.Contains(bob, "hello") {
		t.Errorf("bob saw %q", bob)
	}

	c.leaves("iad-3")
	output(t, c.home, "", "node", "revoke", "iad-2", "--data", c.data("fra-1"))
	for _, id := range []string{"fra-1", "iad-1"} {
		waitFor(t, "the end of links to the revoked node", func() bool {
			for _, m := range c.members(id) {
				if m.ID == "iad-2" && (m.State != "revoked" || m.RTT > 0) {
					return false
				}
			}
			return true // it is forgotten soon after
		})
	}
}

// leaves has a node leave, for which it needs others that take its replicas; the only
// signer cannot.
func (c *joiner) leaves(id string) {
	c.t.Helper()
	if text := output(c.t, c.home, "", "leave", id, "--data", c.data("fra-1")); !strings.Contains(text, id+": has left") {
		c.t.Errorf("leave says %q", text)
	}
	for _, m := range c.members("fra-1") {
		if m.ID == id && m.State == "alive" {
			c.t.Errorf("it has left, and is a member: %+v", m)
		}
	}
	if err := c.try("leave", "--data", c.data("fra-1")); err == nil {
		c.t.Errorf("the only node that signs may leave")
	}
}

func (c *joiner) data(id string) string { return filepath.Join(c.dir, id) }

// addr is the address of the n-th node: each has an IP address of its own.
func (c *joiner) addr(n int) string {
	return net.JoinHostPort("127.0.0."+string(rune('0'+n)), c.port)
}

func (c *joiner) joining(id string, n, at int, region, token string) []string {
	return []string{"--data", c.data(id), "--listen", c.addr(n), "--region", region, "--join", c.addr(at), "--token", token}
}

// run starts a node, and ends it with the test.
func (c *joiner) run(id string, args ...string) {
	c.t.Helper()
	cmd := program(c.t, c.home, append([]string{"run"}, args...)...)
	cmd.Stderr = testLog{c.t, id}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
}

func (c *joiner) try(args ...string) error {
	cmd := program(c.t, c.home, args...)
	cmd.Stderr = nil
	return cmd.Run()
}

func (c *joiner) token(at, region string, args ...string) string {
	c.t.Helper()
	out := output(c.t, c.home, "", append([]string{"join-token", "create", "--data", c.data(at), "--region", region, "--json"}, args...)...)
	return lines[starling.TokenInfo](c.t, out)[0].Token
}

func (c *joiner) members(at string) []starling.MemberInfo {
	c.t.Helper()
	return lines[[]starling.MemberInfo](c.t, output(c.t, c.home, "", "members", "--json", "--data", c.data(at)))[0]
}

// waitAlive waits until a node sees as many members alive.
func (c *joiner) waitAlive(at string, count int) {
	c.t.Helper()
	waitFor(c.t, at+" among the members", func() bool {
		if c.try("members", "--data", c.data(at)) != nil {
			return false
		}
		alive := 0
		for _, m := range c.members(at) {
			if m.State == "alive" {
				alive++
			}
		}
		return alive == count
	})
}

// refusedWithin is how long it may take until a machine that is not let in knows why.
const refusedWithin = 10 * time.Second

// refusals come to a cluster of three nodes with what is not good here.
func (c *joiner) refusals(short string) {
	c.t.Helper()
	good := c.token("iad-1", "fra")
	used := c.token("fra-1", "iad")
	c.run("iad-3", c.joining("iad-3", 4, 1, "iad", used)...)
	c.waitAlive("iad-3", 4)
	back := c.token("fra-1", "fra")
	output(c.t, c.home, "", "join-token", "delete", strings.Split(back, ":")[3], "--data", c.data("fra-1"))
	parts := strings.Split(good, ":")
	parts[4] = strings.Repeat("A", len(parts[4]))
	forged := strings.Join(parts, ":")
	parts = strings.Split(good, ":")
	parts[5] = strings.Repeat("A", len(parts[5]))
	stranger := strings.Join(parts, ":")
	for _, r := range []struct {
		name   string
		at     int
		region string
		token  string
		status int
		says   string
	}{
		{"used", 1, "iad", used, exitRefused, "join_used"},
		{"used, at one who does not sign", 2, "iad", used, exitRefused, "join_used"},
		{"expired", 1, "fra", short, exitRefused, "join_expired"},
		{"of another region", 1, "iad", good, exitRefused, "join_region"},
		{"forged", 1, "fra", forged, exitRefused, "join_forged"},
		{"taken back", 1, "fra", back, exitRefused, "join_forged"},
		{"of another cluster", 1, "fra", stranger, exitRefused, "another cluster"},
		{"no token", 1, "fra", "hello", exitRefused, "not a join token"},
		{"good, and nobody is there", 7, "fra", good, exitFailed, "no node of the cluster answers"},
	} {
		cmd := program(c.t, c.home, append([]string{"run"}, c.joining("x", 8, r.at, r.region, r.token)...)...)
		said := &heard{also: testLog{c.t, r.name}}
		cmd.Stderr = said
		if err := cmd.Start(); err != nil {
			c.t.Fatal(err)
		}
		late := time.AfterFunc(refusedWithin, func() { _ = cmd.Process.Kill() }) // it was let in
		err, _ := cmd.Wait().(*exec.ExitError)
		late.Stop()
		if err == nil || err.ExitCode() != r.status || !strings.Contains(said.String(), r.says) {
			c.t.Fatalf("a token that is %s: %v, said %q", r.name, err, said)
		}
	}
}
