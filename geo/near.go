package geo

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Distances says how far regions are from each other; false = not known. A *Table
// does, and so does who has measured.
type Distances interface {
	RTT(a, b string) (time.Duration, bool)
}

// byDistance returns regions by their round-trip time from one of them, which
// comes first if it is there; after them those of which nothing is known;
// by name among equals.
func byDistance(d Distances, from string, regions []string) []string {
	type at struct {
		region string
		rtt    time.Duration
	}
	all := make([]at, len(regions))
	for i, r := range regions {
		rtt, ok := d.RTT(from, r)
		switch {
		case r == from:
			rtt = -1
		case !ok:
			rtt = 1<<63 - 1
		}
		all[i] = at{r, rtt}
	}
	slices.SortFunc(all, func(a, b at) int {
		return cmp.Or(cmp.Compare(a.rtt, b.rtt), cmp.Compare(a.region, b.region))
	})
	order := make([]string, len(all))
	for i, a := range all {
		order[i] = a.region
	}
	return order
}

// Candidate is a node to which a client may go.
type Candidate struct {
	Site
	Why string
}

// maxCandidates bounds what a client is told.
const maxCandidates = 8

// Candidates returns the nodes to which a client in a region should go, the best
// first: those of the region, in an order that spreads clients by their key, then
// those of the nearest regions. Nodes that are not alive, or drain, are none.
func Candidates(from, key string, nodes []NodeState, d Distances) []Candidate {
	in := map[string][]string{}
	var regions []string
	for _, n := range nodes {
		if n.State != Alive {
			continue
		}
		if in[n.Region] == nil {
			regions = append(regions, n.Region)
		}
		in[n.Region] = append(in[n.Region], n.Node)
	}
	var all []Candidate
	for _, r := range byDistance(d, from, regions) {
		why := "it is in " + r
		if rtt, ok := d.RTT(from, r); r != from {
			why = "nobody knows how far " + r + " is"
			if ok {
				why = fmt.Sprintf("%s is %s from %s", r, ms(rtt), from)
			}
		}
		for _, node := range Rank(key, in[r]) {
			all = append(all, Candidate{Site{node, r}, why})
		}
	}
	return all[:min(len(all), maxCandidates)]
}
