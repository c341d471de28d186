package simnet

import (
	"net/netip"
	"time"

	quicsim "github.com/quic-go/quic-go/testutils/simnet"
)

// Ordered says which hosts carry all packets between them, each way, in one stream like
// that of TCP: nothing is lost or overtakes, but what follows a lost packet waits until
// that has come again.
//
// A lost packet is sent again when an acknowledgement of a later one is back, a quarter of
// a round trip after that as RACK has it (RFC 8985), or, where nothing follows, by the tail
// loss probe two round trips later; if that is lost too, after a round trip and 200 ms, and
// then twice that. The window is never the bound, and nothing slows down after a loss.
type Ordered func(from, to netip.Addr) bool

const (
	// leastRTO is the shortest time-out of TCP beside the round trip.
	leastRTO = 200 * time.Millisecond
	// mostAgain bounds how often what was sent again is lost.
	mostAgain = 6
)

// carriage is what is under way from one host to another, in order.
type carriage struct {
	trip    time.Duration // one way
	waiting []carried
	timer   *time.Timer
	busy    bool // packets are being delivered
}

type carried struct {
	packet  quicsim.Packet
	to      netip.AddrPort
	arrives time.Time
	lost    bool
	again   time.Duration // by how much later, since it was lost again
}

func (n *Net) ordered(way path) bool {
	return n.opts.Ordered != nil && n.opts.Ordered(way.from, way.to)
}

// carry takes a packet into the stream of a way; n is locked.
func (n *Net) carry(way path, to netip.AddrPort, p quicsim.Packet, now time.Time) {
	c := n.carriages[way]
	if c == nil {
		c = &carriage{}
		n.carriages[way] = c
	}
	c.trip = n.opts.Latency(way.from, way.to)
	x := carried{packet: p, to: to, arrives: now.Add(c.trip), lost: n.happens(n.noise.Loss)}
	if x.lost {
		n.lost++
		for i, rto := 0, 2*c.trip+leastRTO; i < mostAgain && n.happens(n.noise.Loss); i, rto = i+1, 2*rto {
			x.again += rto
		}
		x.arrives = x.arrives.Add(4*c.trip + x.again)
	} else {
		c.acknowledged(now)
	}
	c.waiting = append(c.waiting, x)
	n.deliverOrdered(c)
}

// acknowledged has what was lost come again because of a packet that is sent now.
func (c *carriage) acknowledged(now time.Time) {
	at := now.Add(3*c.trip + c.trip/2)
	for i := range c.waiting {
		x := &c.waiting[i]
		if seen := at.Add(x.again); x.lost && seen.Before(x.arrives) {
			x.arrives = seen
		}
		x.lost = false // the first acknowledgement is what counts
	}
}

// deliverOrdered waits for the first of what is under way; n is locked.
func (n *Net) deliverOrdered(c *carriage) {
	if c.busy || len(c.waiting) == 0 {
		return
	}
	wait := time.Until(c.waiting[0].arrives)
	if c.timer == nil {
		c.timer = time.AfterFunc(wait, func() { n.arrived(c) })
		return
	}
	c.timer.Reset(wait)
}

// arrived delivers all that is there in order.
func (n *Net) arrived(c *carriage) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.busy {
		return
	}
	for now := time.Now(); len(c.waiting) > 0 && !c.waiting[0].arrives.After(now); {
		x := c.waiting[0]
		c.waiting = c.waiting[1:]
		conn := n.conns[x.to]
		if conn == nil {
			continue
		}
		c.busy = true
		n.mu.Unlock()
		conn.link.RecvPacket(x.packet)
		n.mu.Lock()
		c.busy = false
	}
	n.deliverOrdered(c)
}
