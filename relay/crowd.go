package relay

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/starling-im/starling/wire"
)

// lease is how long a share lives.
type lease struct {
	renew  time.Duration // how often a node says its share again
	forget time.Duration // the age at which it is forgotten
}

// The leases of what goes on in rooms, of which clients too are told again, and of
// how users are.
var (
	roomLease = lease{renew: 4 * time.Second, forget: 10 * time.Second}
	userLease = lease{renew: 15 * time.Second, forget: 45 * time.Second}
)

const (
	// crowdTypers bounds the users of this node who type in one room, crowdNodes the
	// nodes whose shares of one room are kept.
	crowdTypers = 4096
	crowdNodes  = 1024
	// aggregateShares bounds the shares of one Aggregate; others wait for the next.
	aggregateShares = 256
)

// A crowd is what this node knows of the signals in one room, or of how one user is: what
// its own sessions say, and the shares of other nodes. It is a value: it is told the time, and does
// nothing by itself.
//
// A share is replaced by one of its node with a greater stamp, whoever tells it, and is
// forgotten at an age that it carries along. So what goes in a circle, comes by two ways or
// comes late changes nothing.
type crowd struct {
	self    string
	lease   lease
	typers  map[string]time.Time // own users who type, and until when
	people  map[string]int       // own users and their follows
	follows int
	away    int               // sessions of the user that say so
	shares  map[string]*share // by node; with the own one
	version uint64            // of the newest share
	talk    talk
}

// share is what a node said last.
type share struct {
	*wire.Share
	at      time.Time // when the node said it
	from    string    // who told
	down    bool      // it came from the parent
	version uint64    // in which order shares came
	counted uint64    // the version in which its counts were new
}

func newCrowd(self string, l lease, lots func(round uint64, user string) uint64) *crowd {
	return &crowd{
		self: self, lease: l, typers: map[string]time.Time{}, people: map[string]int{}, shares: map[string]*share{},
		talk: talk{self: self, lots: lots},
	}
}

// typing notes that an own user types, or no longer does; false if too many do.
func (c *crowd) typing(user string, on bool, now time.Time) bool {
	if !on {
		delete(c.typers, user)
		return true
	}
	if _, ok := c.typers[user]; !ok && len(c.typers) >= crowdTypers {
		return false
	}
	c.typers[user] = now.Add(wire.TypingFor)
	return true
}

// join and part count an own user's follows.
func (c *crowd) join(user string) {
	c.follows++
	c.people[user]++
}

func (c *crowd) part(user string) {
	c.follows--
	if c.people[user]--; c.people[user] <= 0 {
		delete(c.people, user)
	}
}

// present counts what a session of the user says, and no longer what it said before.
func (c *crowd) present(now, before wire.State) {
	for state, n := range map[wire.State]int{now: 1, before: -1} {
		switch state {
		case wire.State_STATE_AWAY:
			c.away += n
			fallthrough
		case wire.State_STATE_ONLINE:
			c.follows += n
		}
	}
}

// idle: no own session says or wants anything.
func (c *crowd) idle() bool { return c.follows == 0 && len(c.typers) == 0 && !c.talk.fresh }

// tick forgets what is too old and says the own share again if it is to be.
func (c *crowd) tick(now time.Time) {
	maps.DeleteFunc(c.typers, func(_ string, until time.Time) bool { return !until.After(now) })
	maps.DeleteFunc(c.shares, func(_ string, s *share) bool { return now.Sub(s.at) >= c.lease.forget })
	is := &wire.Share{
		Node: c.self, Typing: first(maps.Keys(c.typers), wire.TypingNames), Typers: uint32(len(c.typers)),
		Sessions: uint32(c.follows), Users: uint32(len(c.people)), Stamp: uint64(now.UnixMilli()), Away: uint32(c.away),
	}
	was := c.shares[c.self]
	switch {
	case was == nil && empty(is):
		return
	case was != nil && alike(was.Share, is) && (empty(is) || now.Sub(was.at) < c.lease.renew):
		return
	case was != nil:
		is.Stamp = max(is.Stamp, was.Stamp+1)
	}
	c.put(is, share{at: now, from: c.self})
}

// hear takes the shares that a node tells, the parent if down. It reports whether
// any of them is newer, whether that would change a view, and whether one found no place.
func (c *crowd) hear(from string, down bool, shares []*wire.Share, now time.Time) (newer, changed, full bool) {
	for _, s := range shares {
		age := time.Duration(s.AgeMs) * time.Millisecond
		was := c.shares[s.Node]
		switch {
		case s.Node == c.self || age >= c.lease.forget || was != nil && s.Stamp <= was.Stamp:
			continue
		case was == nil && len(c.shares) >= crowdNodes:
			full = true
			continue
		}
		newer = true
		changed = changed || was == nil || !alike(was.Share, s)
		c.put(s, share{at: now.Add(-age), from: from, down: down})
	}
	return newer, changed, full
}

func (c *crowd) put(is *wire.Share, s share) {
	c.version++
	s.Share, s.version, s.counted = is, c.version, c.version
	if was := c.shares[is.Node]; was != nil && was.Sessions == is.Sessions && was.Users == is.Users && was.Away == is.Away {
		s.counted = was.counted
	}
	c.shares[is.Node] = &s
}

// news returns the shares after a version for a peer, up to which version these are
// all, and whether they have counts that are new: else it is who types. A parent (up) gets only
// those that did not come from one.
func (c *crowd) news(peer string, up bool, since uint64, now time.Time) (shares []*wire.Share, upto uint64, counts bool) {
	var news []*share
	for _, s := range c.shares {
		if s.version > since && s.from != peer && s.Node != peer && !(up && s.down) {
			news = append(news, s)
		}
	}
	slices.SortFunc(news, func(a, b *share) int { return cmp.Compare(a.version, b.version) })
	upto = c.version
	if len(news) > aggregateShares {
		news = news[:aggregateShares]
		upto = news[len(news)-1].version
	}
	shares = make([]*wire.Share, len(news))
	for i, s := range news {
		counts = counts || s.counted > since
		shares[i] = &wire.Share{
			Node: s.Node, Stamp: s.Stamp, AgeMs: uint32(now.Sub(s.at).Milliseconds()),
			Typing: s.Typing, Typers: s.Typers, Sessions: s.Sessions, Users: s.Users, Away: s.Away,
		}
	}
	return shares, upto, counts
}

// view is what a client is told of a room or a user.
type view struct {
	typing          []string // sorted
	others          int
	sessions, users int
	away            int
}

func (v view) same(o view) bool {
	return v.others == o.others && v.sessions == o.sessions && v.users == o.users && v.away == o.away && slices.Equal(v.typing, o.typing)
}

// view adds all shares up.
func (c *crowd) view() view {
	names := map[string]bool{}
	v := view{}
	for _, s := range c.shares {
		for _, name := range s.Typing {
			names[name] = true
		}
		v.others += max(0, int(s.Typers)-len(s.Typing))
		v.sessions += int(s.Sessions)
		v.users += int(s.Users)
		v.away += int(s.Away)
	}
	v.typing = first(maps.Keys(names), wire.TypingNames)
	v.others += len(names) - len(v.typing)
	return v
}

// state is how a user is.
func (v view) state() wire.State {
	switch {
	case v.sessions == 0:
		return wire.State_STATE_OFFLINE
	case v.away >= v.sessions:
		return wire.State_STATE_AWAY
	}
	return wire.State_STATE_ONLINE
}

// next is when tick will have something to do; zero = never.
func (c *crowd) next() (at time.Time) {
	sooner := func(t time.Time) {
		if at.IsZero() || t.Before(at) {
			at = t
		}
	}
	for _, until := range c.typers {
		sooner(until)
	}
	for _, s := range c.shares {
		if s.Node == c.self && !empty(s.Share) {
			sooner(s.at.Add(c.lease.renew))
		} else {
			sooner(s.at.Add(c.lease.forget))
		}
	}
	return at
}

func empty(s *wire.Share) bool { return s.Typers == 0 && s.Sessions == 0 && s.Users == 0 }

// alike reports whether two shares of a node say the same.
func alike(a, b *wire.Share) bool {
	return a.Typers == b.Typers && a.Sessions == b.Sessions && a.Users == b.Users && a.Away == b.Away && slices.Equal(a.Typing, b.Typing)
}

// first returns the first max of some names in the order of the alphabet.
func first(names iter.Seq[string], max int) []string {
	sorted := slices.Sorted(names)
	return sorted[:min(len(sorted), max)]
}
