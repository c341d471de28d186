package starling

import (
	"hash/fnv"

	"github.com/starling-im/starling/internal/oracle"
	"github.com/starling-im/starling/room"
)

// Holds returns the groups that have a replica of a room on the node, with
// their leaders as it knows them.
func (n *Node) Holds(app, name string) map[uint32]string {
	leaders := map[uint32]string{}
	<-n.ready
	for _, s := range n.host.Status() {
		_ = n.host.Read(s.ID, func(r consensusReader) {
			if _, ok := room.Load(r, room.ID{App: app, Room: name}); ok {
				leaders[s.ID] = s.Leader
			}
		})
	}
	return leaders
}

// GroupOf returns the group of a room, as the node knows the directory.
func (n *Node) GroupOf(app, name string) (uint32, error) {
	return n.locate(room.ID{App: app, Room: name})
}

// VotersOf returns the voters of a group; 0 is the directory's.
func (n *Node) VotersOf(group uint32) []string { return n.replicas(group).Voters }

// States returns what the node's replicas have made of their logs. Nothing
// must be applied meanwhile.
func (n *Node) States() (states []oracle.State) {
	<-n.ready
	for _, s := range n.host.Status() {
		h := fnv.New64a()
		_ = n.host.Read(s.ID, func(r consensusReader) {
			r.Scan(nil, nil, func(key, value []byte) bool {
				_, _ = h.Write(append(append([]byte{byte(len(key))}, key...), value...))
				return true
			})
		})
		states = append(states, oracle.State{Node: n.cfg.Node, Group: s.ID, Applied: s.Applied, Hash: h.Sum64()})
	}
	return states
}
