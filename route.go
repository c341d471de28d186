package starling

import (
	"slices"
	"sync"
	"time"

	"github.com/starling-im/starling/directory"
	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// hints remember who led a group when last heard of.
type hints struct {
	mu     sync.Mutex
	leader map[uint32]string
	tried  map[uint32]int
}

func (h *hints) get(group uint32) (leader string, tried int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.leader[group], h.tried[group]
}

// set notes what a not_leader answer said; an empty leader makes the next
// send try another voter.
func (h *hints) set(group uint32, leader string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.leader == nil {
		h.leader, h.tried = make(map[uint32]string), make(map[uint32]int)
	}
	h.leader[group] = leader
	if leader == "" {
		h.tried[group]++
	}
}

// leader returns the node to which commands for the group go: the replica's
// own knowledge, else the last hint, else one voter after the other. A replica
// knows nothing while its disk stalls, and others may lead meanwhile.
func (n *Node) leader(group uint32) (string, error) {
	voters := n.replicas(group).Voters
	if len(voters) == 0 {
		return "", noGroup(group)
	}
	if n.replicates(group) {
		if leader := n.host.Leader(group); leader != "" {
			return leader, nil
		}
		voters = slices.DeleteFunc(slices.Clone(voters), func(v string) bool { return v == n.cfg.Node })
	}
	leader, tried := n.hints.get(group)
	switch {
	case leader != "" && leader != n.cfg.Node:
		return leader, nil
	case len(voters) == 0:
		return "", wire.Errorf(wire.CodeNotLeader, "group %d has no leader now", group).After(leaderAgain)
	}
	return voters[tried%len(voters)], nil
}

// noGroup: groups never go, so this node has yet to hear of it.
func noGroup(group uint32) error {
	return wire.Errorf(wire.CodeStale, "group %d is not in this node's directory yet", group).After(leaderAgain)
}

// leaderAgain is when to ask again while a group elects its leader.
const leaderAgain = 50 * time.Millisecond

// replicas are the nodes that hold a group, as last heard of.
func (n *Node) replicas(group uint32) directory.Replicas {
	if group == 0 {
		return n.root.replicas()
	}
	g, _ := n.dir.state().Group(group)
	return g.Replicas()
}

// replicates reports whether this node holds a replica of a group.
func (n *Node) replicates(group uint32) bool {
	if group == 0 {
		return n.host.Has(0) && n.listed(0)
	}
	return n.listed(group) && !n.host.Outlived(group)
}

// listed reports whether this node is among the replicas of a group, as last heard
// of.
func (n *Node) listed(group uint32) bool {
	r := n.replicas(group)
	return slices.Contains(r.Voters, n.cfg.Node) || slices.Contains(r.Learners, n.cfg.Node)
}

// unlisted reports whether a group has no replica on this node by a directory that
// tells where it is.
func (n *Node) unlisted(group uint32) bool {
	if group == 0 && len(n.dir.state().Root().Voters) == 0 {
		return false // it has not told yet where group 0 is
	}
	return !n.listed(group)
}

// way returns how commands get to the leader of a group, nil if it is this node.
func (n *Node) way(group uint32) (*link, error) {
	leader, err := n.leader(group)
	if err != nil || leader == n.cfg.Node {
		return nil, err
	}
	if k := n.links.get(leader); k != nil {
		return k, nil
	}
	n.hints.set(group, "")
	return nil, wire.Errorf(wire.CodeNotLeader, "the leader %q of group %d cannot be reached now", leader, group).After(leaderAgain)
}

// wayTo is the node to which a way leads.
func (n *Node) wayTo(way *link) string {
	if way == nil {
		return n.cfg.Node
	}
	return way.node
}

// propose brings an encoded command to the group's leader: at most one hop.
// It never tries again by itself: the sender does, in order, and the
// client_msg_id makes that safe. The moment is that of flights, when the sender
// was last asked whether it may go on.
func (n *Node) propose(group uint32, moment uint64, command []byte, done func(*wire.Ack, error)) {
	way, err := n.way(group)
	x := &flight{group: group, moment: moment, done: done}
	if !n.flights.depart(x, way, err) {
		return
	}
	n.tracer.sent(command, n.wayTo(way))
	if way == nil {
		n.proposeHere(group, command, func(ack *wire.Ack, err error) { n.flights.land(x, ack, err) })
		return
	}
	f := &wire.Frame{Body: &wire.Frame_Propose{Propose: &wire.Propose{Group: group, Command: command, Attempt: x.attempt}}}
	way.Call(f, func(answer *wire.Frame, err error) {
		if err == nil {
			n.flights.land(x, answer.GetAck(), nil)
			return
		}
		e := wire.AsError(err)
		if e.Code == wire.CodeNotLeader {
			n.hints.set(group, e.Node)
		}
		n.flights.land(x, nil, e)
	})
}

// proposeHere hands a command to the replica on this node.
func (n *Node) proposeHere(group uint32, command []byte, done func(*wire.Ack, error)) {
	n.host.ProposeTold(group, command, n.tracer.proposed(command), func(result any, err error) {
		if err != nil {
			done(nil, err)
			return
		}
		r := result.(room.Result)
		if r.Refusal != nil {
			e := wire.Errorf(r.Refusal.Code, "%s", r.Refusal.Message)
			e.Group = r.Refusal.Group
			done(nil, e)
			return
		}
		done(&wire.Ack{MsgId: r.Ack.MsgID, Seq: r.Ack.Seq, Epoch: r.Ack.Epoch, TsMs: r.Ack.TS, Duplicate: r.Ack.Duplicate}, nil)
	})
}

// locate returns the group in which a room belongs by the newest placement; see
// places.find for where it is.
func (n *Node) locate(id room.ID) (uint32, error) {
	group, err := n.dir.state().Locate(id.App, id.Room)
	if err != nil {
		if n.dir.state().Version() == 0 {
			return 0, wire.Errorf(wire.CodeUnavailable, "the node is starting").After(leaderAgain)
		}
		return 0, wire.Errorf(wire.CodeNotFound, "%v", err)
	}
	return group, nil
}
