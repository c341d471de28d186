package mesh

import (
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/starling-im/starling/geo"
)

// Coordinates travel in the answers to gossip's probes: each node hears that of
// one other a second or so, and moves its own by the round trip to there.

// AckPayload is what this node says when it is probed: where it is.
func (g *gossip) AckPayload() []byte { return g.locator.Coordinate().Encode() }

// NotifyPingComplete takes where a node is that this one has probed. The round trip
// of its link is better than that of one packet, which may have waited.
func (g *gossip) NotifyPingComplete(other *memberlist.Node, rtt time.Duration, payload []byte) {
	at, err := geo.DecodeCoordinate(payload)
	if err != nil {
		g.m.log.Debug("no coordinate in the answer to a probe", "peer", other.Name, "err", err)
		return
	}
	if l := g.m.table.to(other.Name); l != nil {
		if smoothed := l.rtt(); smoothed > 0 {
			rtt = smoothed
		}
	}
	own, err := g.locator.Measured(other.Name, at, rtt)
	if err != nil {
		g.m.log.Debug("a round trip that says nothing", "peer", other.Name, "rtt", rtt, "err", err)
		return
	}
	g.m.table.located(other.Name, at, own)
}

// located takes where another node and this one are. It is shown in the next view;
// measure makes one if they have moved.
func (t *table) located(id string, at, own geo.Coordinate) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all[t.self].Coordinate = own
	if e := t.all[id]; e != nil {
		e.Coordinate = at
	}
}

// moved reports whether the estimate of the round trip to a member differs from that
// in the last view. The caller holds mu.
func (t *table) moved(m, self Member) bool {
	e := t.all[m.ID]
	return e != nil && m.ID != t.self && changed(t.all[t.self].Coordinate.RTT(e.Coordinate), self.Coordinate.RTT(m.Coordinate))
}

// changed reports whether a round trip has changed by a tenth and by at least a
// millisecond.
func changed(now, was time.Duration) bool {
	return (now - was).Abs() >= max(time.Millisecond, was/10)
}
