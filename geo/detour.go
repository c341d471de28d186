package geo

import (
	"cmp"
	"slices"
)

// withDetours adds the ways over relays of third regions to those that go straight to
// replicas. A detour comes first only if it is clearly better: it is one more node
// that can fail.
func (q Hop) withDetours(straight []Way) []Way {
	var detours []Way
	for _, relay := range q.Detours() {
		if w, ok := q.detour(relay); ok && !q.waitsFor(relay, w, straight[0]) {
			detours = append(detours, w)
		}
	}
	slices.SortStableFunc(detours, func(a, b Way) int { return cmp.Compare(a.worth(), b.worth()) })
	if len(detours) > 0 && clearlyBetter(detours[0].worth(), straight[0].worth()) {
		return slices.Concat(detours[:1], straight, detours[1:])
	}
	return append(straight, detours...)
}

// Detours are the relays over which a detour may lead: one of each region that has no
// replica and is not that of Self, by name of the region.
func (q Hop) Detours() (relays []Site) {
	none := map[string]bool{q.Self.Region: true}
	for _, r := range q.Replicas {
		none[r.Region] = true
	}
	in := map[string][]string{}
	for _, a := range q.Alive {
		if !none[a.Region] {
			in[a.Region] = append(in[a.Region], a.Node)
		}
	}
	for region, nodes := range in {
		relays = append(relays, Site{Rank(q.Room, nodes)[0], region})
	}
	slices.SortFunc(relays, func(a, b Site) int { return cmp.Compare(a.Region, b.Region) })
	return relays
}

// detour is the way over a relay, which goes on to the replica that is best for
// it. ok is false if it is not measured: estimates keep to the triangle inequality
// or break it as it happens, and say nothing of a way around.
func (q Hop) detour(relay Site) (Way, bool) {
	first := q.Links(q.Self, relay)
	if first.By != Measured {
		return Way{}, false
	}
	var best Way
	for _, r := range q.alive {
		then := q.Links(relay, r)
		if then.By != Measured {
			continue
		}
		then = q.fromLeader(r, then)
		w := Way{To: relay, Role: Detour, Then: r, RTT: first.RTT + then.RTT, By: then.By, Price: first.Price + then.Price}
		if slices.Contains(q.Carries, relay.Node) {
			w.Price = first.Price
		}
		if best.Role == NoRole || w.worth() < best.worth() || w.worth() == best.worth() && w.Then.Node < best.Then.Node {
			best = w
		}
	}
	return best, best.Role != NoRole
}

// waitsFor reports whether a detour is for the other relay to take. Two relays
// that carry a room can each find the other cheaper than the way that it pays, and if both
// turned to the other, both would be counted on to go straight. The room's rank says who
// may.
func (q Hop) waitsFor(relay Site, w, straight Way) bool {
	if !slices.Contains(q.Carries, relay.Node) || Rank(q.Room, []string{q.Self.Node, relay.Node})[0] == relay.Node {
		return false
	}
	back := q.Links(relay, q.Self)
	mirrored := worth(back.RTT+straight.RTT, back.Price)
	own := q.fromLeader(w.Then, q.Links(relay, w.Then))
	return clearlyBetter(mirrored, worth(own.RTT, own.Price))
}
