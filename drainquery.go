package starling

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/starling-im/starling/directory"
	"github.com/starling-im/starling/mesh"
	"github.com/starling-im/starling/relay"
	"github.com/starling-im/starling/wire"
)

// What operators may ask of a node's way out. All answer with its DrainInfo.
const (
	queryDrain    = "node.drain"    // NODE [force] [window=DURATION]
	queryLeave    = "node.leave"    // ID NODE [force]
	queryStay     = "node.stay"     // ID NODE
	queryProgress = "node.progress" // NODE

	// For the node itself, from another one that was asked.
	queryDrainHere    = "node.drain.here" // USER [force] [window=DURATION]
	queryProgressHere = "node.progress.here"
)

var departs = map[string]arity{queryDrain: {1, 3}, queryLeave: {2, 3}, queryStay: {2, 2}, queryProgress: {1, 1}}

// departQuery does what an operator asks of a node's way out; ok is false if it is nothing
// of this.
func (n *Node) departQuery(ctx context.Context, p relay.Peer, q *wire.Query) (answer []byte, ok bool, err error) {
	var result DrainInfo
	bounds, ok := departs[q.What]
	switch {
	case p.Node != "" && q.What == queryDrainHere && len(q.Args) > 0:
		result, err = n.drainHere(q.Args)
	case p.Node != "" && q.What == queryProgressHere:
		result = n.drain.info()
	case p.Node != "" || !ok:
		return nil, false, nil
	default:
		if err := bounds.check(p, q); err != nil {
			return nil, true, err
		}
		result, err = n.departure(ctx, p.User, q)
	}
	if err != nil {
		return nil, true, err
	}
	answer, err = json.Marshal(result)
	return answer, true, err
}

func (n *Node) departure(ctx context.Context, user string, q *wire.Query) (DrainInfo, error) {
	switch a := q.Args; q.What {
	case queryDrain:
		return n.askDrain(ctx, a[0], append([]string{user}, a[1:]...))
	case queryLeave:
		return n.leave(ctx, user, a[0], a[1], a[2:])
	case queryStay:
		if err := n.dir.change(ctx, a[0], user, directory.Change{StayNode: a[1]}); err != nil {
			return DrainInfo{}, err
		}
		n.log.Warn("audit: a node is to stay after all", "peer", a[1], "by", user)
		return n.progress(ctx, a[1])
	default:
		return n.progress(ctx, a[0])
	}
}

// leave lets the directory say that a node is to go for good.
func (n *Node) leave(ctx context.Context, user, id, node string, more []string) (DrainInfo, error) {
	forced := len(more) > 0 && more[0] == "force"
	is, ok := n.dir.state().Node(node)
	switch {
	case !ok:
		return DrainInfo{}, wire.Errorf(wire.CodeNotFound, "there is no node %q", node)
	case len(more) > 0 && !forced:
		return DrainInfo{}, wire.Errorf(wire.CodeBadRequest, "%q is not force", more[0])
	case !n.reachable(node):
		return DrainInfo{}, wire.Errorf(wire.CodeConflict, "%s does not answer, so it cannot leave by itself; if it is gone for good: edge-node node revoke %s", node, node)
	}
	if err := n.mayLeave(is); err != nil && !forced && !is.Leaving {
		return DrainInfo{}, err
	}
	if err := n.dir.change(ctx, id, user, directory.Change{LeaveNode: node}); err != nil {
		return DrainInfo{}, err
	}
	n.log.Warn("audit: a node is to leave", "peer", node, "forced", forced, "by", user)
	if forced {
		return n.askDrain(ctx, node, []string{user, "force"})
	}
	return n.progress(ctx, node)
}

// progress is how far a node is. One that is not there any more has left, or never says.
func (n *Node) progress(ctx context.Context, node string) (info DrainInfo, err error) {
	if node == n.cfg.Node {
		return n.drain.info(), nil
	}
	_, known := n.dir.state().Node(node)
	m, seen := n.mesh.View().Member(node)
	switch {
	case !known && !seen:
		return DrainInfo{}, wire.Errorf(wire.CodeNotFound, "there is no node %q", node)
	case !known || m.State == mesh.Left || n.dir.state().IsRevoked(node):
		return DrainInfo{Node: node, Stage: StageLeft}, nil
	}
	err = n.askNode(ctx, node, &info, queryProgressHere)
	return info, err
}

func (n *Node) askDrain(ctx context.Context, node string, args []string) (info DrainInfo, err error) {
	if node == n.cfg.Node {
		return n.drainHere(args)
	}
	if _, ok := n.dir.state().Node(node); !ok {
		return DrainInfo{}, wire.Errorf(wire.CodeNotFound, "there is no node %q", node)
	}
	err = n.askNode(ctx, node, &info, queryDrainHere, args...)
	return info, err
}

// drainHere begins to drain this node: USER [force] [window=DURATION].
func (n *Node) drainHere(args []string) (DrainInfo, error) {
	var window time.Duration
	forced := false
	for _, a := range args[1:] {
		text, isWindow := strings.CutPrefix(a, "window=")
		switch d, err := time.ParseDuration(text); {
		case a == "force":
			forced = true
		case isWindow && err == nil && d > 0 && d <= windowMost:
			window = d
		case isWindow:
			return DrainInfo{}, wire.Errorf(wire.CodeBadRequest, "clients cannot go within %q, but within up to %v", text, windowMost)
		default:
			return DrainInfo{}, wire.Errorf(wire.CodeBadRequest, "%q is neither force nor window=", a)
		}
	}
	if err := n.drain.begin(args[0], window, forced); err != nil {
		return DrainInfo{}, err
	}
	return n.drain.info(), nil
}
