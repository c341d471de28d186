package starling

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/starling-im/starling/geo"
	"github.com/starling-im/starling/relay"
	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// TripInfo is one row of the answer to the query "rtt": all that is known of the round
// trip between two nodes or regions, in milliseconds; 0 = that is not known.
type TripInfo struct {
	From     string  `json:"from"`
	To       string  `json:"to"`
	Measured float64 `json:"measured_ms,omitzero"` // smoothed, on the link
	Min      float64 `json:"min_ms,omitzero"`
	Jitter   float64 `json:"jitter_ms,omitzero"`
	Estimate float64 `json:"estimate_ms,omitzero"` // of their coordinates
	Table    float64 `json:"table_ms,omitzero"`    // between their regions
	Price    float64 `json:"price,omitzero"`       // per GB, as From has it
}

// PathInfo is the answer to the query "path": how the events of a room come to a region.
type PathInfo struct {
	Room   string    `json:"room"`
	Region string    `json:"region"`
	Group  uint32    `json:"group"`
	Hops   []HopInfo `json:"hops"` // from the node of the region to a replica
	RTT    float64   `json:"rtt_ms"`
	Price  float64   `json:"price,omitzero"`
	// Incomplete says why the last hop is not that of a replica.
	Incomplete string `json:"incomplete,omitempty"`
}

// HopInfo is what one node decides for a room.
type HopInfo struct {
	Node    string  `json:"node"`
	Region  string  `json:"region"`
	Follows string  `json:"follows,omitempty"` // "" = nobody
	Role    string  `json:"role,omitempty"`    // of the node that it follows
	RTT     float64 `json:"rtt_ms"`            // of this hop alone
	By      string  `json:"by,omitempty"`      // measured, estimated, table or guessed
	Price   float64 `json:"price,omitzero"`
	// Followed: it does follow the room now; else this is what it would do.
	Followed bool     `json:"followed"`
	Why      []string `json:"why"` // sentences: the decision, then what was not taken
	Asks     int      `json:"asks"`
	Group    uint32   `json:"group"`
}

// What operators may ask of ways, and what nodes ask each other.
const (
	queryTrip = "rtt"  // A B: nodes or regions
	queryPath = "path" // APP ROOM REGION

	queryWaysHere    = "ways.here"
	queryCarriesHere = "carries.here" // APP ROOM
	queryPathHere    = "path.here"    // APP ROOM DUTY
)

var wayQueries = map[string]arity{queryTrip: {2, 2}, queryPath: {3, 3}}

// wayQuery answers what is asked about ways; ok is false if it is nothing of this.
func (n *Node) wayQuery(ctx context.Context, p relay.Peer, q *wire.Query) (answer []byte, ok bool, err error) {
	var result any
	a := q.Args
	bounds, operators := wayQueries[q.What]
	switch {
	case p.Node != "" && q.What == queryWaysHere:
		result = n.factsHere()
	case p.Node != "" && q.What == queryCarriesHere && len(a) == 2:
		t, followed := n.ways.of(room.ID{App: a[0], Room: a[1]})
		result = followed && t.Role == geo.FarReplica
	case p.Node != "" && q.What == queryPathHere && len(a) == 3:
		duty, _ := strconv.Atoi(a[2])
		result, err = n.hopHere(ctx, room.ID{App: a[0], Room: a[1]}, geo.Duty(duty))
	case !operators || p.Node != "":
		return nil, false, nil
	default:
		if err := bounds.check(p, q); err != nil {
			return nil, true, err
		}
		if q.What == queryTrip {
			result, err = n.trips(ctx, a[0], a[1])
		} else {
			result, err = n.path(ctx, room.ID{App: a[0], Room: a[1]}, a[2])
		}
	}
	if err != nil {
		return nil, true, err
	}
	answer, err = json.Marshal(result)
	return answer, true, err
}

// tripsOf bounds the nodes of a region that are compared with those of another.
const tripsOf = 8

// named are the nodes that a name means: one, or some of a region. A region without nodes
// is there if the table has it.
func (n *Node) named(name string) ([]geo.Site, error) {
	var sites []geo.Site
	for _, m := range n.mesh.View().Members {
		if m.ID == name {
			return []geo.Site{{Node: m.ID, Region: m.Region}}, nil
		}
		if m.Region == name && len(sites) < tripsOf {
			sites = append(sites, geo.Site{Node: m.ID, Region: m.Region})
		}
	}
	if _, ok := geo.Pops().Place(name); !ok && len(sites) == 0 {
		return nil, wire.Errorf(wire.CodeNotFound, "%q is neither a node nor a region", name)
	}
	if len(sites) == 0 {
		sites = []geo.Site{{Region: name}}
	}
	return sites, nil
}

func (n *Node) trips(ctx context.Context, from, to string) ([]TripInfo, error) {
	a, err := n.named(from)
	if err != nil {
		return nil, err
	}
	b, err := n.named(to)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, gatherWithin)
	defer cancel()
	all := []TripInfo{}
	for _, x := range a {
		told := map[string]LinkFacts{}
		if x.Node != "" {
			facts, _ := n.factsOf(ctx, x.Node) // one that does not answer has told nothing
			for _, f := range facts {
				told[f.To] = f
			}
		}
		for _, y := range b {
			if x.Node == "" || x.Node != y.Node {
				all = append(all, n.trip(x, y, told[y.Node]))
			}
		}
	}
	return all, nil
}

func (n *Node) trip(x, y geo.Site, f LinkFacts) TripInfo {
	t := TripInfo{From: x.Node, To: y.Node, Measured: f.RTT, Min: f.Min, Jitter: f.Jitter, Price: f.Price}
	if t.From == "" {
		t.From = x.Region
	}
	if t.To == "" {
		t.To = y.Region
	}
	mx, _ := n.mesh.View().Member(x.Node)
	my, _ := n.mesh.View().Member(y.Node)
	t.Estimate = inMS(estimate(mx, my))
	tabled, _ := geo.Pops().RTT(x.Region, y.Region)
	t.Table = inMS(tabled)
	return t
}

// longestPath bounds the hops of a path: a node, the relay of its region, one detour, a
// replica.
const longestPath = 4

// path asks node after node whom it follows for a room, beginning with the one that a
// client of a region would be sent to.
func (n *Node) path(ctx context.Context, id room.ID, region string) (PathInfo, error) {
	if err := id.Validate(); err != nil {
		return PathInfo{}, wire.Errorf(wire.CodeBadRequest, "%v", err)
	}
	info := PathInfo{Room: id.Room, Region: region, Hops: []HopInfo{}}
	first := geo.Candidates(region, id.Room, n.nodeStates(nil), distances{n})
	if len(first) == 0 || first[0].Region != region {
		return PathInfo{}, wire.Errorf(wire.CodeNotFound, "no node of region %q is alive", region)
	}
	at, duty := first[0].Node, geo.NoDuty
	for len(info.Hops) < longestPath {
		h, err := n.hopAt(ctx, at, id, duty)
		if err != nil {
			info.Incomplete = err.Error()
			return info, nil
		}
		info.Hops, info.Group = append(info.Hops, h), h.Group
		info.RTT += h.RTT
		info.Price += h.Price
		if h.Follows == "" {
			return info, nil
		}
		at, duty = h.Follows, geo.Duty(h.Asks)
	}
	info.Incomplete = "the nodes do not see the same mesh now"
	return info, nil
}

func (n *Node) hopAt(ctx context.Context, node string, id room.ID, duty geo.Duty) (h HopInfo, err error) {
	if node == n.cfg.Node {
		return n.hopHere(ctx, id, duty)
	}
	ctx, cancel := context.WithTimeout(ctx, gatherWithin)
	defer cancel()
	err = n.askHere(ctx, node, &h, queryPathHere, id.App, id.Room, strconv.Itoa(int(duty)))
	return h, err
}

// hopHere is whom this node follows for a room, or would follow.
func (n *Node) hopHere(ctx context.Context, id room.ID, duty geo.Duty) (HopInfo, error) {
	f, err := n.places.find(ctx, id)
	if err != nil {
		return HopInfo{}, err
	}
	q, err := n.hop(id, f.group, duty)
	if err != nil {
		return HopInfo{}, err
	}
	t, followed := n.ways.of(id)
	followed = followed && t.duty >= duty
	d := t.Decision
	if !followed {
		d = geo.NextRelay(q, geo.Decision{}, time.Now())
	}
	h := HopInfo{Node: n.cfg.Node, Region: n.cfg.Region, Follows: d.To.Node, Role: string(d.Role), Followed: followed, Why: d.Explain(), Asks: int(d.Asks()), Group: f.group}
	if d.Role != geo.NoRole {
		l := q.Links(q.Self, d.To)
		h.RTT, h.By, h.Price = inMS(l.RTT), string(l.By), l.Price
	}
	return h, nil
}
