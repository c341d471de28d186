package main

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/starling-im/starling"
)

// Voters are replaced while people chat, the leader and others in turn, each by
// the node that was replaced before it, which so comes back. No send fails, a
// group is changed by one step at a time, and a node that was taken out does
// not disturb the others, not even when it starts anew. That a group grows and
// shrinks is tested in virtual time alone: no command asks for it.
func TestFault17VotersAreReplaced(t *testing.T) {
	t.Parallel()
	replacements := 2
	if os.Getenv("STARLING_LONG") != "" {
		replacements = 20
	}
	j := judgedMesh(t, "--regions", "fra", "--nodes", "5", "--log-level", "debug")
	j.pause = 250 * time.Millisecond // each of many nodes writes a log of all it does
	j.enter("lobby", "kitchen")
	j.talk()
	j.flows(time.Now())
	group := j.groupOf("lobby")
	p := j.explain(group)
	out := j.names()[slices.IndexFunc(j.names(), func(n string) bool { return !slices.Contains(p.Voters, n) })]
	for n := range replacements {
		old := p.Leader
		if n%2 == 1 {
			old = p.Voters[slices.IndexFunc(p.Voters, func(v string) bool { return v != p.Leader })]
		}
		output(t, j.home, "", "groups", "replace", fmt.Sprint(group), old, out, "--within", "30s")
		waitFor(t, "end of the moves", func() bool { p = j.explain(group); return p.Next == "" && p.Leader != "" })
		if slices.Contains(p.Voters, old) || !slices.Contains(p.Voters, out) || len(p.Voters) != replicas {
			t.Errorf("%s was replaced by %s: %+v", old, out, p)
		}
		out = old
		term, before := j.term(group), len(j.said.String())
		j.strike(t, os.Kill, out)
		j.back(t)
		passes(t.Context(), 1200*time.Millisecond) // some election timeouts
		j.flows(time.Now())
		if now := j.term(group); now != term { // what a node does is in its log a moment later
			waitFor(t, fmt.Sprintf("reason for the terms from %d to %d other than that %s came back", term, now, out), func() bool {
				return otherwise(j.said.String()[before:], group, out)
			})
		}
	}
	h := j.judge()
	slowest := int64(0)
	for _, l := range j.lanes {
		slowest = max(slowest, l.slowest.Load())
	}
	changes := oneAtATime(t, j.said.String(), group)
	t.Logf("%d replacements in %d changes, %d sends, none failed, the slowest took %v", replacements, changes, len(h.Sends), time.Duration(slowest).Round(time.Millisecond))
	if changes < 3*replacements {
		t.Errorf("%d changes of the group were seen for %d replacements", changes, replacements)
	}
}

// otherwise reports whether there was another reason for a new term than the node that was
// taken out: the lead was given to whom it is meant for, or a voter lost sight of the rest
// by itself, as on a machine that has too much to do.
func otherwise(said string, group uint32, out string) bool {
	if regexp.MustCompile(fmt.Sprintf(`msg="a group changes" node=\S+ group=%d step="lead `, group)).MatchString(said) {
		return true
	}
	cause := regexp.MustCompile(fmt.Sprintf(`raft: (?:failed to contact quorum of nodes, stepping down|heartbeat timeout reached, starting election)" node=(\S+) group=%d\b`, group))
	return slices.ContainsFunc(cause.FindAllStringSubmatch(said, -1), func(m []string) bool { return m[1] != out })
}

// groupOf is the group of a room.
func (j *judged) groupOf(room string) uint32 {
	j.t.Helper()
	for _, r := range lines[[]starling.RoomInfo](j.t, output(j.t, j.home, "", "rooms", "--json"))[0] {
		if r.Room == room {
			return r.Group
		}
	}
	j.t.Fatalf("there is no room %s", room)
	return 0
}

// explain returns the plan of a group, once somebody leads it.
func (j *judged) explain(group uint32) (p starling.GroupPlan) {
	j.t.Helper()
	waitFor(j.t, fmt.Sprint("leader of group ", group), func() bool {
		p = starling.GroupPlan{}
		answer, err := j.admin.Query(j.t.Context(), "groups.explain", fmt.Sprint(group))
		if err == nil {
			err = json.Unmarshal(answer, &p)
		}
		if err != nil {
			j.t.Fatal(err)
		}
		return p.Leader != ""
	})
	return p
}

// term is the newest term of a group, at any of its replicas.
func (j *judged) term(group uint32) uint64 {
	j.t.Helper()
	groups, err := groupsOf(j.t.Context(), j.admin)
	if err != nil {
		j.t.Fatal(err)
	}
	i := slices.IndexFunc(groups, func(g starling.GroupInfo) bool { return g.ID == group })
	return groups[i].Term
}

// What a leader says when it changes its group.
var (
	changeLine   = regexp.MustCompile(`time=(\S+) .*msg="raft: updating configuration" .*group=(\d+) .*servers="\[(.*)\]"`)
	changeServer = regexp.MustCompile(`Suffrage:(\w+) ID:(\S+)`)
)

// oneAtATime returns how often a group was changed, and fails if a change
// does not start from the one before it or does more than one thing.
func oneAtATime(t *testing.T, said string, group uint32) int {
	t.Helper()
	type change struct {
		at      string
		servers map[string]string // by node, how it takes part
	}
	var changes []change
	for _, m := range changeLine.FindAllStringSubmatch(said, -1) {
		if m[2] != fmt.Sprint(group) {
			continue
		}
		c := change{m[1], map[string]string{}}
		for _, s := range changeServer.FindAllStringSubmatch(m[3], -1) {
			c.servers[s[2]] = s[1]
		}
		changes = append(changes, c)
	}
	slices.SortStableFunc(changes, func(a, b change) int { return strings.Compare(a.at, b.at) })
	for i := range max(len(changes)-1, 0) {
		before, after := changes[i].servers, changes[i+1].servers
		differ := 0
		for node, as := range after {
			if before[node] != as {
				differ++
			}
		}
		for node := range before {
			if after[node] == "" {
				differ++
			}
		}
		if differ != 1 {
			t.Errorf("group %d went from %v to %v in one change", group, before, after)
		}
	}
	return len(changes)
}
