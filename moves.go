package starling

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/starling-im/starling/directory"
	"github.com/starling-im/starling/geo"
	"github.com/starling-im/starling/relay"
	"github.com/starling-im/starling/wire"
)

// What operators may ask of the replicas of groups. All but the last are answered
// by the node that leads the group, with its GroupPlan.
const (
	queryExplain    = "groups.explain"     // GROUP
	queryMoveLeader = "groups.move-leader" // GROUP NODE
	queryReplace    = "groups.replace"     // GROUP OLD NEW
	queryCallOff    = "groups.call-off"    // GROUP
	queryReconcile  = "groups.reconcile"   // ID pause|resume
)

// silentAfter is how long a voter may not have answered its leader before it is said
// of it that it does not: Raft knows sooner than the mesh that a process is gone.
const silentAfter = 2 * time.Second

// move answers the queries above; ok is false if it is none of them. Another
// node may ask what only this one, as a leader, can answer.
func (n *Node) move(ctx context.Context, p relay.Peer, q *wire.Query) (answer []byte, ok bool, err error) {
	arguments := map[string]int{queryExplain: 1, queryMoveLeader: 2, queryReplace: 3, queryCallOff: 1, queryReconcile: 2}[q.What]
	switch {
	case arguments == 0:
		return nil, false, nil
	case p.Node == "" && !p.Operator:
		return nil, true, wire.Errorf(wire.CodeForbidden, "%q needs a token of an operator", q.What)
	case len(q.Args) != arguments:
		return nil, true, wire.Errorf(wire.CodeBadRequest, "%q takes %d arguments, not %d", q.What, arguments, len(q.Args))
	}
	if q.What == queryReconcile {
		err = n.dir.change(ctx, q.Args[0], p.User, directory.Change{Reconcile: q.Args[1]})
		return []byte("{}"), true, err
	}
	answer, err = n.moveGroup(ctx, p, q)
	return answer, true, err
}

func (n *Node) moveGroup(ctx context.Context, p relay.Peer, q *wire.Query) ([]byte, error) {
	id, err := strconv.ParseUint(q.Args[0], 10, 32)
	if err != nil {
		return nil, wire.Errorf(wire.CodeBadRequest, "%q is no group", q.Args[0])
	}
	group := uint32(id)
	if _, ok := n.group(group); !ok {
		return nil, wire.Errorf(wire.CodeNotFound, "there is no group %d", group)
	}
	way, err := n.way(group)
	switch {
	case err != nil && q.What == queryExplain && p.Node == "":
		return json.Marshal(n.leaderless(group))
	case err != nil:
		return nil, err
	case way == nil:
		return n.moveHere(ctx, group, q)
	case p.Node != "":
		return nil, n.reconciler.notLeader(group)
	}
	f, err := way.ask(ctx, &wire.Frame{Body: &wire.Frame_Query{Query: q}})
	if err != nil {
		e := wire.AsError(err)
		if e.Code == wire.CodeNotLeader { // or this one would be asked again and again
			n.hints.set(group, e.Node)
		}
		return nil, e
	}
	return f.GetAnswer().GetJson(), nil
}

// leaderless is the plan of a group that nobody leads now: there is none.
func (n *Node) leaderless(group uint32) GroupPlan {
	g, _ := n.group(group)
	r, policy := g.Replicas(), n.policy(g)
	gone := slices.DeleteFunc(slices.Concat(r.Voters, r.Learners), func(v string) bool { return n.reachable(v) })
	p := GroupPlan{
		Group: group, Region: g.Region, Survive: string(policy.Survive), Allow: g.Allow, Forbid: g.Forbid,
		Losses: geo.Losses(r.Voters, r.Learners, gone, n.sites()), Voters: r.Voters, Learners: r.Learners, WantVoters: []string{},
		Why: "nobody leads the group now; its voters may be electing somebody", Paused: n.dir.state().Paused(),
	}
	if len(gone) > 0 {
		p.Why = fmt.Sprintf("nobody leads the group now, and no answer comes from %s; if that is for good: edge-node groups recover %d", strings.Join(gone, ", "), group)
	}
	return p
}

// moveHere does what was asked for a group that this node leads.
func (n *Node) moveHere(ctx context.Context, group uint32, q *wire.Query) ([]byte, error) {
	p, err := n.reconciler.explain(group)
	if err != nil {
		return nil, err
	}
	switch q.What {
	case queryMoveLeader:
		if err := n.moveLeader(ctx, p, q.Args[1]); err != nil {
			return nil, err
		}
		p.Leader, p.Next, p.Why = q.Args[1], "", q.Args[1]+" leads now"
		if home := n.wants(p).Voters[0]; home != p.Leader {
			p.Why += ", and gives the lead back to " + home + " soon, which is nearer to home, unless moves are paused"
		}
	case queryReplace:
		if err := n.reconciler.replace(p, q.Args[1], q.Args[2]); err != nil {
			return nil, err
		}
		if p, err = n.reconciler.explain(group); err != nil {
			return nil, err
		}
	case queryCallOff:
		if !n.reconciler.callOff(group) {
			return nil, wire.Errorf(wire.CodeNotFound, "no replacement is under way in group %d that an operator ordered", group)
		}
		if p, err = n.reconciler.explain(group); err != nil {
			return nil, err
		}
	}
	return json.Marshal(p)
}

// wants is where a group should be, if it is as the plan says.
func (n *Node) wants(p GroupPlan) geo.Placement {
	g, _ := n.group(p.Group)
	return geo.Place(n.policy(g), n.reconciler.fleet.nodes(), geo.Config{Voters: p.Voters, Learners: p.Learners, Leader: p.Leader}, distances{n})
}

// moveLeader hands the lead over, and lets the directory prefer the new leader.
func (n *Node) moveLeader(ctx context.Context, p GroupPlan, node string) error {
	if !slices.Contains(p.Voters, node) {
		return wire.Errorf(wire.CodeBadRequest, "%q is no voter of group %d, only they can lead: %v", node, p.Group, p.Voters)
	}
	if slices.Contains(p.silent, node) { // whoever asked would ask again, for nothing
		return wire.Errorf(wire.CodeConflict, "%s does not answer, so it cannot lead group %d; name a voter that does (%s), or wait until edge-node members shows it alive",
			node, p.Group, strings.Join(slices.DeleteFunc(slices.Clone(p.Voters), func(v string) bool { return slices.Contains(p.silent, v) }), ", "))
	}
	if _, err := n.host.Transfer(ctx, p.Group, node); err != nil {
		return err
	}
	r := directory.Replicas{Voters: ordered(p.Voters, []string{node}), Learners: p.Learners}
	return n.dir.change(ctx, rand.Text(), directory.SystemApp, directory.Change{PutGroup: directory.GroupReplicas{ID: p.Group, Replicas: r}})
}
