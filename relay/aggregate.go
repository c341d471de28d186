package relay

import (
	"maps"
	"time"
	"unicode/utf8"

	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// flush tells others what is new in a room.
func (x *Signals) flush(g *gathering, now time.Time) {
	g.flushed, g.lagging = now, false
	g.crowd.tick(now)
	maps.DeleteFunc(g.children, func(_ string, c *child) bool { return now.Sub(c.heard) >= g.crowd.lease.forget })
	g.gone = g.over && g.idle()
	x.tellParent(g, now)
	for node, c := range g.children {
		shares, upto := g.crowd.news(node, false, c.told, now)
		talks := g.crowd.talk.tell(node, false)
		if len(shares)+len(talks) == 0 {
			continue
		}
		f := g.aggregate(shares, talks)
		if c.session.replies.Len() > aggregatesBelow {
			x.slow(g)
			continue
		}
		c.session.reply(f)
		c.told = upto
		x.sent(g, node)
		g.lagging = g.lagging || upto < g.crowd.version
	}
	x.tellListeners(g, now)
	x.talking -= g.crowd.talk.bytes
	g.crowd.talk.over(now)
}

// tellParent tells the parent what is new, and from time to time that this node is
// there and wants to hear of others.
func (x *Signals) tellParent(g *gathering, now time.Time) {
	parent := x.cfg.Parent(g.about)
	if parent != g.parent {
		if g.parent != "" {
			last := g.aggregate(nil, nil)
			last.GetAggregate().Over = true
			if x.cfg.Send(g.parent, last, aggregatesBelow) {
				x.sent(g, g.parent)
			}
		}
		g.parent, g.told, g.toldAt = parent, 0, time.Time{}
	}
	said, over := g.over, g.idle()
	g.over = over
	if parent == "" || over && (said || g.toldAt.IsZero()) {
		return
	}
	shares, upto := g.crowd.news(parent, true, g.told, now)
	talks := g.crowd.talk.tell(parent, true)
	if len(shares)+len(talks) == 0 && !over && now.Sub(g.toldAt) < g.crowd.lease.renew {
		g.told = upto
		return
	}
	f := g.aggregate(shares, talks)
	f.GetAggregate().Over = over
	if !x.cfg.Send(parent, f, aggregatesBelow) {
		x.slow(g)
		return
	}
	g.told, g.toldAt = upto, now
	x.sent(g, parent)
	g.lagging = g.lagging || upto < g.crowd.version
}

// tellListeners tells the clients on this node, if what they would see has changed or
// was said long ago.
func (x *Signals) tellListeners(g *gathering, now time.Time) {
	if len(g.listeners) == 0 {
		return
	}
	v := g.crowd.view()
	talk := &g.crowd.talk
	if !v.same(g.view) || g.edition == 0 || talk.fresh || len(v.typing) > 0 && now.Sub(g.viewAt) >= roomLease.renew {
		g.view, g.viewAt = v, now
		g.edition++
	}
	early := g.about.User != "" && v.sessions == 0 && now.Sub(g.since) < userSettles
	if early {
		g.lagging = true
		return
	}
	var encoded, out []byte
	for to, l := range g.listeners {
		if l.told == g.edition {
			continue
		}
		if encoded == nil {
			encoded = wire.EncodeSignals(g.signals(v))
		}
		out = wire.AppendSignals(out[:0], to.follow, talk.said-l.began, encoded)
		lossy := to.follow != 0 && l.told > 0 && l.sessions == v.sessions && l.users == v.users
		switch {
		case lossy && to.session.datagram(out):
			x.stats.Datagrams++
		case !to.session.offer(out, signalsBelow):
			x.slow(g)
			continue
		}
		*l = listener{began: l.began, told: g.edition, sessions: v.sessions, users: v.users}
		x.stats.Signals++
	}
}

// userSettles is how long a user is not said to be offline after it was first asked for:
// other nodes may know better.
const userSettles = 2 * time.Second

// signals says to clients a view, and what was said live.
func (g *gathering) signals(v view) *wire.Signals {
	if g.about.User != "" {
		return &wire.Signals{States: []*wire.UserState{{User: g.about.User, State: v.state()}}}
	}
	return &wire.Signals{
		Typing: v.typing, Others: uint32(v.others), Sessions: uint32(v.sessions), Users: uint32(v.users), Edition: g.edition,
		Live: g.crowd.talk.live(),
	}
}

func (x *Signals) sent(g *gathering, node string) {
	x.stats.Aggregates++
	x.cfg.Sent(node, g.about)
}

func (x *Signals) slow(g *gathering) {
	x.stats.DroppedSlow++
	g.lagging = true
}

func (g *gathering) aggregate(shares []*wire.Share, talks []*wire.Talk) *wire.Frame {
	return &wire.Frame{Body: &wire.Frame_Aggregate{Aggregate: &wire.Aggregate{
		App: g.about.App, Room: g.about.Room, User: g.about.User, Shares: shares, Talks: talks,
	}}}
}

// next is when a room that was just flushed is to be flushed again; zero = it has no
// signals any more.
func (g *gathering) next(now time.Time) time.Time {
	at, turn := now.Add(g.crowd.lease.renew), now.Add(wire.AggregateEvery)
	sooner := func(t time.Time) {
		if t.Before(at) {
			at = t
		}
	}
	switch {
	case g.gone:
		return time.Time{}
	case g.idle():
		return turn // for whoever comes back at once
	}
	if next := g.crowd.next(); !next.IsZero() {
		sooner(next)
	}
	if g.parent != "" {
		sooner(g.toldAt.Add(g.crowd.lease.renew))
	}
	if len(g.view.typing) > 0 {
		sooner(g.viewAt.Add(roomLease.renew))
	}
	if g.lagging {
		sooner(now.Add(renewalsWait))
	}
	if at.Before(turn) {
		return turn
	}
	return at
}

// idle: nobody says or wants anything here.
func (g *gathering) idle() bool {
	return g.crowd.idle() && len(g.children) == 0 && len(g.listeners) == 0
}

// proper holds what nodes say to its bounds.
func proper(a *wire.Aggregate) bool {
	for _, s := range a.Shares {
		if !properNode(s.Node) || len(s.Typing) > wire.TypingNames {
			return false
		}
		for _, name := range s.Typing {
			if name == "" || len(name) > room.NameBytes {
				return false
			}
		}
	}
	if len(a.Talks) > 0 && a.Room == "" || len(a.Talks) > aggregateShares {
		return false
	}
	lines, size := 0, 0
	for _, t := range a.Talks {
		if !properNode(t.Node) || t.Upto <= t.After || uint64(len(t.Lines)) > t.Upto-t.After {
			return false
		}
		for _, l := range t.Lines {
			lines, size = lines+1, size+line{Line: l}.size()
			if lines > talkLines || l.User == "" || len(l.User) > room.NameBytes || !utf8.ValidString(l.User) || l.Content == "" || wire.CheckLine(l.Content) != nil {
				return false
			}
		}
	}
	return size <= talkBytes
}

func properNode(name string) bool { return name != "" && len(name) <= room.NameBytes }
