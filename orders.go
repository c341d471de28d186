package starling

import (
	"context"
	"fmt"
	"slices"

	"github.com/starling-im/starling/geo"
	"github.com/starling-im/starling/wire"
)

// order is an operator's wish to replace a replica.
type order struct{ old, new string }

// obey puts an operator's replacement into what is wanted, and returns it, until it
// is done.
func (r *reconciler) obey(group uint32, now geo.Config, want geo.Placement) (obeyed geo.Placement, ordered []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o, ok := r.orders[group]
	if !ok {
		return want, nil
	}
	if !slices.Contains(now.Voters, o.old) {
		delete(r.orders, group) // it is done
		return want, nil
	}
	ordered = []string{o.old, o.new}
	i := slices.Index(want.Voters, o.old)
	if i < 0 {
		return want, ordered
	}
	instead := o.new
	if slices.Contains(want.Voters, o.new) { // it has its vote already; somebody else was to go
		j := slices.IndexFunc(now.Voters, func(v string) bool { return !slices.Contains(want.Voters, v) })
		if j < 0 {
			return want, ordered
		}
		instead = now.Voters[j]
	}
	want.Voters = slices.Clone(want.Voters)
	want.Voters[i] = instead
	return want, ordered
}

// callOff forgets an operator's replacement, and reports whether there was one. What
// has been begun is then taken back or finished, as the group's policy wants.
func (r *reconciler) callOff(group uint32) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.orders[group]
	delete(r.orders, group)
	return ok
}

// passOn gives an operator's replacement to the node that leads the group now,
// which would otherwise give the lead back to a node that is to go.
func (r *reconciler) passOn(ctx context.Context, group uint32, leader string) {
	r.mu.Lock()
	o, ok := r.orders[group]
	r.mu.Unlock()
	if !ok {
		return
	}
	q := &wire.Query{What: queryReplace, Args: []string{fmt.Sprint(group), o.old, o.new}}
	for ctx.Err() == nil {
		_, err := r.node.links.get(leader).ask(ctx, &wire.Frame{Body: &wire.Frame_Query{Query: q}})
		if err == nil {
			return
		}
		if !wire.AsError(err).Retryable {
			r.node.log.Warn("the new leader does not take over a replacement that was asked for", "group", group, "old", o.old, "new", o.new, "leader", leader, "err", err)
			return
		}
		// It does not know yet that it leads.
		if wait(ctx, leaderAgain); r.node.host.Leader(group) == r.node.cfg.Node {
			return // it has given the lead back
		}
	}
}

// replace orders that a replica is moved to another node, unless the group's
// policy would move it back. It is to be asked for until it is done: who leads
// the group after a failure does not know of it.
func (r *reconciler) replace(p GroupPlan, from, to string) error {
	nodes := r.fleet.nodes()
	i := slices.IndexFunc(nodes, func(x geo.NodeState) bool { return x.Node == to })
	switch {
	case !slices.Contains(p.Voters, from) && !slices.ContainsFunc(nodes, func(x geo.NodeState) bool { return x.Node == from }):
		return wire.Errorf(wire.CodeNotFound, "there is no node %q", from)
	case !slices.Contains(p.Voters, from) && slices.Contains(p.Voters, to):
		return nil // it is done
	case !slices.Contains(p.Voters, from):
		return wire.Errorf(wire.CodeBadRequest, "%q is no voter of group %d: %v", from, p.Group, p.Voters)
	case slices.Contains(p.Voters, to) && len(p.Voters) <= len(p.WantVoters):
		return wire.Errorf(wire.CodeBadRequest, "%q is a voter of group %d already: %v", to, p.Group, p.Voters)
	case i < 0 || nodes[i].State != geo.Alive:
		return wire.Errorf(wire.CodeNotFound, "there is no node %q that is alive", to)
	}
	g, _ := r.node.group(p.Group)
	voters := slices.DeleteFunc(slices.Clone(p.Voters), func(v string) bool { return v == from })
	after := geo.Config{Voters: append(voters, to), Leader: p.Leader}
	if want := geo.Place(r.node.policy(g), nodes, after, distances{r.node}); !slices.Contains(want.Voters, to) {
		return wire.Errorf(wire.CodeBadRequest, "what the group is to survive (%s) would not leave the replica at %q, but wants %v", p.Survive, to, want.Voters)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.orders[p.Group] = order{from, to}
	return nil
}
