package geo

import (
	"cmp"
	"slices"
	"time"
)

// Duty is what those who follow a room at a node count on it for.
type Duty int

const (
	// NoDuty: nobody counts on the node, it may follow a relay of its region.
	NoDuty Duty = iota
	// RelayDuty: nodes of its region count on it to bring the room into the region.
	RelayDuty
	// LastDuty: a node counts on it to go to a replica itself.
	LastDuty
)

// Hop asks from where a node should get a room's events.
type Hop struct {
	Self Site
	// Room spreads the work of relaying over the nodes of a region.
	Room     string
	Replicas []Site // of the room's group
	Leader   Site   // of the group: its events come to the replicas from there; empty = not known
	Alive    []Site // the nodes that Self can reach; it counts as one itself
	Duty     Duty   // of Self
	// Carries are relays that have the room already, straight from a replica: what
	// they get costs nothing more.
	Carries []string
	// Links says what is known of the ways between nodes; nil = the table.
	Links Links

	alive []Site // the replicas that are
}

// Role is what the node that is followed is.
type Role string

// The roles of a node that is followed for a room.
const (
	NoRole      Role = ""             // nobody is followed
	NearReplica Role = "near replica" // in the region
	RegionRelay Role = "region relay" // brings the room into the region
	FarReplica  Role = "far replica"
	Detour      Role = "detour" // a relay in a third region
)

// Way is how a room's events come to a node.
type Way struct {
	To   Site // the node to follow; empty = nobody
	Role Role
	// Then is the replica at which To is counted on to follow, if it is a detour.
	Then Site
	// RTT is that of all of the way, from the leader on if that is known; Price what a GB
	// costs on all of it that is not carried anyway.
	RTT   time.Duration
	By    Source // the worst of its parts
	Price float64
}

// Asks is what To is counted on for.
//
// This is what keeps ways from becoming circles: a node that follows another has
// a smaller duty than the one that it asks for, up to LastDuty, and a node with that
// goes to a replica. Along a way duties therefore only rise; a circle would have to
// come back to the smaller one it began with. It needs no agreement on who is alive, how far things
// are or who is the relay: only the last node's own idea of where the replicas are.
// Two nodes with LastDuty that each hold the other for a replica, by two outdated
// directories, are all that is left, until the directory has reached one of them.
func (w Way) Asks() Duty {
	if w.Role == RegionRelay {
		return RelayDuty
	}
	return LastDuty
}

func (w Way) worth() time.Duration { return worth(w.RTT, w.Price) }

// same reports whether another decision came to the same way.
func (w Way) same(o Way) bool { return w.To == o.To && w.Role == o.Role }

// Decision is the way that a node takes, and what the next decision needs to know
// of this one. The zero one is that of a node that has not decided yet.
type Decision struct {
	Way
	// Others are the ways that were not taken, the best first.
	Others []Way
	// Better is a way that is clearly better since a time; it is taken if that lasts.
	Better Way
	Since  time.Time // zero = there is none
	why    string
}

// Review is when to decide again although nothing has changed; zero = never.
func (d Decision) Review() time.Time {
	if d.Since.IsZero() {
		return time.Time{}
	}
	return d.Since.Add(Hold)
}

// NextRelay decides whom a node follows for a room: nobody if it holds a replica itself,
// or if there is none at all.
//
// It is a replica of the region if one is alive; otherwise the region's relay
// for the room; otherwise, for the relay itself, the best replica that is alive by
// round-trip time and price, or one detour: the relay of a third region, if the
// way over it is measured and clearly better. So one copy of an event goes to a
// far region, whichever way it takes; Way.Asks says why there is never a circle.
//
// Where last is still possible it stays until another way has been clearly better
// for Hold: times that jitter move nothing.
func NextRelay(q Hop, last Decision, now time.Time) Decision {
	ways, why := q.ways()
	if len(ways) == 0 {
		return Decision{why: why}
	}
	d := Decision{Way: ways[0], Others: ways[1:], why: why}
	i := slices.IndexFunc(ways, last.Way.same)
	if i <= 0 {
		return d
	}
	d.Way, d.Others = ways[i], slices.Delete(slices.Clone(ways), i, i+1)
	if !clearlyBetter(ways[0].worth(), ways[i].worth()) {
		return d
	}
	d.Better, d.Since = ways[0], now
	if last.Better.same(ways[0]) && !last.Since.IsZero() {
		d.Since = last.Since
	}
	if now.Sub(d.Since) >= Hold {
		return Decision{Way: ways[0], Others: ways[1:], why: why}
	}
	return d
}

// ways returns the possible ways, the best first, and why there are no others.
func (q Hop) ways() (ways []Way, why string) {
	isReplica := func(s Site) bool { return contains(q.Replicas, s.Node) }
	if isReplica(q.Self) {
		return nil, "it holds a replica itself"
	}
	if q.Links == nil {
		q.Links = TableLinks(Pops())
	}
	var near, far, dead []string
	regionOf := map[string]string{}
	for _, r := range q.Replicas {
		regionOf[r.Node] = r.Region
		switch {
		case !contains(q.Alive, r.Node):
			dead = append(dead, r.Node)
		case r.Region == q.Self.Region:
			near = append(near, r.Node)
		default:
			far = append(far, r.Node)
			q.alive = append(q.alive, r)
		}
	}
	site := func(node string) Site { return Site{node, regionOf[node]} }
	if len(near) > 0 {
		for _, node := range Rank(q.Room, near) {
			ways = append(ways, q.straight(site(node), NearReplica))
		}
		return ways[:1], "a replica of the region comes before all others"
	}
	if relay := q.regionRelay(); q.Duty == NoDuty && relay != q.Self {
		return []Way{q.straight(relay, RegionRelay)}, "one node brings the room into the region for all others there"
	}
	if len(far) == 0 {
		for _, node := range Rank(q.Room, dead)[:min(1, len(dead))] {
			ways = append(ways, q.straight(site(node), FarReplica))
		}
		return ways, "no replica can be reached"
	}
	for _, node := range Rank(q.Room, far) {
		ways = append(ways, q.straight(site(node), FarReplica))
	}
	ways = spread(ways)
	if q.Duty == LastDuty {
		return ways, "another region counts on it to go to a replica"
	}
	return q.withDetours(ways), ""
}

func contains(sites []Site, node string) bool {
	return slices.ContainsFunc(sites, func(s Site) bool { return s.Node == node })
}

// straight is the way to a node itself.
func (q Hop) straight(to Site, role Role) Way {
	l := q.Links(q.Self, to)
	if role == FarReplica {
		l = q.fromLeader(to, l)
	}
	return Way{To: to, Role: role, RTT: l.RTT, By: l.By, Price: l.Price}
}

// fromLeader adds to a way to a replica how events come to that: a near one may be far from
// the leader. They go there in any case, so that costs nothing.
func (q Hop) fromLeader(replica Site, l Link) Link {
	if q.Leader.Node == "" || q.Leader == replica {
		return l
	}
	on := q.Links(q.Leader, replica)
	l.RTT += on.RTT
	if slices.Index(sources, on.By) > slices.Index(sources, l.By) {
		l.By = on.By
	}
	return l
}

// spread orders ways to replicas, which come by rank: the best first, but those of
// its region that are about as good go by rank, so that rooms spread over them.
func spread(ways []Way) []Way {
	best := slices.MinFunc(ways, func(a, b Way) int { return cmp.Compare(a.worth(), b.worth()) })
	first := slices.IndexFunc(ways, func(w Way) bool {
		return w.To.Region == best.To.Region && !clearlyBetter(best.worth(), w.worth())
	})
	head := ways[first]
	rest := slices.Delete(slices.Clone(ways), first, first+1)
	slices.SortStableFunc(rest, func(a, b Way) int { return cmp.Compare(a.worth(), b.worth()) })
	return append([]Way{head}, rest...)
}

// regionRelay returns the node of Self's region that all others there follow.
func (q Hop) regionRelay() Site {
	nodes := []string{q.Self.Node}
	for _, a := range q.Alive {
		if a.Region == q.Self.Region && a.Node != q.Self.Node {
			nodes = append(nodes, a.Node)
		}
	}
	return Site{Rank(q.Room, nodes)[0], q.Self.Region}
}
