package geo

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

// Voters returns the nodes of a group's first configuration: those that Place
// wants where every site is alive and holds nothing yet. The first one should
// lead.
func Voters(home string, survive Survive, sites []Site, d Distances, key string) []string {
	nodes := make([]NodeState, len(sites))
	for i, s := range sites {
		nodes[i] = NodeState{Site: s, State: Alive}
	}
	return Place(Policy{Home: home, Survive: survive, Key: key}, nodes, Config{}, d).Voters
}
