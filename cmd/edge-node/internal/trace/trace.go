// Package trace makes a tree of what nodes noted of one message: who had it, when, and
// how long each hop and each way between two hops took.
//
// It promises that times add up: what a step takes is counted from the end of the step
// before, so that the steps from the sender to a client sum to the time between the two.
package trace

import (
	"cmp"
	"slices"

	"github.com/starling-im/starling"
)

// Message is all that is known of a traced message. Times are in Unix microseconds.
type Message struct {
	Trace   string              `json:"trace"` // 32 hex digits
	Room    string              `json:"room"`
	ID      string              `json:"message"` // its client_msg_id
	Seq     uint64              `json:"seq"`
	User    string              `json:"user"` // who sent it, and follows it
	Sent    int64               `json:"sent_us"`
	Acked   int64               `json:"acked_us"`
	Clients []Client            `json:"clients"`
	Clocks  []Clock             `json:"clocks"`
	Hops    []starling.TraceHop `json:"hops"`
}

// Client is one that follows the room at a node.
type Client struct {
	Node   string `json:"node"`
	Region string `json:"region"`
	Got    int64  `json:"got_us"` // by the clock of the sender; 0 = it has not
}

// Clock is how far a node's clock is ahead of the sender's, and how sure that is; within
// that the two are held to agree.
type Clock struct {
	Node   string  `json:"node"`
	Ahead  float64 `json:"ahead_ms"`
	Within float64 `json:"within_ms"`
}

// Off reports whether the clock is known to be another than the sender's.
func (c Clock) Off() bool { return max(c.Ahead, -c.Ahead) > c.Within }

// What a step is, besides the hops of package starling.
const (
	Send   = "send"   // the root
	Way    = "way"    // From → To, over a link or a client's connection
	Raft   = "raft"   // From → To, as an entry of the log
	Queue  = "queue"  // waits for its turn at the leader
	Quorum = "quorum" // until the disks of a quorum have it
)

// Step is a hop or a way. What comes after it is in Then, in the order of time.
type Step struct {
	What   string `json:"what"`
	Node   string `json:"node,omitempty"` // of a hop
	From   string `json:"from,omitempty"` // of a way; "" = a client
	To     string `json:"to,omitempty"`   // of a way or a write; "" = a client
	Region string `json:"region,omitempty"`
	User   string `json:"user,omitempty"` // whose client it is written to, if that is not the tracer's own
	// Took is from the end of the step before to At, the end of this one, which is
	// counted from the sending; in milliseconds.
	Took float64 `json:"took_ms"`
	At   float64 `json:"at_ms"`
	// Queued is how much of Took it waited for others, in milliseconds.
	Queued float64 `json:"queued_ms,omitzero"`
	// Others counts further clients to which the node wrote it.
	Others int     `json:"others,omitzero"`
	Then   []*Step `json:"then,omitempty"`
	end    int64
}

// Remembered returns the messages of a trace that others have sent, from the hops that
// nodes remember, in the order of time. Nothing is known of the sender and the clients:
// Sent is when the first node had the message.
func Remembered(id string, hops []starling.TraceHop, clocks []Clock) (all []*Message) {
	for _, h := range hops {
		i := slices.IndexFunc(all, func(m *Message) bool { return m.ID == h.Message })
		if i < 0 {
			i = len(all)
			all = append(all, &Message{Trace: id, ID: h.Message, Clocks: clocks, Clients: []Client{}})
		}
		m := all[i]
		m.Hops = append(m.Hops, h)
		m.Seq = max(m.Seq, h.Seq)
		if h.What == starling.HopEdge {
			m.User = h.User
		}
	}
	for _, m := range all {
		for i, h := range m.byOneClock() {
			if i == 0 || h.Arrived < m.Sent {
				m.Sent = h.Arrived
			}
		}
	}
	slices.SortStableFunc(all, func(a, b *Message) int { return cmp.Compare(a.Sent, b.Sent) })
	return all
}

// remembered reports whether the message is one of those.
func (m *Message) remembered() bool { return len(m.Clients) == 0 }

// Total is from the sending to the last client, in milliseconds.
func (m *Message) Total() float64 {
	if m.remembered() {
		return ms(m.Tree().latest() - m.Sent)
	}
	last := m.Sent
	for _, c := range m.Clients {
		last = max(last, c.Got)
	}
	return ms(last - m.Sent)
}

func ms(us int64) float64 { return float64(us) / 1000 }

// builder puts the steps together.
type builder struct {
	m    *Message
	hops []starling.TraceHop // of the message, by the sender's clock
	done map[string]bool     // nodes whose steps are in the tree
	root *Step
}

// Tree returns the way of a message. Where hops are missing, since a node is of an
// older release or did not answer, the step after them has their time.
func (m *Message) Tree() *Step {
	b := &builder{m: m, hops: m.byOneClock(), done: map[string]bool{}, root: &Step{What: Send, end: m.Sent}}
	b.build()
	sortSteps(b.root)
	return b.root
}

// byOneClock returns the hops of the message by the sender's clock.
func (m *Message) byOneClock() (hops []starling.TraceHop) {
	ahead := map[string]int64{}
	for _, c := range m.Clocks {
		if c.Off() {
			ahead[c.Node] = int64(c.Ahead * 1000)
		}
	}
	for _, h := range m.Hops {
		if h.Message != m.ID {
			continue
		}
		h.Arrived -= ahead[h.Node]
		if h.Left != 0 {
			h.Left -= ahead[h.Node]
		}
		hops = append(hops, h)
	}
	return hops
}

// add puts a step behind another one; without a time it is left out.
func (b *builder) add(before *Step, end int64, s Step) *Step {
	if end == 0 {
		return before
	}
	s.end, s.At, s.Took = end, ms(end-b.m.Sent), ms(end-before.end)
	before.Then = append(before.Then, &s)
	return &s
}

// last returns the last hop that fits; a zero one if none does.
func (b *builder) last(fits func(starling.TraceHop) bool) (found starling.TraceHop) {
	for _, h := range b.hops {
		if fits(h) && h.Arrived >= found.Arrived {
			found = h
		}
	}
	return found
}

func (b *builder) build() {
	applied := func(node string) starling.TraceHop {
		return b.last(func(h starling.TraceHop) bool { return h.What == starling.HopApply && h.Node == node })
	}
	// Of several attempts the one counts that left the leader before it was applied there.
	led := b.last(func(h starling.TraceHop) bool {
		return h.What == starling.HopPropose && h.Left != 0 && h.Left <= applied(h.Node).Arrived
	})
	edge := b.last(func(h starling.TraceHop) bool {
		return h.What == starling.HopEdge && h.Left != 0 && (led.Node == "" || h.To == led.Node && h.Arrived <= led.Arrived)
	})
	at := b.root
	if edge.Node != "" {
		if !b.m.remembered() {
			at = b.add(at, edge.Arrived, Step{What: Way, To: edge.Node, Region: edge.Region})
		}
		at = b.add(at, edge.Left, Step{What: starling.HopEdge, Node: edge.Node, Region: edge.Region})
	}
	queued, committed := at, at
	if led.Node != "" {
		if edge.Node != led.Node {
			at = b.add(at, led.Arrived, Step{What: Way, From: edge.Node, To: led.Node, Region: led.Region})
		}
		queued = b.add(at, led.Left, Step{What: Queue, Node: led.Node, Region: led.Region, Queued: ms(led.Queued)})
		home := applied(led.Node)
		committed = b.add(queued, home.Arrived, Step{What: Quorum, Node: led.Node, Region: led.Region})
		at = b.add(committed, home.Left, Step{What: starling.HopApply, Node: led.Node, Region: led.Region})
		b.ack(at, led.Node, edge)
		b.from(at, home)
	}
	for _, h := range b.hops {
		if h.What == starling.HopApply && !b.done[h.Node] {
			// The leader tells of a commit at once, and is not always the first to apply it.
			at := committed
			if h.Arrived < at.end {
				at = queued
			}
			at = b.add(at, h.Arrived, Step{What: Raft, From: led.Node, To: h.Node, Region: h.Region})
			b.from(b.add(at, h.Left, Step{What: starling.HopApply, Node: h.Node, Region: h.Region}), h)
		}
	}
	for _, h := range b.hops { // by relays that nobody has a hop of
		if h.What == starling.HopRelay && !b.done[h.Node] {
			b.relay(committed, h)
		}
	}
	for _, c := range b.m.Clients {
		if !b.done[c.Node] {
			b.add(committed, c.Got, Step{What: Way, From: c.Node, Region: c.Region})
		}
	}
}

func (b *builder) ack(at *Step, leader string, edge starling.TraceHop) {
	h := b.last(func(h starling.TraceHop) bool { return h.What == starling.HopAck && h.Node == edge.Node })
	if h.Node != "" && h.Node != leader {
		at = b.add(at, h.Arrived, Step{What: starling.HopAck, From: leader, To: h.Node, Region: h.Region})
	}
	b.add(at, b.m.Acked, Step{What: starling.HopAck, From: cmp.Or(edge.Node, leader), Region: edge.Region})
}

// from adds what a node does with a message that it has: it writes it to nodes that
// follow, and to clients.
func (b *builder) from(at *Step, has starling.TraceHop) {
	b.done[has.Node] = true
	ours := false
	for _, h := range b.hops {
		if h.What == starling.HopWrite && h.Node == has.Node && h.To == "" {
			if b.m.remembered() {
				b.add(at, h.Left, Step{What: starling.HopWrite, Node: h.Node, Region: h.Region, User: h.User, Queued: ms(h.Queued)})
			} else if h.User == b.m.User && !ours {
				ours = true
			} else {
				at.Others++
			}
		}
	}
	for _, h := range b.hops {
		if h.What == starling.HopRelay && h.From == has.Node && !b.done[h.Node] {
			b.relay(b.write(at, has.Node, h.Node, h.Arrived), h)
		}
	}
	for _, c := range b.m.Clients {
		if c.Node == has.Node && c.Got != 0 {
			b.add(b.write(at, c.Node, "", c.Got), c.Got, Step{What: Way, From: c.Node, Region: c.Region})
		}
	}
}

// write adds the write by which a message reached a node or a client at a time: the
// peer may have it before the writer goes on.
func (b *builder) write(at *Step, node, to string, got int64) *Step {
	for _, h := range b.hops {
		if h.What == starling.HopWrite && h.Node == node && h.To == to && (to != "" || h.User == b.m.User) {
			return b.add(at, min(h.Left, got), Step{What: starling.HopWrite, Node: node, To: to, Region: h.Region, Queued: ms(h.Queued)})
		}
	}
	return at
}

func (b *builder) relay(at *Step, h starling.TraceHop) {
	b.done[h.Node] = true
	at = b.add(at, h.Arrived, Step{What: Way, From: h.From, To: h.Node, Region: h.Region})
	if h.Left > h.Arrived {
		at = b.add(at, h.Left, Step{What: starling.HopRelay, Node: h.Node, Region: h.Region})
	}
	b.from(at, h)
}

// sortSteps puts what is on the longest path last, so that the tree reads as one line.
func sortSteps(s *Step) {
	for _, next := range s.Then {
		sortSteps(next)
	}
	slices.SortStableFunc(s.Then, func(a, b *Step) int { return cmp.Compare(a.latest(), b.latest()) })
}

// latest is the end of the last step.
func (s *Step) latest() int64 {
	last := s.end
	for _, next := range s.Then {
		last = max(last, next.latest())
	}
	return last
}
