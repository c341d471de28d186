package geo

import "slices"

// Survive is what a group of replicas must live through without losing a
// message or its ability to take more.
type Survive string

const (
	// SurviveRegion is the loss of a region: voters in three regions.
	SurviveRegion Survive = "region"
	// SurviveNode is the loss of a node: three voters in the home region.
	SurviveNode Survive = "node"
	// SurviveNone is nothing: one voter.
	SurviveNone Survive = "none"
)

// Site is a node and its region.
type Site struct{ Node, Region string }

// groupVoters is how many voters a group has that survives anything.
const groupVoters = 3

// Voters returns the nodes that should vote in a group with this home, fewer
// where there are fewer sites than the policy asks for. The first one is in the
// home region and should lead; without a site there, SurviveRegion starts at
// the nearest region and the others have no voters. key spreads groups over
// the nodes of a region. A policy that is not known is SurviveNone.
func Voters(home string, survive Survive, sites []Site, t *Table, key string) []string {
	nodes := make(map[string][]string) // of each region
	var regions []string
	for _, s := range sites {
		if slices.Contains(nodes[s.Region], s.Node) {
			continue
		}
		if nodes[s.Region] == nil {
			regions = append(regions, s.Region)
		}
		nodes[s.Region] = append(nodes[s.Region], s.Node)
	}
	local := Rank(key, nodes[home])
	switch survive {
	case SurviveRegion:
		var voters []string
		for _, r := range t.byDistance(home, regions) {
			if len(voters) < groupVoters {
				voters = append(voters, Rank(key, nodes[r])[0])
			}
		}
		return voters
	case SurviveNode:
		return local[:min(groupVoters, len(local))]
	}
	return local[:min(1, len(local))]
}
