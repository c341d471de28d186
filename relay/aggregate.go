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
		shares, upto, counts := g.crowd.news(node, false, c.told, now)
		talks := g.crowd.talk.tell(node, false)
		if len(shares)+len(talks) == 0 {
			continue
		}
		f := g.aggregate(shares, talks)
		if is := g.class(len(talks) > 0, counts); c.session.replies.Len() > is.below(aggregatesBelow) {
			x.slow(g, is)
			continue
		}
		c.session.reply(f)
		c.told = upto
		x.sent(g, node)
		g.lagging = g.lagging || upto < g.crowd.version
	}
	x.tellListeners(g, now)
	if g.telling != nil {
		g.telling.bytes = g.crowd.talk.bytes // until all are told
	} else {
		x.talking.add(g.about.App, -g.crowd.talk.bytes)
	}
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
	shares, upto, counts := g.crowd.news(parent, true, g.told, now)
	talks := g.crowd.talk.tell(parent, true)
	if len(shares)+len(talks) == 0 && !over && now.Sub(g.toldAt) < g.crowd.lease.renew {
		g.told = upto
		return
	}
	f := g.aggregate(shares, talks)
	f.GetAggregate().Over = over
	is := g.class(len(talks) > 0, counts)
	if !x.cfg.Send(parent, f, is.below(aggregatesBelow)) {
		x.slow(g, is)
		return
	}
	g.told, g.toldAt = upto, now
	x.sent(g, parent)
	g.lagging = g.lagging || upto < g.crowd.version
}

func (x *Signals) sent(g *gathering, node string) {
	x.stats.Aggregates++
	x.cfg.Sent(node, g.about)
}

func (x *Signals) slow(g *gathering, is class) {
	x.drop(is, dropSlow)
	g.lagging = true
}

// class is that of what is told of a subject: with lines, or with counts that are new.
func (g *gathering) class(lines, counts bool) class {
	switch {
	case g.about.User != "":
		return ofPresence
	case lines:
		return ofLive
	case counts:
		return ofOccupancy
	}
	return ofTyping
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
	return g.crowd.idle() && len(g.children) == 0 && len(g.audience) == 0
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
