package geo

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Policy is what an operator wants of a group's replicas.
type Policy struct {
	Home    string  // the region of its leader
	Survive Survive // one that is not known is SurviveNone
	// Allow names the regions whose disks may hold content, none = all; Forbid
	// takes some of them away.
	Allow, Forbid []string
	// Grace is how long a failed node keeps its place; default FailedGrace.
	Grace time.Duration
	// Key spreads groups over the nodes of a region.
	Key string
}

// FailedGrace is how long a failed node is waited for: restarts, upgrades and
// most repairs take less, and a new replica costs a copy of all rooms.
const FailedGrace = 15 * time.Minute

// State is what is known of a node.
type State string

// The states of a node. One that is alive, or has failed for less than the
// grace of a policy, keeps what it holds; so does a draining one, which is not to
// lead, since it goes away for a moment; a leaving one is emptied at once; one
// that has left does not come back.
const (
	Alive    State = "alive"
	Draining State = "draining"
	Leaving  State = "leaving"
	Failed   State = "failed"
	Left     State = "left"
)

// Answers reports whether a node in this state is there.
func (s State) Answers() bool { return s == Alive || s == Draining || s == Leaving }

// NodeState is a node as it is now.
type NodeState struct {
	Site
	State     State
	FailedFor time.Duration // since it was last alive; counts if it has failed
	Load      int           // the replicas that it holds
}

// Config is a group as it is now.
type Config struct {
	Voters, Learners []string
	Leader           string // "" = none is known
	// CaughtUp are the replicas that have nearly all that is committed.
	CaughtUp []string
	// Alive are the nodes that can be reached now; only NextStep asks.
	Alive []string
}

// Placement is a group as it should be.
type Placement struct {
	Voters []string // the first one should lead
	// Learners copy the group without a vote.
	Learners []string
	// UnderReplicated says why the policy cannot be met, "" if it is.
	UnderReplicated string
}

// Place returns where a group's replicas should be, given where they are and how far
// regions are from each other: a replica moves only if it must. There are fewer voters than the policy asks
// for where there are too few nodes; a group that should survive the loss of a
// node then has a learner in the nearest other region, which keeps a copy and
// stops nothing. A failed voter stays beyond its grace if nobody can take its
// place, and if there is no node at all everything stays.
func Place(p Policy, nodes []NodeState, now Config, d Distances) Placement {
	c := newChoice(p, nodes, now, d)
	want := 1
	switch p.Survive {
	case SurviveRegion:
		want = groupVoters
		c.takeRegions(want)
	case SurviveNode:
		want = groupVoters
		c.take(want, p.Home)
	default:
		c.take(want, p.Home)
	}
	w := Placement{Voters: c.taken, UnderReplicated: c.lack(want)}
	if len(w.Voters) == 0 {
		w.Voters = slices.Clone(now.Voters)
	}
	w.Voters = c.leaderFirst(w.Voters)
	if p.Survive == SurviveNode && len(c.taken) < want {
		w.Learners = c.learner(w.Voters)
	}
	return w
}

// choice is the work of Place.
type choice struct {
	policy  Policy
	now     Config
	far     Distances
	nodes   []candidate // that may hold the group, the best first
	regions []string    // theirs, the nearest to home first
	taken   []string    // the voters
}

type candidate struct {
	NodeState
	rank int
}

// The ranks of candidates, the best first.
const (
	leads = iota
	votes
	failedVoter // lately
	learns
	idle
	lostVoter // it has failed for longer than its grace
	failedLearner
	never
)

func (c *choice) rank(n NodeState) int {
	lost := n.FailedFor >= cmp.Or(c.policy.Grace, FailedGrace)
	voter, learner := slices.Contains(c.now.Voters, n.Node), slices.Contains(c.now.Learners, n.Node)
	switch {
	case !c.policy.allows(n.Region):
		return never
	case n.State == Failed && voter && lost:
		return lostVoter
	case n.State == Failed && voter:
		return failedVoter
	case n.State == Failed && learner && !lost:
		return failedLearner
	case n.State != Alive && (n.State != Draining || !voter && !learner):
		return never
	case voter && n.Node == c.now.Leader:
		return leads
	case voter:
		return votes
	case learner:
		return learns
	}
	return idle
}

func (p Policy) allows(region string) bool {
	return (len(p.Allow) == 0 || slices.Contains(p.Allow, region)) && !slices.Contains(p.Forbid, region)
}

func newChoice(p Policy, nodes []NodeState, now Config, d Distances) *choice {
	c := &choice{policy: p, now: now, far: d}
	var names, regions []string
	for _, n := range nodes {
		rank := c.rank(n)
		if rank == never || slices.Contains(names, n.Node) {
			continue
		}
		names = append(names, n.Node)
		c.nodes = append(c.nodes, candidate{n, rank})
		if !slices.Contains(regions, n.Region) {
			regions = append(regions, n.Region)
		}
	}
	spread := make(map[string]int, len(names))
	for i, name := range Rank(p.Key, names) {
		spread[name] = i
	}
	slices.SortFunc(c.nodes, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.Load, b.Load), cmp.Compare(spread[a.Node], spread[b.Node]))
	})
	c.regions = byDistance(d, p.Home, regions)
	return c
}

// take takes the best nodes of a region as voters, until there are so many.
func (c *choice) take(want int, region string) {
	for _, n := range c.nodes {
		if len(c.taken) < want && n.Region == region && n.rank <= lostVoter {
			c.taken = append(c.taken, n.Node)
		}
	}
}

// takeRegions takes one node each of so many regions: of home, then of those
// that have a voter, then of the nearest.
func (c *choice) takeRegions(want int) {
	var chosen []string
	choose := func(worst int, of []string) {
		for _, r := range of {
			if len(chosen) < want && !slices.Contains(chosen, r) && c.best(r) <= worst {
				chosen = append(chosen, r)
			}
		}
	}
	choose(idle, []string{c.policy.Home})
	choose(failedVoter, c.regions)
	choose(idle, c.regions)
	choose(lostVoter, c.regions)
	for _, r := range c.regions {
		if slices.Contains(chosen, r) {
			c.take(len(c.taken)+1, r)
		}
	}
}

// best returns the rank of the best node of a region.
func (c *choice) best(region string) int {
	for _, n := range c.nodes {
		if n.Region == region {
			return n.rank
		}
	}
	return never
}

// learner returns the node that should keep a copy outside the home region: one
// that has a copy, or else one of the nearest region.
func (c *choice) learner(voters []string) []string {
	for _, fresh := range []bool{false, true} {
		for _, r := range c.regions {
			for _, n := range c.nodes {
				if n.Region == r && r != c.policy.Home && n.rank != lostVoter && fresh == (n.rank == idle) && !slices.Contains(voters, n.Node) {
					return []string{n.Node}
				}
			}
		}
	}
	return nil
}

// leaderFirst puts first who should lead: a voter of the home region, or of the
// nearest one, that is alive; the one that leads if it will do, or if nobody
// will. It does as long as no region is clearly nearer to home than its own.
func (c *choice) leaderFirst(voters []string) []string {
	leader, at, now := c.now.Leader, "", ""
	for _, r := range slices.Backward(c.regions) {
		for _, n := range slices.Backward(c.nodes) {
			if n.State != Alive || n.Region != r || !slices.Contains(voters, n.Node) {
				continue
			}
			leader, at = n.Node, r
			if n.Node == c.now.Leader {
				now = r
			}
		}
	}
	if now != "" && !c.clearlyNearer(at, now) {
		leader = c.now.Leader
	}
	if !slices.Contains(voters, leader) {
		return voters
	}
	return append([]string{leader}, less(voters, []string{leader})...)
}

// clearlyNearer reports whether a region is nearer to home than another one by more
// than jitter makes of it.
func (c *choice) clearlyNearer(region, than string) bool {
	a, known := c.far.RTT(c.policy.Home, region)
	b, also := c.far.RTT(c.policy.Home, than)
	switch {
	case region == than || than == c.policy.Home:
		return false
	case region == c.policy.Home || known && !also:
		return true
	case known && also:
		return clearlyBetter(a, b)
	}
	return region < than // of neither is anything known
}

// lack says why the policy cannot be met, "" if it is.
func (c *choice) lack(want int) string {
	home, regions := c.policy.Home, c.policy.Survive == SurviveRegion
	var lost []string
	atHome := 0
	for _, n := range c.nodes {
		if !slices.Contains(c.taken, n.Node) {
			continue
		}
		if n.rank == lostVoter {
			lost = append(lost, n.Node)
		}
		if n.Region == home {
			atHome++
		}
	}
	switch {
	case !c.policy.allows(home):
		return fmt.Sprintf("region %s is the home, and its disks may not hold content", home)
	case atHome == 0:
		return fmt.Sprintf("region %s, the home, has no node for a replica", home)
	case len(lost) > 0:
		return fmt.Sprintf("%s failed too long ago, and no other node can take the place", strings.Join(lost, " and "))
	case len(c.taken) < want && regions:
		return fmt.Sprintf("voters in %d regions are wanted, and only %d can have one", want, len(c.taken))
	case len(c.taken) < want:
		return fmt.Sprintf("%d voters are wanted, and region %s can have only %d", want, home, len(c.taken))
	}
	return ""
}
