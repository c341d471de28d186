package starling

import (
	"cmp"
	"fmt"
	"time"

	"github.com/starling-im/starling/directory"
	"github.com/starling-im/starling/geo"
)

// policy is what is wanted of a group's replicas.
func (n *Node) policy(g directory.Group) geo.Policy {
	if g.ID == 0 {
		return geo.Policy{Home: n.cfg.regions()[0], Survive: n.rootSurvives(), Grace: n.cfg.grace(), Key: "directory"}
	}
	return geo.Policy{
		Home: g.Region, Survive: geo.Survive(cmp.Or(g.Survive, n.cfg.Survive)), Allow: g.Allow, Forbid: g.Forbid,
		Grace: n.cfg.grace(), Key: fmt.Sprint("group/", g.ID),
	}
}

// heartbeat is how long the voters of a group wait for their leader: less where
// they are all in one region; 0 = what package consensus takes for far ones.
func (n *Node) heartbeat(group uint32) time.Duration {
	g, _ := n.group(group)
	if n.policy(g).Survive == geo.SurviveRegion {
		return 0
	}
	return nearHeartbeat
}

// nearHeartbeat is for voters in one region.
const nearHeartbeat = 500 * time.Millisecond
