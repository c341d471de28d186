package starling

import (
	"context"
	"encoding/json"
	"strconv"
	"sync"

	"github.com/starling-im/starling/wire"
)

// queryLeaderHere asks another node which node leads a group, as far as its own
// replica knows: GROUP.
const queryLeaderHere = "leader.here"

// seekWithin bounds the wait for an answer to that: it is soon asked again.
const seekWithin = seekAfter

// seekLeader asks the voters of a group who leads it, since the one that was
// taken for the leader is silent. A node with a replica learns it from that, and
// one without only from answers, of which a silent leader gives none.
func (n *Node) seekLeader(ctx context.Context, group uint32) {
	if n.replicates(group) && n.host.Leader(group) != "" {
		return
	}
	silent, err := n.leader(group)
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, seekWithin)
	defer cancel()
	q := &wire.Query{What: queryLeaderHere, Args: []string{strconv.FormatUint(uint64(group), 10)}}
	var asked sync.WaitGroup
	for _, voter := range n.replicas(group).Voters {
		if voter == silent || voter == n.cfg.Node {
			continue
		}
		asked.Go(func() {
			answer, err := n.links.get(voter).ask(ctx, &wire.Frame{Body: &wire.Frame_Query{Query: q}})
			leader := ""
			if err == nil && json.Unmarshal(answer.GetAnswer().GetJson(), &leader) == nil && leader != "" && leader != silent {
				n.hints.set(group, leader)
			}
		})
	}
	asked.Wait()
}

// leaderHere answers that.
func (n *Node) leaderHere(args []string) ([]byte, error) {
	if len(args) != 1 {
		return nil, wire.Errorf(wire.CodeBadRequest, "%q takes a group", queryLeaderHere)
	}
	group, err := strconv.ParseUint(args[0], 10, 32)
	if err != nil {
		return nil, wire.Errorf(wire.CodeBadRequest, "%q is no group", args[0])
	}
	return json.Marshal(n.host.Leader(uint32(group)))
}
