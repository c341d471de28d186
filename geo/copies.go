package geo

import "slices"

// copiesMost bounds the learners of Copies.
const copiesMost = 16

// Copies returns a node of each region that has no voter, for what is read
// everywhere: one that has a copy, else any that is alive.
func Copies(p Placement, nodes []NodeState, now Config) []string {
	served := map[string]bool{}
	for _, n := range nodes {
		if slices.Contains(p.Voters, n.Node) {
			served[n.Region] = true
		}
	}
	var copies []string
	for _, fresh := range []bool{false, true} {
		for _, n := range nodes {
			has := slices.Contains(now.Learners, n.Node)
			stays := n.State == Alive || has && (n.State == Draining || n.State == Failed && n.FailedFor < FailedGrace)
			if !served[n.Region] && stays && has != fresh && len(copies) < copiesMost {
				served[n.Region] = true
				copies = append(copies, n.Node)
			}
		}
	}
	return copies
}
