package starling

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/starling-im/starling/directory"
	"github.com/starling-im/starling/geo"
	"github.com/starling-im/starling/wire"
)

// leaveLook is the pause between two looks at what a leaving node still holds.
const leaveLook = time.Second

// keepLeaving takes this node out of service for good once the directory says that it
// is to go and it holds nothing any more. What it holds the leaders of its groups move,
// so that a restart on the way changes nothing.
func (n *Node) keepLeaving(ctx context.Context) {
	tick := time.NewTicker(leaveLook)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if is, _ := n.dir.state().Node(n.cfg.Node); !is.Leaving || len(n.replicasHere()) > 0 {
			continue
		}
		if err := n.drain.begin(directory.SystemApp, 0, false); err != nil {
			n.log.Warn("the node is to leave and cannot drain yet", "err", err)
		}
	}
}

// replicasHere are the groups of which this node holds a replica, or should.
func (n *Node) replicasHere() (ids []uint32) {
	for _, g := range n.allGroups() {
		r := g.Replicas()
		if slices.Contains(r.Voters, n.cfg.Node) || slices.Contains(r.Learners, n.cfg.Node) {
			ids = append(ids, g.ID)
		}
	}
	return ids
}

// allGroups are the groups of the directory, and its own.
func (n *Node) allGroups() []directory.Group {
	root, _ := n.group(0)
	return append([]directory.Group{root}, n.dir.state().Groups()...)
}

// depart takes this node out of the directory, if it is to leave. Whoever forced it to go
// with replicas has it revoked: they are made anew elsewhere.
func (d *drain) depart(ctx context.Context) error {
	n := d.node
	if is, _ := n.dir.state().Node(n.cfg.Node); !is.Leaving {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, departWithin)
	defer cancel()
	change := directory.Change{DeleteNode: n.cfg.Node}
	if len(n.replicasHere()) > 0 {
		change = directory.Change{RevokeNode: n.cfg.Node}
	}
	id := rand.Text() // of this change, however often it has to be asked for
	for {
		err := n.dir.change(ctx, id, directory.SystemApp, change)
		if err == nil || wire.Code(err) == wire.CodeNotFound || !wire.AsError(err).Retryable || ctx.Err() != nil {
			return err
		}
		wait(ctx, leaderAgain)
	}
}

// departWithin bounds the wait for the directory's group when a node leaves.
const departWithin = 10 * time.Second

// stuckWithout are the groups that have a quorum now, and none while a node is away. Both
// the directory and the replicas here are asked who votes: a voter hears first that it is one.
func (n *Node) stuckWithout(node string) (ids []uint32) {
	here := map[uint32][]string{}
	for _, s := range n.host.Status() {
		here[s.ID] = s.Voters
	}
	for _, g := range n.allGroups() {
		if n.needed(node, g.Replicas().Voters) || n.needed(node, here[g.ID]) {
			ids = append(ids, g.ID)
		}
	}
	return ids
}

// needed reports whether a node is one of the voters, and the others that are there are no
// quorum.
func (n *Node) needed(node string, voters []string) bool {
	there := 0
	for _, v := range voters {
		if v != node && n.reachable(v) && !n.draining(v) && !n.dir.state().IsRevoked(v) {
			there++
		}
	}
	return slices.Contains(voters, node) && there <= len(voters)/2
}

// mayLeave returns why a node cannot leave without harm, nil if it can.
func (n *Node) mayLeave(node directory.Node) error {
	var why []string
	if n.dir.state().Paused() {
		why = append(why, "moves of replicas are paused (edge-node groups reconcile resume)")
	}
	if regions := n.unsigned(node.ID); node.Signer && len(regions) > 0 {
		why = append(why, fmt.Sprintf("no other node signs certificates for %s: let one join first (edge-node join-token create --signer)", strings.Join(regions, " and ")))
	}
	nodes := n.reconciler.fleet.nodes()
	for i := range nodes {
		if nodes[i].Node == node.ID {
			nodes[i].State = geo.Leaving
		}
	}
	for _, g := range n.allGroups() {
		if left := n.staysOn(node.ID, g, nodes); left != "" {
			why = append(why, fmt.Sprintf("group %d: %s", g.ID, left))
		}
	}
	if len(why) == 0 {
		return nil
	}
	return wire.Errorf(wire.CodeConflict, "%s cannot leave: %s", node.ID, strings.Join(why, "; "))
}

// staysOn returns why a group would not come off a node, "" if it would.
func (n *Node) staysOn(node string, g directory.Group, nodes []geo.NodeState) string {
	r := g.Replicas()
	if !slices.Contains(r.Voters, node) && !slices.Contains(r.Learners, node) {
		return ""
	}
	now := geo.Config{Voters: r.Voters, Learners: r.Learners}
	for _, x := range nodes {
		if x.State.Answers() {
			now.Alive = append(now.Alive, x.Node)
		}
	}
	if i := slices.IndexFunc(r.Voters, func(v string) bool { return slices.Contains(now.Alive, v) }); i >= 0 {
		now.Leader = r.Voters[i]
	}
	end, why := geo.Outcome(now, func(c geo.Config) geo.Placement { return n.wanted(g, nodes, c) })
	if slices.Contains(end.Voters, node) || slices.Contains(end.Learners, node) {
		return why
	}
	return ""
}

// unsigned are the regions in which nobody would sign certificates without a node, and
// nodes need them.
func (n *Node) unsigned(without string) (regions []string) {
	signed := map[string]bool{}
	for _, signs := range []bool{true, false} {
		for _, d := range n.dir.state().Nodes() {
			stays := d.ID != without && !d.Leaving && !n.dir.state().IsRevoked(d.ID)
			switch {
			case stays && signs && d.Signer:
				signed[d.Region] = true
			case stays && !signs && !signed[d.Region] && !slices.Contains(regions, d.Region):
				regions = append(regions, d.Region)
			}
		}
	}
	return regions
}
