package geo

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Losses says in sentences what a group on these nodes would lose, or could not
// do any more, without one of its nodes or one of its regions; gone are those that
// it does without already.
func Losses(voters, learners, gone []string, sites []Site) []string {
	region := func(node string) string {
		i := slices.IndexFunc(sites, func(s Site) bool { return s.Node == node })
		if i < 0 {
			return ""
		}
		return sites[i].Region
	}
	isGone := func(node string) bool { return slices.Contains(gone, node) }
	here := slices.DeleteFunc(slices.Clone(voters), isGone)
	learners = slices.DeleteFunc(slices.Clone(learners), isGone)
	spare := len(here) - quorum(len(voters))
	if spare < 0 {
		return []string{fmt.Sprintf("the rooms stand still: %d of %d voters are there, and it takes %d", len(here), len(voters), quorum(len(voters)))}
	}
	in := map[string]int{}
	for _, v := range here {
		in[region(v)]++
	}
	var text []string
	if spare == 0 {
		text = append(text, without("node "+strings.Join(here, " or "), 1, len(voters), learners))
	}
	for _, r := range slices.Sorted(maps.Keys(in)) {
		if in[r] <= spare {
			continue
		}
		apart := slices.DeleteFunc(slices.Clone(learners), func(l string) bool { return region(l) == r })
		text = append(text, without("region "+r, in[r], len(voters), apart))
	}
	switch {
	case len(text) == 0:
		return []string{"the loss of one node or one region is not noticed"}
	case spare > 0:
		return append([]string{"the loss of one node is not noticed"}, text...)
	}
	return text
}

// without says what becomes of a group without so many of its voters, which have
// no quorum left.
func without(what string, lost, voters int, learners []string) string {
	switch {
	case lost < voters:
		return fmt.Sprintf("without %s the rooms stand still until it is back, or an operator accepts a loss", what)
	case len(learners) > 0:
		return fmt.Sprintf("without %s the rooms stand still, and if it is lost, so is what %s did not get in time", what, strings.Join(learners, " and "))
	}
	return fmt.Sprintf("without %s the rooms stand still, and if it is lost, so are they", what)
}
