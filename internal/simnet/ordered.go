package simnet

import (
	"net/netip"
	"time"
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
}

type carried struct {
	packet
	lost  bool
	again time.Duration // by how much later, since it was lost again
}

func (n *Net) ordered(way path) bool {
	return n.opts.Ordered != nil && n.opts.Ordered(way.from, way.to)
}

// carry takes a packet into the stream of a way; n is locked.
func (n *Net) carry(way path, p packet, now time.Time) {
	c := n.carriages[way]
	if c == nil {
		c = &carriage{}
		n.carriages[way] = c
	}
	c.trip = n.opts.Latency(way.from, way.to)
	p.arrives = now.Add(c.trip)
	x := carried{packet: p, lost: n.happens(n.noise.Loss)}
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
	if len(c.waiting) == 0 {
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
	for now := time.Now(); len(c.waiting) > 0 && !c.waiting[0].arrives.After(now); {
		x := c.waiting[0]
		c.waiting = c.waiting[1:]
		if conn := n.conns[x.to]; conn != nil {
			x.packet.arrives = now
			conn.take(x.packet)
		}
	}
	n.deliverOrdered(c)
}
