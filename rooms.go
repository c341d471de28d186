package starling

import (
	"sync"
	"time"

	"github.com/starling-im/starling/consensus"
	"github.com/starling-im/starling/relay"
	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// consensusReader is what the replicas' store lets others read.
type consensusReader = consensus.Reader

// machine lets a group's log drive its rooms, and tells the hub what came of it.
type machine struct {
	rooms *room.Machine
	hub   *relay.Hub
	node  *Node
	group uint32
	// began is when the first traced command since Committed was applied.
	began time.Time
}

func (n *Node) newMachine(group uint32) consensus.Machine {
	return &machine{rooms: room.NewMachine(room.Config{Encode: encodeEvent, Group: group}), hub: n.hub, node: n, group: group}
}

// encodeEvent makes the bytes that are stored, and sent to every follower.
func encodeEvent(e *room.Event) []byte {
	return wire.EncodeEvent(&wire.Event{
		Seq: e.Seq, User: e.User, Kind: wire.Kind(e.Kind), Type: e.Type, Content: e.Content,
		TsMs: e.TS, ClientMsgId: e.ClientMsgID, MsgId: e.MsgID,
		Trace: []byte(e.Trace),
	})
}

// Apply implements consensus.Machine.
func (m *machine) Apply(tx consensus.Tx, now int64, commands [][]byte) []any {
	for _, c := range commands {
		if m.began.IsZero() && room.Trace(c) != nil {
			m.began = time.Now()
		}
	}
	return m.rooms.Apply(tx, now, commands)
}

// Committed implements consensus.Machine.
func (m *machine) Committed() {
	if m.rooms.Renewed() {
		m.begin() // those who follow must not take what comes now for what they knew
	}
	began := m.began
	m.began = time.Time{}
	for _, p := range m.rooms.Take() {
		m.node.tracer.arrived(p.Data, HopApply, "", began)
		m.hub.Append(p.ID, p.Seq, p.Data)
	}
}

// Restored implements consensus.Machine: followers of the group's rooms read
// as history what the snapshot brought.
func (m *machine) Restored() {
	m.rooms.Reset()
	m.begin()
}

// begin tells the hub where the group's rooms are now, and in which epoch.
func (m *machine) begin() {
	_ = m.node.host.Read(m.group, func(r consensusReader) {
		for _, id := range m.hub.Rooms() {
			s, ok := room.Load(r, id)
			if at, err := m.node.locate(id); ok || err == nil && at == m.group {
				m.hub.Begin(id, s.Head, room.Epoch(r, id))
			}
		}
	})
}

// departures tell who counts on a replica of this node that it has ended.
type departures struct {
	mu    sync.Mutex
	ended map[uint32]chan struct{}
}

// of returns a channel that is closed when the replica of a group ends.
func (d *departures) of(group uint32) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended == nil {
		d.ended = make(map[uint32]chan struct{})
	}
	if d.ended[group] == nil {
		d.ended[group] = make(chan struct{})
	}
	return d.ended[group]
}

func (d *departures) left(group uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.ended[group]; c != nil {
		close(c)
		delete(d.ended, group)
	}
}

// counters count events by the node that they were sent to.
type counters struct {
	mu     sync.Mutex
	events map[string]uint64
}

func (c *counters) add(node string, events int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.events == nil {
		c.events = make(map[string]uint64)
	}
	c.events[node] += uint64(events)
}

// each calls fn for every node.
func (c *counters) each(fn func(node string, events uint64)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for node, events := range c.events {
		fn(node, events)
	}
}
