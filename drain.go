package starling

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/starling-im/starling/geo"
	"github.com/starling-im/starling/wire"
)

// The stages in which a node goes away, in their order.
const (
	StageServing  = "serving"  // it does not
	StageReplicas = "replicas" // of a node that goes for good: others take them over
	StageLeads    = "leads"    // other voters take over what it leads
	StageClients  = "clients"  // they go to other nodes
	StageLinks    = "links"    // nothing is left but to say goodbye
	StageLeft     = "left"
)

// DrainInfo says how far a node is on its way out, in the answers to the queries
// "node.drain", "node.leave" and "node.progress".
type DrainInfo struct {
	Node  string `json:"node"`
	Stage string `json:"stage"`
	// Leaving: it goes for good.
	Leaving bool `json:"leaving,omitzero"`
	// Leads counts the groups that it leads, Clients those that it serves.
	Leads   int `json:"leads"`
	Clients int `json:"clients"`
	// Replicas are the groups that a node which leaves has yet to give up.
	Replicas []uint32 `json:"replicas,omitempty"`
}

const (
	// drainLook is the pause between two looks at how far a node is.
	drainLook = 50 * time.Millisecond
	// leadsWithin bounds the time for which leads are handed over: Raft elects
	// others at the latest when the node is gone.
	leadsWithin = 20 * time.Second
	// clientsLate is how much later than it was asked to a client may go, before its
	// connection is closed.
	clientsLate = 3 * time.Second
	// windowLeast, windowEach and windowMost say for how long the clients spread their
	// going: a core lets in about 1,300 a second, and those of a node that has
	// gone come to few others.
	windowLeast = time.Second
	windowEach  = 2 * time.Millisecond
	windowMost  = time.Minute
	// linksRest is how long a node without clients goes on speaking to the others:
	// those that follow a room here hear of it within that, and follow it elsewhere.
	linksRest = time.Second
)

// errGone ends a node that has drained.
var errGone = errors.New("the node has drained")

// drain takes a node out of service without anybody noticing.
type drain struct {
	node *Node

	mu     sync.Mutex
	stage  string
	window time.Duration // in which clients go; 0 = by how many they are
	forced bool          // also where that leaves groups without a quorum, or replicas behind
	begun  chan struct{}

	going context.Context // ends when clients are to go
	tell  context.CancelFunc
}

func newDrain(n *Node) *drain {
	d := &drain{node: n, stage: StageServing, begun: make(chan struct{})}
	d.going, d.tell = context.WithCancel(context.Background())
	return d
}

// begin starts to drain the node; it may be asked for again.
func (d *drain) begin(user string, window time.Duration, forced bool) error {
	n := d.node
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.forced = d.forced || forced; d.stage != StageServing {
		return nil
	}
	if stuck := n.stuckWithout(n.cfg.Node); len(stuck) > 0 && !d.forced {
		return wire.Errorf(wire.CodeConflict, "the rooms of groups %v would stand still without %s: they have no quorum of other voters that are there; wait for those, give the region another node, or force it", stuck, n.cfg.Node)
	}
	n.log.Warn("audit: the node drains", "by", user, "forced", d.forced)
	d.stage, d.window = StageLeads, window
	n.mesh.SetDraining(true)
	close(d.begun)
	return nil
}

// closed is why the door lets in no more clients, nil if it does.
func (d *drain) closed() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stage == StageServing || d.stage == StageReplicas {
		return nil
	}
	return wire.Errorf(wire.CodeShuttingDown, "the node is going away")
}

func (d *drain) enter(stage string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stage = stage
}

func (d *drain) info() DrainInfo {
	n := d.node
	d.mu.Lock()
	defer d.mu.Unlock()
	i := DrainInfo{Node: n.cfg.Node, Stage: d.stage, Leads: len(n.leads()), Clients: n.door.Sessions()}
	if is, _ := n.dir.state().Node(n.cfg.Node); is.Leaving {
		i.Leaving, i.Replicas = true, n.replicasHere()
		if i.Stage == StageServing {
			i.Stage = StageReplicas
		}
	}
	return i
}

// run drains the node once it is asked for, and ends it then.
func (d *drain) run(ctx context.Context) {
	select {
	case <-d.begun:
	case <-ctx.Done():
		return
	}
	var shedding sync.WaitGroup
	defer shedding.Wait()
	led := make(chan struct{})
	shedding.Go(func() { d.shed(ctx, led) })
	select {
	case <-led:
	case <-time.After(leadsWithin):
		d.node.log.Warn("not all leads could be handed over; others are elected when the node is gone", "groups", d.node.leads())
	case <-ctx.Done():
		return
	}
	d.spared(ctx)
	d.enter(StageClients)
	d.tell()
	d.emptied(ctx)
	d.enter(StageLinks)
	wait(ctx, linksRest)
	d.spared(ctx)
	if err := d.depart(ctx); err != nil {
		d.node.log.Error("the directory could not be told that this node has left; it is still a member", "err", err)
	}
	d.node.fail(errGone)
}

// spared waits until no rooms would stand still without the node, or it is forced: a leader
// that had not heard of the drain yet may have given it a vote since it was asked for, and
// gives one to others next.
func (d *drain) spared(ctx context.Context) {
	for told := false; ctx.Err() == nil; told = true {
		stuck := d.node.stuckWithout(d.node.cfg.Node)
		d.mu.Lock()
		forced := d.forced
		d.mu.Unlock()
		if len(stuck) == 0 || forced {
			return
		}
		if !told {
			d.node.log.Warn("the drain waits: rooms would stand still, and did not when it began", "groups", stuck)
		}
		wait(ctx, drainLook)
	}
}

// shed hands over what the node leads until ctx ends: a leader elsewhere that has not
// heard yet may give a lead back. It closes led when nothing is led here for the first time.
func (d *drain) shed(ctx context.Context, led chan struct{}) {
	n := d.node
	done := false
	for ctx.Err() == nil {
		waiting := 0
		for _, id := range n.leads() {
			to := n.successor(id)
			if to == "" {
				continue // nobody can; whoever forced it knows
			}
			waiting++
			if _, err := n.host.Transfer(ctx, id, to); err != nil {
				n.log.Debug("a lead could not be handed over", "group", id, "to", to, "err", err)
			}
		}
		if waiting == 0 && !done {
			done = true
			close(led)
		}
		wait(ctx, drainLook)
	}
}

// leads are the groups that this node leads.
func (n *Node) leads() (ids []uint32) {
	for _, s := range n.host.Status() {
		if s.State == "leader" {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// successor is who should lead a group after this node, "" if nobody can.
func (n *Node) successor(group uint32) string {
	p, err := n.reconciler.explain(group)
	if err != nil {
		return ""
	}
	for _, v := range slices.Concat(p.WantVoters, p.Voters) {
		if v != n.cfg.Node && slices.Contains(p.Voters, v) && !slices.Contains(p.silent, v) && !n.draining(v) {
			return v
		}
	}
	return ""
}

// emptied waits until the last client has gone, or should have.
func (d *drain) emptied(ctx context.Context) {
	late := time.NewTimer(d.lasts() + clientsLate)
	defer late.Stop()
	for d.node.door.Sessions() > 0 {
		select {
		case <-late.C:
			d.node.log.Warn("clients that were asked to go are still here", "clients", d.node.door.Sessions())
			return
		case <-ctx.Done():
			return
		case <-time.After(drainLook):
		}
	}
}

// lasts is the window in which clients go.
func (d *drain) lasts() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.window == 0 {
		d.window = min(windowMost, max(windowLeast, time.Duration(d.node.door.Sessions())*windowEach))
	}
	return d.window
}

// goaway tells a client where to go, and when.
func (d *drain) goaway() *wire.Goaway {
	return &wire.Goaway{Alternates: d.node.alternates(), AfterMaxMs: uint32(d.lasts().Milliseconds())}
}

// alternates are the addresses of nodes that a client of this one can go to, the best
// first. Each client gets an order of its own, so that they spread.
func (n *Node) alternates() (addrs []string) {
	view := n.mesh.View()
	for _, c := range geo.Candidates(n.cfg.Region, rand.Text(), n.reconciler.fleet.nodes(), distances{n}) {
		m, _ := view.Member(c.Node)
		near := n.cfg.Reachability == ReachOutbound && m.Region == n.cfg.Region // behind one firewall
		if c.Node != n.cfg.Node && m.Linked && (!m.Outbound || near) {
			addrs = append(addrs, m.Addr)
		}
	}
	return addrs
}
