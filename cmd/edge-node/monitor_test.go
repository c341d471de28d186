package main

import (
	"os"
	"strings"
	"testing"
)

// TestMonitor follows the log of a node in two forms, and sees its end.
func TestMonitor(t *testing.T) {
	t.Parallel()
	c := newJoiner(t)
	output(t, c.home, "", "cluster", "init", c.data("fra-1"), "--regions", "fra", "--listen", c.addr(1))
	node := program(t, c.home, "run", "--data", c.data("fra-1"), "--log-level", "error")
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the node", func() bool { return c.try("members", "--data", c.data("fra-1")) == nil })
	for _, m := range []struct{ says, args string }{
		{`msg="audit: made a join token" node=fra-1 token=`, ""},
		{`"msg":"audit: made a join token","node":"fra-1","token":"`, "--json"},
	} {
		said, ended := &heard{also: testLog{t, "monitor"}}, &heard{also: testLog{t, "monitor"}}
		cmd := program(t, c.home, append([]string{"monitor", "--data", c.data("fra-1")}, strings.Fields(m.args)...)...)
		cmd.Stdout, cmd.Stderr = said, ended
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "line of the log", func() bool {
			c.token("fra-1", "fra")
			return strings.Contains(said.String(), m.says)
		})
		if m.args == "" {
			_ = cmd.Process.Signal(os.Interrupt)
			if err := cmd.Wait(); err != nil {
				t.Errorf("interrupted: %v, %s", err, ended)
			}
			continue
		}
		_ = node.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err == nil || !strings.Contains(ended.String(), "has ended") {
			t.Errorf("the node has ended: %v, %s", err, ended)
		}
	}
	if err := node.Wait(); err != nil {
		t.Error(err)
	}
}
