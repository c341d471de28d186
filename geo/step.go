package geo

import (
	"fmt"
	"slices"
)

// Do is what a Step does.
type Do string

// The kinds of steps. Each is one change of a group's configuration, but for
// Lead, which hands leadership over.
const (
	AddLearner Do = "add_learner"
	Promote    Do = "promote" // a learner becomes a voter
	Demote     Do = "demote"  // a voter becomes a learner
	Remove     Do = "remove"
	Lead       Do = "lead"
)

// Step is one change of one replica; the zero Step does nothing.
type Step struct {
	Do   Do
	Node string
}

// NextStep returns the next step from a group as it is towards what is wanted,
// and says in a sentence why that, or why nothing. To be asked again after
// each step has taken effect; nothing is to be done while one is under way.
//
// A new voter learns all there is before it has a vote, and votes before the
// one whose place it takes is removed. No step leaves fewer voters alive than a
// quorum, and without a quorum there is no step.
func NextStep(now Config, want Placement) (step Step, why string) {
	n := next{now, want}
	switch alive := n.alive(now.Voters); {
	case now.Leader == "":
		return Step{}, "the group has no leader that could change it"
	case alive < quorum(len(now.Voters)):
		return Step{}, fmt.Sprintf("%d of %d voters are alive, which is no quorum: nothing can be changed", alive, len(now.Voters))
	}
	for _, rule := range []func() (Step, string){
		n.handOver, n.addVoters, n.addLearners, n.removeLearners, n.removeSurplus, n.lead, n.promote, n.removeVoters,
	} {
		if step, why := rule(); why != "" {
			return step, why
		}
	}
	if want.UnderReplicated != "" {
		return Step{}, "nothing can be done now: " + want.UnderReplicated
	}
	if i := slices.IndexFunc(now.Voters, func(v string) bool { return !slices.Contains(now.Alive, v) }); i >= 0 {
		return Step{}, now.Voters[i] + " does not answer, and is waited for before another takes its place"
	}
	return Step{}, "all is as it should be"
}

func quorum(voters int) int { return voters/2 + 1 }

// next holds the rules of NextStep. Each returns a step and why; or only why,
// if it waits; or nothing, if it has nothing to say.
type next struct {
	now  Config
	want Placement
}

func (n next) alive(nodes []string) (count int) {
	for _, v := range nodes {
		if slices.Contains(n.now.Alive, v) {
			count++
		}
	}
	return count
}

// ready reports whether a node may lead or vote without delay.
func (n next) ready(node string) bool {
	return slices.Contains(n.now.Alive, node) && slices.Contains(n.now.CaughtUp, node)
}

// missing and surplus are the voters that there should be, and should not.
func (n next) missing() []string { return less(n.want.Voters, n.now.Voters) }
func (n next) surplus() []string { return less(n.now.Voters, n.want.Voters) }

// less returns what of a is not in b.
func less(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(x string) bool { return slices.Contains(b, x) })
}

// handOver comes first: a leader that has to go is often about to go by itself.
func (n next) handOver() (Step, string) {
	if slices.Contains(n.want.Voters, n.now.Leader) {
		return Step{}, ""
	}
	for _, v := range n.want.Voters {
		if slices.Contains(n.now.Voters, v) && n.ready(v) {
			return Step{Lead, v}, fmt.Sprintf("%s leads and is to give its place up, %s will stay and can lead", n.now.Leader, v)
		}
	}
	return Step{}, ""
}

// addVoters: all new voters learn at once, so that the time between the first
// vote and the last is short.
func (n next) addVoters() (Step, string) {
	for _, v := range less(n.missing(), n.now.Learners) {
		if slices.Contains(n.now.Alive, v) {
			return Step{AddLearner, v}, fmt.Sprintf("%s is to vote, and learns first what there is", v)
		}
	}
	return Step{}, ""
}

func (n next) addLearners() (Step, string) {
	for _, v := range less(n.want.Learners, n.now.Learners) {
		if slices.Contains(n.now.Alive, v) && !slices.Contains(n.now.Voters, v) {
			why := fmt.Sprintf("%s is to keep a copy", v)
			if n.want.UnderReplicated != "" {
				why += ": " + n.want.UnderReplicated
			}
			return Step{AddLearner, v}, why
		}
	}
	return Step{}, ""
}

func (n next) removeLearners() (Step, string) {
	for _, v := range less(n.now.Learners, n.want.Learners) {
		if !slices.Contains(n.want.Voters, v) {
			return Step{Remove, v}, fmt.Sprintf("%s is not to keep a copy any more", v)
		}
	}
	return Step{}, ""
}

// removeSurplus keeps the configuration from growing: as soon as one voter more
// than wanted is there, one that is not wanted goes.
func (n next) removeSurplus() (Step, string) {
	if len(n.now.Voters) > len(n.want.Voters) {
		if step, why := n.removeVoters(); step.Do != "" {
			return step, why
		}
	}
	return Step{}, ""
}

func (n next) lead() (Step, string) {
	first := n.want.Voters
	if len(first) > 0 && first[0] != n.now.Leader && n.ready(first[0]) && slices.Contains(n.now.Voters, first[0]) {
		return Step{Lead, first[0]}, fmt.Sprintf("%s is to lead: it is of the home region, or the nearest to it", first[0])
	}
	return Step{}, ""
}

func (n next) promote() (Step, string) {
	missing := n.missing()
	if len(missing) == 0 {
		return Step{}, ""
	}
	var ready []string
	for _, v := range missing {
		if slices.Contains(n.now.Learners, v) && n.ready(v) {
			ready = append(ready, v)
		}
	}
	voters := len(n.now.Voters)
	// A second of two voters makes a group weaker, a third one stronger.
	if len(ready) == 0 || voters%2 == 1 && voters+1 < len(n.want.Voters) && len(ready) < 2 {
		return Step{}, fmt.Sprintf("%s is to vote and has not caught up yet", less(missing, ready)[0])
	}
	return Step{Promote, ready[0]}, fmt.Sprintf("%s has caught up and is to vote", ready[0])
}

// removeVoters removes the dead first, and the leader only after another leads.
func (n next) removeVoters() (Step, string) {
	surplus := n.surplus()
	slices.SortStableFunc(surplus, func(a, b string) int { return n.alive([]string{a}) - n.alive([]string{b}) })
	for _, v := range surplus {
		alive := n.alive(less(n.now.Voters, []string{v}))
		switch {
		case v == n.now.Leader:
			continue
		case alive < quorum(len(n.now.Voters)-1):
			return Step{}, fmt.Sprintf("%s is to give its vote up, but without it %d voters alive of %d are no quorum", v, alive, len(n.now.Voters)-1)
		case slices.Contains(n.want.Learners, v):
			return Step{Demote, v}, fmt.Sprintf("%s is to keep a copy and not to vote", v)
		}
		return Step{Remove, v}, fmt.Sprintf("%s is not to hold the group any more", v)
	}
	if len(surplus) > 0 {
		return Step{}, fmt.Sprintf("%s is to give its place up, but nobody else can lead yet", n.now.Leader)
	}
	return Step{}, ""
}
