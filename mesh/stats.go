package mesh

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/starling-im/starling/wire"
)

// Stats are figures of the mesh on one node, since it was made.
type Stats struct {
	// Traffic is what went between this node and others, of those that are members
	// or have a link.
	Traffic []Traffic
	// Links are those that are up.
	Links []LinkStats
	// Handshakes are in progress, or those of strangers who ask something.
	Handshakes int
	// RefusedByLimit counts handshakes that were refused because too many were in
	// progress, RefusedByQueue those that nobody accepted in time.
	RefusedByLimit, RefusedByQueue uint64
	// PeersRefused counts those that were refused for who they are, or are not.
	PeersRefused uint64
	// GossipDropped counts packets that came faster than they were read, GossipUnsent
	// those that could not be sent.
	GossipDropped, GossipUnsent uint64
	// TunnelDropped counts packets of tunnels that came faster than they could be passed on.
	TunnelDropped uint64
}

// Traffic is what has gone over the streams of one class, and as packets of gossip.
type Traffic struct {
	Peer           string // "" = from an address of no member
	Class          Class
	Sent, Received Count
}

// Count is an amount. A message is a frame; on a stream without frames (of gossip, of
// keys, of a tunnel, of a snapshot) all that goes one way; or a packet of gossip.
type Count struct{ Bytes, Messages uint64 }

// LinkStats are the figures of a link.
type LinkStats struct {
	Peer string
	// Bulk is how fast bulk may be written, in bytes per second; 0 = none was lately.
	Bulk float64
}

// counter is a Count that changes.
type counter struct{ bytes, messages atomic.Uint64 }

func (c *counter) add(bytes, messages int) {
	c.bytes.Add(uint64(bytes))
	c.messages.Add(uint64(messages))
}

func (c *counter) count() Count { return Count{c.bytes.Load(), c.messages.Load()} }

// traffic counts what goes to and from one node, by class.
type traffic [classes]struct{ sent, received counter }

// meter counts for all nodes, and what was refused and lost.
type meter struct {
	limit, queue, peers, dropped, unsent, tunnel atomic.Uint64

	mu     sync.Mutex
	all    map[string]*traffic
	view   *View // that members is of
	member map[netip.AddrPort]string
}

// of returns the counters for a node; "" stands for all that are unknown.
func (c *meter) of(node string) *traffic {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.all[node]
	if t == nil {
		if c.all == nil {
			c.all = make(map[string]*traffic)
		}
		t = new(traffic)
		c.all[node] = t
	}
	return t
}

// keep forgets the counters of nodes that are neither members any more nor linked.
func (c *meter) keep(t *table) {
	v := t.view.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	for node := range c.all {
		if _, ok := v.Member(node); !ok && node != "" && t.to(node) == nil {
			delete(c.all, node)
		}
	}
}

// Stats returns the figures of now.
func (m *Mesh) Stats() Stats {
	s := Stats{
		RefusedByLimit: m.meter.limit.Load(), RefusedByQueue: m.meter.queue.Load(), PeersRefused: m.meter.peers.Load(),
		GossipDropped: m.meter.dropped.Load(), GossipUnsent: m.meter.unsent.Load(), TunnelDropped: m.meter.tunnel.Load(), Handshakes: m.handshakes.count(),
	}
	m.meter.mu.Lock()
	for node, t := range m.meter.all {
		for class := range t {
			if sent, received := t[class].sent.count(), t[class].received.count(); sent.Bytes+received.Bytes > 0 {
				s.Traffic = append(s.Traffic, Traffic{node, Class(class), sent, received})
			}
		}
	}
	m.meter.mu.Unlock()
	for _, l := range m.table.links() {
		s.Links = append(s.Links, LinkStats{l.node, l.pacer.now()})
	}
	return s
}

// gossip counts what is sent to a node, or to a seed, which has a colon in its name.
func (c *meter) gossip(to string) *counter {
	if strings.Contains(to, ":") {
		to = ""
	}
	return &c.of(to)[Gossip].sent
}

// gossiped counts a packet that came from an address.
func (m *Mesh) gossiped(from net.Addr, bytes int) {
	node, tunnelled := from.(nodeAddr)
	if !tunnelled {
		node = nodeAddr(m.at(addrPort(from)))
	}
	m.meter.of(string(node))[Gossip].received.add(bytes, 1)
}

// at returns who is at an address, or has a link from there; "" for nobody.
func (m *Mesh) at(addr netip.AddrPort) string {
	view, c := m.View(), &m.meter
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.view != view {
		c.view, c.member = view, make(map[netip.AddrPort]string, len(view.Members))
		for _, p := range view.Members {
			c.member[m.resolver.remembered(p.Addr)] = p.ID
		}
		for _, l := range m.table.links() {
			c.member[addrPort(l.conn.RemoteAddr())] = l.node
		}
		delete(c.member, netip.AddrPort{})
	}
	return c.member[addr]
}

// tally counts one direction of a stream.
type tally struct {
	to     *counter
	frames wire.Counter
	whole  bool // the stream has no frames; it has been counted as one message
	framed bool
}

// newTally begins to count a stream of a kind; to may be nil.
func newTally(kind byte, to *counter) tally {
	return tally{to: to, framed: kind == StreamRaft || kind == StreamRelay || kind == StreamHistory}
}

func (t *tally) count(b []byte) {
	messages := 0
	switch {
	case t.to == nil || len(b) == 0:
		return
	case t.framed:
		messages = t.frames.Count(b)
	case !t.whole:
		t.whole, messages = true, 1
	}
	t.to.add(len(b), messages)
}
