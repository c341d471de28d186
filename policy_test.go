package starling_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/internal/simdisk"
	"github.com/starling-im/starling/wire"
)

// newFourRegions is a world of three nodes in one region and one in three others.
func newFourRegions(t *testing.T) *world {
	w := newWorld(t, "fra", "iad", "sin", "gru")
	w.replaceAfter = 20 * time.Second
	for i := range 2 {
		p := starling.Peer{ID: fmt.Sprintf("fra-%d", i+2), Region: "fra", Addr: fmt.Sprintf("10.0.%d.1:7400", i+4)}
		w.peers = append(w.peers, p)
		w.disks[p.ID] = simdisk.New(0)
		w.issue(p)
	}
	for _, p := range w.peers {
		w.start(p.ID)
	}
	return w
}

// ask asks a node as an operator, and again if that may help.
func (w *world) ask(at, what string, to any, args ...string) error {
	var b []byte
	var err error
	for range 100 {
		if b, err = w.nodes[at].node.Operate(w.t.Context(), what, args...); err == nil {
			return json.Unmarshal(b, to)
		} else if !wire.AsError(err).Retryable {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}

// add adds one group and returns it.
func (w *world) add(region string, class ...string) starling.AddedInfo {
	w.t.Helper()
	var added []starling.AddedInfo
	ok(w.t, w.ask("iad-1", "groups.add", &added, append([]string{region + strings.Join(class, ""), region, "1"}, class...)...))
	return added[0]
}

// plan waits until a group is as it should be.
func (w *world) plan(group uint32) starling.GroupPlan {
	w.t.Helper()
	return w.planAt("iad-1", group, func(starling.GroupPlan) bool { return true })
}

// planAt asks a node until a group is as it should be, and so too.
func (w *world) planAt(at string, group uint32, so func(starling.GroupPlan) bool) (p starling.GroupPlan) {
	w.t.Helper()
	for range 900 {
		p = starling.GroupPlan{}
		if err := w.ask(at, "groups.explain", &p, fmt.Sprint(group)); err == nil && p.Next == "" && slices.Equal(sorted(p.Voters), sorted(p.WantVoters)) && len(p.Learners) == len(p.WantLearners) && so(p) {
			return p
		}
		time.Sleep(100 * time.Millisecond)
	}
	w.t.Fatalf("group %d: %+v", group, p)
	return p
}

func (w *world) put(rule ...string) error {
	var rules []starling.RuleInfo
	err := w.ask("iad-1", "apps.rules.put", &rules, append([]string{fmt.Sprint(time.Now().UnixNano()), "demo"}, rule...)...)
	if i := len(rules) - 2; err == nil && (rules[i].Pattern != rule[0] || rules[i].Survive == "") {
		w.t.Errorf("the rules are %+v", rules)
	}
	return err
}

// Groups of one mesh outlive what they are to: a node, a region, or nothing. No
// replica is where it must not be.
func TestEachGroupHasItsPolicy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newFourRegions(t)
		if err := w.put("local/*", "fra", "survive=node"); wire.Code(err) != wire.CodeNotFound || !strings.Contains(err.Error(), "edge-node groups add --region fra --survive node") {
			t.Errorf("a rule without groups: %v", err)
		}
		for class, why := range map[string]string{
			"survive=xx": "node, region or none", "forbid=idd": `no node is of region "idd"`, "forbid=fra": "cannot be kept off",
		} {
			var added []starling.AddedInfo
			if err := w.ask("iad-1", "groups.add", &added, class, "fra", "1", class); wire.Code(err) != wire.CodeBadRequest || !strings.Contains(err.Error(), why) {
				t.Errorf("%s: %v", class, err)
			}
		}
		node := w.add("fra", "survive=node")
		none := w.add("sin", "survive=none")
		few := w.add("iad", "survive=node", "forbid=fra,gru")
		far := w.add("fra", "forbid=iad") // what the mesh is to survive, elsewhere
		ok(t, w.put("local/*", "fra", "survive=node"))
		ok(t, w.put("log/*", "sin", "survive=none"))
		ok(t, w.put("box/*", "iad", "forbid=gru,fra", "survive=node"))
		ok(t, w.put("eu/*", "fra", "forbid=iad", "survive=region"))
		c := w.dial("alice", 1)
		time.Sleep(2 * time.Second)
		for room, group := range map[string]uint32{"local/a": node.ID, "log/a": none.ID, "box/a": few.ID, "eu/a": far.ID} {
			if _, err := c.Publish(t.Context(), client.Message{Room: room, Content: "hello"}); err != nil {
				t.Error(err)
			}
			if g, err := w.nodes["iad-1"].node.GroupOf("demo", room); err != nil || g != group {
				t.Errorf("%s is in group %d, %v", room, g, err)
			}
		}
		for group, want := range map[uint32][4]string{
			node.ID: {"fra-1 fra-2 fra-3", "", "", "without region fra"},
			none.ID: {"sin-1", "", "", "if it is lost, so are they"},
			few.ID:  {"iad-1", "sin-1", "3 voters are wanted", "what sin-1 did not get in time"},
		} {
			p := w.plan(group)
			if got := strings.Join(sorted(p.Voters), " "); got != want[0] || strings.Join(p.Learners, " ") != want[1] || !strings.Contains(p.UnderReplicated, want[2]) || !strings.Contains(strings.Join(p.Losses, "; "), want[3]) {
				t.Errorf("group %d, want %q: %+v", group, want, p)
			}
		}
		if p := w.plan(far.ID); len(p.Voters) != 3 || slices.Contains(p.Voters, "iad-1") || p.UnderReplicated != "" || p.Losses[0] != "the loss of one node or one region is not noticed" {
			t.Errorf("three regions without iad: %+v", p)
		}
		var groups []starling.GroupInfo
		ok(t, w.ask("iad-1", "groups", &groups))
		if i := slices.IndexFunc(groups, func(g starling.GroupInfo) bool { return g.ID == few.ID }); groups[i].Survive != "node" || !slices.Equal(groups[i].Forbid, []string{"fra", "gru"}) {
			t.Errorf("groups say %+v", groups[i])
		}

		says := func(room string) error {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			_, err := c.Publish(ctx, client.Message{Room: room, Content: "again"})
			return err
		}
		w.kill("fra-2", 0) // a node
		ok(t, says("local/a"))
		w.kill("sin-1", 0) // a region; with it the one voter there
		ok(t, says("eu/a"))
		ok(t, says("~iad/any"))
		if err := says("log/a"); err == nil {
			t.Error("what was to survive nothing has survived")
		}
		_ = c.Close()
		w.stopAll()
	})
}
