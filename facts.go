package starling

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/starling-im/starling/geo"
	"github.com/starling-im/starling/mesh"
)

// LinkFacts is what a node knows of its link to another: round trips in
// milliseconds, and the price of a GB.
type LinkFacts struct {
	To     string  `json:"to"`
	RTT    float64 `json:"rtt_ms"` // smoothed
	Min    float64 `json:"min_ms"`
	Jitter float64 `json:"jitter_ms"`
	Price  float64 `json:"price,omitzero"`
}

// heard is what another node has said of its links.
type heard struct {
	links map[string]LinkFacts
	at    time.Time
}

const (
	// factsEvery is how often other nodes are asked for what they have measured, and
	// factsFor how long it is believed.
	factsEvery = 10 * time.Second
	factsFor   = time.Minute
	// factsAsked bounds how many are asked: the nearest of other regions, since a
	// detour leads over none that is far. factsMost bounds what one says.
	factsAsked = 16
	factsMost  = 1024
	// settled is how wrong a coordinate may hold itself to be to count.
	settled = 0.5
	// besides is the round trip between nodes of one region that is not in the table.
	besides = time.Millisecond
)

func inMS(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func fromMS(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }

// factsHere is what this node knows of its links.
func (n *Node) factsHere() []LinkFacts {
	facts := []LinkFacts{}
	for _, m := range n.mesh.View().Members {
		if m.Linked && len(facts) < factsMost {
			facts = append(facts, LinkFacts{m.ID, inMS(m.RTT), inMS(m.MinRTT), inMS(m.Jitter), n.cfg.price(geo.Site{Node: m.ID, Region: m.Region})})
		}
	}
	return facts
}

// known returns what this node knows of the ways between nodes: what it has measured
// itself, what others have told of their links, coordinates, and the table.
func (n *Node) known() geo.Links {
	view, told := n.mesh.View(), n.ways.told()
	half := func(from, to geo.Site) (rtt time.Duration, price float64) {
		if from.Node == n.cfg.Node {
			m, _ := view.Member(to.Node)
			return m.RTT, n.cfg.price(to)
		}
		f := told[from.Node].links[to.Node]
		return fromMS(f.RTT), f.Price
	}
	return func(a, b geo.Site) geo.Link {
		rtt, price := half(a, b)
		back, too := half(b, a)
		ma, _ := view.Member(a.Node)
		mb, _ := view.Member(b.Node)
		tabled, _ := geo.Pops().RTT(a.Region, b.Region)
		if a.Region == b.Region {
			tabled = besides
		}
		if back > 0 && (rtt == 0 || b.Node == n.cfg.Node) {
			rtt = back
		}
		d, by := geo.Know(rtt, estimate(ma, mb), tabled)
		return geo.Link{RTT: d, By: by, Price: max(price, too)}
	}
}

// estimate is that of two members' coordinates, 0 if they do not know yet where they are.
func estimate(a, b mesh.Member) time.Duration {
	if a.Coordinate.Error() > settled || b.Coordinate.Error() > settled {
		return 0
	}
	return a.Coordinate.RTT(b.Coordinate)
}

// distances are those between regions as this node knows them: measured between
// it and the nearest node of another region, else estimated, else those of the table.
type distances struct{ node *Node }

// RTT implements geo.Distances.
func (d distances) RTT(a, b string) (time.Duration, bool) {
	if a == b {
		return 0, true
	}
	n := d.node
	self := n.cfg.Region
	var measured, estimated time.Duration
	least := func(to *time.Duration, rtt time.Duration) {
		if rtt > 0 && (*to == 0 || rtt < *to) {
			*to = rtt
		}
	}
	var inA, inB mesh.Member // the first of each region that says where it is
	for _, m := range n.mesh.View().Members {
		if m.Region != a && m.Region != b {
			continue
		}
		first, other := &inA, b
		if m.Region == b {
			first, other = &inB, a
		}
		if self == other {
			least(&measured, m.RTT)
		}
		if first.ID == "" && m.State.Here() && m.Coordinate.Known() {
			*first = m
		}
	}
	least(&estimated, estimate(inA, inB))
	tabled, _ := geo.Pops().RTT(a, b)
	rtt, by := geo.Know(measured, estimated, tabled)
	return rtt, by != geo.Guessed
}

// askWays asks the nearest nodes of other regions for what they have measured, as
// long as rooms are followed in other regions, until ctx ends.
func (n *Node) askWays(ctx context.Context) {
	for ctx.Err() == nil {
		if n.ways.far() {
			n.ways.hear(n.facts(ctx), time.Now())
		}
		wait(ctx, factsEvery)
	}
}

func (n *Node) facts(ctx context.Context) map[string][]LinkFacts {
	var asked []mesh.Member
	for _, m := range n.mesh.View().Members {
		if m.Linked && m.Region != n.cfg.Region {
			asked = append(asked, m)
		}
	}
	slices.SortFunc(asked, func(a, b mesh.Member) int { return cmp.Compare(a.RTT, b.RTT) })
	ctx, cancel := context.WithTimeout(ctx, gatherWithin)
	defer cancel()
	all := map[string][]LinkFacts{}
	var mu sync.Mutex
	var asking sync.WaitGroup
	for _, m := range asked[:min(len(asked), factsAsked)] {
		asking.Go(func() {
			if facts, err := n.factsOf(ctx, m.ID); err == nil {
				mu.Lock()
				all[m.ID] = facts
				mu.Unlock()
			}
		})
	}
	asking.Wait()
	return all
}

// factsOf asks a node for what it knows of its links.
func (n *Node) factsOf(ctx context.Context, node string) (facts []LinkFacts, err error) {
	if node == n.cfg.Node {
		return n.factsHere(), nil
	}
	err = n.askNode(ctx, node, &facts, queryWaysHere)
	return facts[:min(len(facts), factsMost)], err
}

// hear takes what others have measured, and says so if it changes anything.
func (w *ways) hear(all map[string][]LinkFacts, now time.Time) {
	before := w.told()
	after := maps.Clone(before)
	maps.DeleteFunc(after, func(_ string, h heard) bool { return now.Sub(h.at) > factsFor })
	news := len(after) < len(before)
	for node, facts := range all {
		h := heard{links: map[string]LinkFacts{}, at: now}
		for _, f := range facts {
			if !(f.RTT >= 0 && f.RTT <= maxToldMS && f.Price >= 0 && f.Price <= geo.MaxPrice) {
				continue // it cannot be
			}
			was, ok := before[node].links[f.To]
			news = news || !ok || f.Price != was.Price || max(f.RTT-was.RTT, was.RTT-f.RTT) >= max(1, was.RTT/10)
			h.links[f.To] = f
		}
		after[node] = h
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.heard = after
	if news {
		close(w.news)
		w.news = make(chan struct{})
	}
}

// maxToldMS is the longest round trip that another node is believed, in milliseconds.
const maxToldMS = 10_000
