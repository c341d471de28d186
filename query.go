package starling

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/starling-im/starling/mesh"
	"github.com/starling-im/starling/relay"
	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// MemberInfo is one node in the answer to the query "members".
type MemberInfo struct {
	ID      string  `json:"id"`
	Region  string  `json:"region"`
	Addr    string  `json:"addr"`
	State   string  `json:"state"`
	Version string  `json:"version,omitempty"`
	RTT     float64 `json:"rtt_ms,omitempty"`
	// Path is how the link from the node that answers goes: "udp", "tcp", or "through"
	// another node; "" without one.
	Path string `json:"path,omitempty"`
	// Reachability is "outbound" for a node that cannot be dialled, else empty.
	Reachability string `json:"reachability,omitempty"`
}

// GroupInfo is one group in the answer to the query "groups".
type GroupInfo struct {
	ID       uint32        `json:"id"`
	Region   string        `json:"region,omitempty"`
	Survive  string        `json:"survive"` // what it is to outlive: node, region or none
	Allow    []string      `json:"allow,omitempty"`
	Forbid   []string      `json:"forbid,omitempty"`
	Leader   string        `json:"leader"`
	Term     uint64        `json:"term"`
	Epoch    uint64        `json:"epoch,omitzero"` // when it was last recovered with loss, Unix ms
	Rooms    int           `json:"rooms"`
	Replicas []ReplicaInfo `json:"replicas"`
	// Missing are the nodes that should have a replica, by the directory, of which
	// no answer came.
	Missing []string `json:"missing,omitempty"`
}

// ReplicaInfo is one replica of a group; Applied is its log index. Hash is of
// all its rooms: replicas with the same Applied have the same Hash. It is left
// out where there are too many rooms.
type ReplicaInfo struct {
	Node    string `json:"node"`
	Region  string `json:"region"`
	Applied uint64 `json:"applied"`
	Voter   bool   `json:"voter"`
	Hash    string `json:"hash,omitempty"`
}

// maxHashed bounds the rooms of a group that are read for its hash.
const maxHashed = 100_000

// hashes remembers the last hash of each group: dev asks for the groups many times
// a second while a mesh starts, and a hash reads every room.
type hashes struct {
	mu   sync.Mutex
	last map[uint32]hashed
}

type hashed struct {
	applied uint64
	hash    string
}

// of returns the hash of a group as of an applied index, which make makes.
func (h *hashes) of(group uint32, applied uint64, make func() string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if last, ok := h.last[group]; ok && last.applied == applied {
		return last.hash
	}
	if h.last == nil {
		h.last = map[uint32]hashed{}
	}
	hash := make()
	h.last[group] = hashed{applied, hash}
	return hash
}

// RoomInfo is one room in the answer to the query "rooms".
type RoomInfo struct {
	Room   string `json:"room"`
	Seq    uint64 `json:"seq"`
	Group  uint32 `json:"group"`
	Region string `json:"region"`
}

// LinkInfo counts the events that a node sent to another, as replicated
// commands (class raft) or to followers (class relay).
type LinkInfo struct {
	From   string `json:"from"`
	To     string `json:"to"`
	Class  string `json:"class"`
	Events uint64 `json:"events"`
	// Since is when the counting node started, Unix ms.
	Since int64 `json:"since"`
}

// What a Query may ask for. Those of a node answer for it alone and are for
// other nodes; the rest speak of the mesh.
const (
	queryMembers = "members"
	queryGroups  = "groups"
	queryRooms   = "rooms"
	queryLinks   = "links"

	queryGroupsHere = "groups.here"
	queryRoomsHere  = "rooms.here"
	queryLinksHere  = "links.here"
)

// maxRooms bounds the rooms in one answer, and listBytes all lists: an answer
// fits into a frame.
const (
	maxRooms  = 500
	listBytes = wire.ClientFrame - 4<<10
)

func (n *Node) query(ctx context.Context, p relay.Peer, q *wire.Query) ([]byte, error) {
	if answer, ok, err := n.operate(ctx, p, q); ok {
		return answer, err
	}
	if answer, ok, err := n.move(ctx, p, q); ok {
		return answer, err
	}
	if answer, ok, err := n.recover(ctx, p, q); ok {
		return answer, err
	}
	if answer, ok, err := n.admissionQuery(ctx, p, q); ok {
		return answer, err
	}
	if answer, ok, err := n.departQuery(ctx, p, q); ok {
		return answer, err
	}
	if answer, ok, err := n.wayQuery(ctx, p, q); ok {
		return answer, err
	}
	if answer, ok, err := n.traceQuery(ctx, p, q); ok {
		return answer, err
	}
	node := p.Node != ""
	switch {
	case q.What == queryRooms && !node:
		return n.queryRooms(ctx, p.App, q.Args)
	case (q.What == queryMembers || q.What == queryGroups || q.What == queryLinks) && !p.Operator:
		return nil, wire.Errorf(wire.CodeForbidden, "the query %q needs a token of an operator", q.What)
	case q.What == queryMembers:
		return json.Marshal(n.membersHere())
	case q.What == queryGroups:
		return n.queryGroups(ctx, q.Args)
	case q.What == queryLinks:
		return json.Marshal(gather(ctx, n, &wire.Query{What: queryLinksHere}, n.linksHere()))
	case q.What == queryGroupsHere && node:
		return json.Marshal(n.groupsHere())
	case q.What == queryLeaderHere && node:
		return n.leaderHere(q.Args)
	case q.What == queryRoomsHere && node:
		return json.Marshal(n.roomsHere(q.App, strings.Join(q.Args, "")))
	case q.What == queryLinksHere && node:
		return json.Marshal(n.linksHere())
	}
	return nil, wire.Errorf(wire.CodeNotFound, "there is no query %q", q.What)
}

// gatherWithin bounds the wait for other nodes' answers; a node that does not
// answer in time is left out.
const gatherWithin = 2 * time.Second

// gather adds the answers of all other nodes to one's own.
func gather[T any](ctx context.Context, n *Node, q *wire.Query, own []T) []T {
	ctx, cancel := context.WithTimeout(ctx, gatherWithin)
	defer cancel()
	var mu sync.Mutex
	var asked sync.WaitGroup
	all := own
	for _, m := range n.mesh.View().Members {
		if m.ID == n.cfg.Node || !m.Linked {
			continue
		}
		asked.Go(func() {
			answer, err := n.links.get(m.ID).ask(ctx, &wire.Frame{Body: &wire.Frame_Query{Query: q}})
			if err != nil {
				return
			}
			var theirs []T
			if json.Unmarshal(answer.GetAnswer().GetJson(), &theirs) == nil {
				mu.Lock()
				all = append(all, theirs...)
				mu.Unlock()
			}
		})
	}
	asked.Wait()
	return all
}

// askNode asks another node, and reads its answer into result.
func (n *Node) askNode(ctx context.Context, node string, result any, what string, args ...string) error {
	q := &wire.Query{What: what, Args: args}
	answer, err := n.links.get(node).ask(ctx, &wire.Frame{Body: &wire.Frame_Query{Query: q}})
	if err != nil {
		return err
	}
	if err := json.Unmarshal(answer.GetAnswer().GetJson(), result); err != nil {
		return wire.Errorf(wire.CodeProtocol, "%q answers %q with %v", node, what, err)
	}
	return nil
}

func (n *Node) membersHere() []MemberInfo {
	members := []MemberInfo{}
	for _, m := range n.mesh.View().Members {
		state := m.State.String()
		switch d, _ := n.dir.state().Node(m.ID); {
		case n.dir.state().IsRevoked(m.ID):
			state = "revoked"
		case d.Leaving && m.State == mesh.Alive:
			state = "leaving"
		}
		info := MemberInfo{
			ID: m.ID, Region: m.Region, Addr: m.Addr, State: state, Version: m.Version,
			RTT: float64(m.RTT.Microseconds()) / 1000, Path: m.Path,
		}
		if m.Outbound {
			info.Reachability = ReachOutbound
		}
		members = append(members, info)
	}
	return members
}

// groupsHere describes the replicas on this node: one each.
func (n *Node) groupsHere() []GroupInfo {
	groups := []GroupInfo{}
	for _, s := range n.host.Status() {
		self := ReplicaInfo{Node: n.cfg.Node, Region: n.cfg.Region, Applied: s.Applied, Voter: slices.Contains(s.Voters, n.cfg.Node)}
		g := GroupInfo{ID: s.ID, Leader: s.Leader, Term: s.Term, Epoch: s.Epoch}
		n.describe(&g)
		_ = n.host.Read(s.ID, func(r consensusReader) {
			if g.Rooms = room.CountRooms(r); g.Rooms <= maxHashed {
				self.Hash = n.hashes.of(s.ID, s.Applied, func() string {
					hash := room.Hash(r)
					return hex.EncodeToString(hash[:8])
				})
			}
		})
		g.Replicas = []ReplicaInfo{self}
		groups = append(groups, g)
	}
	return groups
}

// describe adds what the directory says of a group.
func (n *Node) describe(g *GroupInfo) {
	d, known := n.group(g.ID)
	if !known { // it has heard of it before this node's directory
		g.Survive = n.cfg.Survive
		return
	}
	g.Region, g.Survive, g.Allow, g.Forbid = d.Region, string(n.policy(d).Survive), d.Allow, d.Forbid
}

// queryGroups merges what the replicas say: the word of the newest term counts.
// The list is one page; the next is asked for by the last group of it.
func (n *Node) queryGroups(ctx context.Context, args []string) ([]byte, error) {
	after := -1
	if len(args) > 0 {
		id, err := strconv.ParseUint(args[0], 10, 32)
		if err != nil || len(args) > 1 {
			return nil, wire.Errorf(wire.CodeBadRequest, "the query %q takes the group after which to go on, not %q", queryGroups, args)
		}
		after = int(id)
	}
	all := gather(ctx, n, &wire.Query{What: queryGroupsHere}, n.groupsHere())
	merged := map[uint32]*GroupInfo{}
	for i, g := range all {
		m := merged[g.ID]
		switch {
		case m == nil || g.Epoch > m.Epoch:
			merged[g.ID] = &all[i]
			continue
		case g.Epoch < m.Epoch:
			continue // what it has is over
		}
		m.Replicas = append(m.Replicas, g.Replicas...)
		m.Rooms = max(m.Rooms, g.Rooms)
		if g.Term > m.Term || g.Term == m.Term && m.Leader == "" {
			m.Term, m.Leader = g.Term, g.Leader
		}
	}
	missing := []uint32{0}
	for _, g := range n.dir.state().Groups() {
		missing = append(missing, g.ID)
	}
	for _, id := range missing { // those that nobody speaks for
		if merged[id] == nil {
			merged[id] = &GroupInfo{ID: id, Replicas: []ReplicaInfo{}}
			n.describe(merged[id])
		}
	}
	groups := []GroupInfo{}
	for _, g := range merged {
		if int(g.ID) <= after {
			continue
		}
		slices.SortFunc(g.Replicas, func(a, b ReplicaInfo) int { return cmp.Compare(a.Node, b.Node) })
		g.Missing = n.missing(g)
		groups = append(groups, *g)
	}
	slices.SortFunc(groups, func(a, b GroupInfo) int { return cmp.Compare(a.ID, b.ID) })
	return json.Marshal(fitting(groups))
}

// missing are the nodes that should have a replica of a group and have not answered.
func (n *Node) missing(g *GroupInfo) []string {
	d, _ := n.group(g.ID)
	r := d.Replicas()
	return slices.Sorted(slices.Values(slices.DeleteFunc(slices.Concat(r.Voters, r.Learners), func(id string) bool {
		return slices.ContainsFunc(g.Replicas, func(x ReplicaInfo) bool { return x.Node == id })
	})))
}

// roomsHere lists the rooms of an app in the replicas on this node that come after
// one: the first of them, and no fewer than an answer has.
func (n *Node) roomsHere(app, after string) []RoomInfo {
	rooms := []RoomInfo{}
	for _, s := range n.host.Status() {
		region := ""
		if d, ok := n.dir.state().Group(s.ID); ok {
			region = d.Region
		}
		_ = n.host.Read(s.ID, func(r consensusReader) {
			for _, i := range room.List(r, app, after, maxRooms+1) { // one may be the directory's
				if i.ID != directoryRoom {
					rooms = append(rooms, RoomInfo{i.ID.Room, i.State.Head, s.ID, region})
				}
			}
		})
	}
	slices.SortFunc(rooms, func(a, b RoomInfo) int { return cmp.Compare(a.Room, b.Room) })
	return rooms[:min(len(rooms), maxRooms)]
}

// queryRooms merges the replicas' lists: of each room the newest word. The list is
// one page; the next is asked for by the last room of it, so that nobody ever has
// all rooms in memory.
func (n *Node) queryRooms(ctx context.Context, app string, args []string) ([]byte, error) {
	if len(args) > 1 {
		return nil, wire.Errorf(wire.CodeBadRequest, "the query %q takes the room after which to go on, not %d arguments", queryRooms, len(args))
	}
	after := strings.Join(args, "")
	all := gather(ctx, n, &wire.Query{What: queryRoomsHere, App: app, Args: args}, n.roomsHere(app, after))
	all = slices.DeleteFunc(all, func(r RoomInfo) bool { return r.Room <= after }) // an older release says all
	slices.SortFunc(all, func(a, b RoomInfo) int { return cmp.Or(cmp.Compare(a.Room, b.Room), cmp.Compare(b.Seq, a.Seq)) })
	all = slices.CompactFunc(all, func(a, b RoomInfo) bool { return a.Room == b.Room })
	return json.Marshal(fitting(all[:min(len(all), maxRooms)]))
}

// fitting returns as many of a list as fit into an answer.
func fitting[T any](list []T) []T {
	size := 0
	for i, x := range list {
		text, err := json.Marshal(x)
		if size += len(text) + 1; err != nil || size > listBytes {
			return list[:i]
		}
	}
	return list
}

func (n *Node) linksHere() []LinkInfo {
	links := []LinkInfo{}
	for node, events := range n.host.Copies() {
		links = append(links, LinkInfo{n.cfg.Node, node, "raft", events, n.since})
	}
	n.sent.each(func(node string, events uint64) {
		links = append(links, LinkInfo{n.cfg.Node, node, "relay", events, n.since})
	})
	slices.SortFunc(links, func(a, b LinkInfo) int { return cmp.Or(cmp.Compare(a.To, b.To), cmp.Compare(a.Class, b.Class)) })
	return links
}
