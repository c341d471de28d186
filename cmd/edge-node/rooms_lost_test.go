package main

import (
	"bytes"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/starling-im/starling"
)

// A group has one voter, which dies. The list of rooms says that it lacks those of
// the group, the list of groups which replica does not answer, and the group's plan
// that nobody leads it. Shells complete its number.
func TestRoomsSayWhatTheyLack(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	m := startMesh(t, home, t.TempDir(), "--regions", "fra", "--nodes", "3", "--restart-after", "0")
	if out := output(t, home, "", "groups", "pause", "--json"); out != "{\"paused\":true}\n" {
		t.Errorf("pause says %q", out)
	}
	added := lines[[]starling.AddedInfo](t, output(t, home, "", "groups", "add", "--region", "fra", "--survive", "none", "--json"))[0]
	output(t, home, "", "apps", "rules", "put", devApp, "log/*", "fra", "--survive", "none")
	output(t, home, "hello\n", "chat", "log/1", "--as", "alice")
	waitFor(t, "the group among the completions", func() bool {
		return strings.Contains(output(t, home, "", "__complete", "groups", "recover", ""), "5\tof fra, led by "+added[0].Voters[0])
	})
	ends := func(args ...string) (list, said string, err error) {
		cmd := program(t, home, args...)
		var out, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &stderr
		err = cmd.Run()
		return out.String(), stderr.String(), err
	}
	if list, said, err := ends("rooms"); err != nil || !strings.Contains(list, "log/1") {
		t.Fatalf("rooms: %q, %q, %v", list, said, err)
	}
	i := slices.IndexFunc(m.Nodes, func(n readyNode) bool { return n.ID == added[0].Voters[0] })
	killNode(t, m.Nodes[i].PID)
	began := time.Now()
	list, said, err := ends("rooms")
	if _, failed := err.(*exec.ExitError); !failed || strings.Contains(list, "log/1") || !strings.Contains(said, "no replica answers: 5") {
		t.Errorf("rooms of a group that is gone: %q, %q, %v after %v", list, said, err, time.Since(began))
	}
	waitFor(t, "word that nobody leads the group", func() bool {
		p := lines[starling.GroupPlan](t, output(t, home, "", "groups", "explain", "5", "--json"))[0]
		return p.Leader == "" && p.Paused && strings.Contains(p.Why, "groups recover 5")
	})
	if list := output(t, home, "", "groups"); !strings.Contains(list, " "+added[0].Voters[0]+"@?") {
		t.Errorf("groups without %s:\n%s", added[0].Voters[0], list)
	}
	if _, said, err := ends("groups", "move-leader", "1", added[0].Voters[0]); err == nil || !strings.Contains(said, added[0].Voters[0]+" does not answer") {
		t.Errorf("a node that is gone is to lead: %q, %v", said, err)
	}
	if _, said, err := ends("groups", "replace", "1", "--cancel"); err == nil || !strings.Contains(said, "no replacement is under way in group 1") {
		t.Errorf("what nobody ordered is called off: %q, %v", said, err)
	}
}
