package geo

import "slices"

// Hop asks from where a node should get a room's events.
type Hop struct {
	Self Site
	// Room spreads the work of relaying over the nodes of a region.
	Room     string
	Replicas []Site // of the room's group
	Alive    []Site // the nodes that Self can reach; it counts as one itself
	// AsRelay: another node of the region counts on Self to be its relay.
	AsRelay bool
}

// NextRelay returns the node to follow for a room, "" if Self holds a replica
// itself, or if there is none at all.
//
// It is a replica of the region if one is alive; otherwise the region's relay
// for the room; otherwise, for the relay itself, the nearest replica that is
// alive. So one copy of an event goes to a far region. A relay goes to a
// replica whatever it thinks of its own role: nodes that see different meshes
// never follow each other in a circle.
func NextRelay(q Hop) string {
	if slices.ContainsFunc(q.Replicas, func(r Site) bool { return r.Node == q.Self.Node }) {
		return ""
	}
	alive := make(map[string][]string) // replicas of each region
	var regions, all []string
	for _, r := range q.Replicas {
		all = append(all, r.Node)
		if !slices.ContainsFunc(q.Alive, func(a Site) bool { return a.Node == r.Node }) {
			continue
		}
		if alive[r.Region] == nil {
			regions = append(regions, r.Region)
		}
		alive[r.Region] = append(alive[r.Region], r.Node)
	}
	if near := alive[q.Self.Region]; near != nil {
		return Rank(q.Room, near)[0]
	}
	if !q.AsRelay {
		if relay := regionRelay(q); relay != q.Self.Node {
			return relay
		}
	}
	switch {
	case len(regions) > 0:
		return Rank(q.Room, alive[nearest(q.Self.Region, regions, q.Room)])[0]
	case len(all) > 0:
		return Rank(q.Room, all)[0]
	}
	return ""
}

// regionRelay returns the node of the region that all others there follow.
func regionRelay(q Hop) string {
	nodes := []string{q.Self.Node}
	for _, a := range q.Alive {
		if a.Region == q.Self.Region && a.Node != q.Self.Node {
			nodes = append(nodes, a.Node)
		}
	}
	return Rank(q.Room, nodes)[0]
}

// nearest returns the region at the shortest round-trip time; where the table
// says nothing, any, but the same for a room.
func nearest(from string, regions []string, key string) string {
	if near, ok := Pops().Nearest(from, regions); ok {
		return near
	}
	return Rank(key, regions)[0]
}
