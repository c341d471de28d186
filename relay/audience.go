package relay

import (
	"runtime"
	"sync"
	"time"

	"github.com/starling-im/starling/wire"
)

// ear is who wants to hear of a subject: a follow, or a session that watches (0).
type ear struct {
	session *Session
	follow  uint64
}

// listener is an ear that is told.
type listener struct {
	began uint64 // what had been said live when it came
	since uint64 // the last telling that is not for it
	index int    // in the audience

	mu              sync.Mutex
	to              ear    // without a session: it listens no more
	told            uint64 // the edition of the view
	sessions, users int    // as told on the stream
}

// audience is all who listen to a subject, in no order.
type audience []*listener

func (a *audience) add(l *listener) {
	l.index = len(*a)
	*a = append(*a, l)
}

func (a *audience) remove(l *listener) {
	last := len(*a) - 1
	(*a)[l.index] = (*a)[last]
	(*a)[l.index].index = l.index
	(*a)[last] = nil
	*a = (*a)[:last]
}

// A telling is what an audience is told at one time. Only how far it is changes.
type telling struct {
	of              *gathering
	number          uint64
	edition, said   uint64
	encoded         []byte
	sessions, users int
	class           class // counts that are new to a listener apart
	bytes           int   // of what is said live, for which it holds places

	rest int // of the audience, the first ones: no worker has taken them
	open int // parts that workers have
	slow bool
}

// tellPart is how many listeners a worker tells in a turn.
const tellPart = 32

// tellers are the workers that tell audiences. They are half of the processors at most, so that
// events have the others, and none while there is nothing to tell. Audiences take turns in
// parts: those of now have one each before those that are next.
type tellers struct {
	most, busy int
	now, next  []*telling
}

func newTellers() tellers { return tellers{most: max(1, runtime.GOMAXPROCS(0)/2)} }

// tell begins to tell an audience; x is locked.
func (x *Signals) tell(n *telling) {
	n.of.telling = n
	x.tellers.next = append(x.tellers.next, n)
	x.help()
}

// help starts a worker if there is work for one more; x is locked.
func (x *Signals) help() {
	t := &x.tellers
	if t.busy < t.most && len(t.now)+len(t.next) > 0 {
		t.busy++
		go x.work()
	}
}

// work tells parts of audiences until there are none.
func (x *Signals) work() {
	part, out := make([]*listener, 0, tellPart), []byte(nil)
	for {
		var n *telling
		if n, part = x.takePart(part[:0]); n == nil {
			return
		}
		var got outcome
		for _, l := range part {
			out = l.tell(n, out, &got)
		}
		x.toldPart(n, got)
		if len(part) == tellPart {
			runtime.Gosched() // for those who write what was told
		}
		clear(part)
	}
}

// takePart gives a worker the next listeners to tell, nil if there are none. It takes the last
// ones of an audience: whoever takes the place of one that leaves was told, or came since.
func (x *Signals) takePart(part []*listener) (*telling, []*listener) {
	x.mu.Lock()
	defer x.mu.Unlock()
	t := &x.tellers
	if len(t.now) == 0 {
		t.now, t.next = t.next, t.now
	}
	last := len(t.now) - 1
	if last < 0 {
		t.busy--
		return nil, part
	}
	n := t.now[last]
	t.now[last], t.now = nil, t.now[:last]
	all := n.of.audience
	to := min(n.rest, len(all))
	n.rest = max(0, to-tellPart)
	n.open++
	part = append(part, all[n.rest:to]...)
	if n.rest > 0 {
		t.next = append(t.next, n)
	}
	x.help()
	return n, part
}

// outcome is what became of a part.
type outcome struct {
	signals, datagrams uint64
	slow               [len(classes)]uint64
}

// toldPart ends a worker's part of a telling, and the telling with its last.
func (x *Signals) toldPart(n *telling, got outcome) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stats.Signals += got.signals
	x.stats.Datagrams += got.datagrams
	for c, dropped := range got.slow {
		if dropped > 0 {
			x.stats.Dropped[class(c).drop(dropSlow)] += dropped
			n.slow = true
		}
	}
	if n.open--; n.open > 0 || n.rest > 0 {
		return
	}
	g := n.of
	g.telling = nil
	x.talking.add(g.about.App, -n.bytes)
	if g.at.Equal(never) { // its turn came meanwhile
		x.wake(g, 0)
	}
	if n.slow {
		g.untold, g.lagging = true, true
		x.wake(g, renewalsWait)
	}
}

// tell tells a listener unless it has left or knows; out is a buffer, returned for the next.
func (l *listener) tell(n *telling, out []byte, got *outcome) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.to.session
	if s == nil || l.told == n.edition || l.since >= n.number {
		return out
	}
	out = wire.AppendSignals(out[:0], l.to.follow, n.said-l.began, n.encoded)
	counted := l.told > 0 && l.sessions == n.sessions && l.users == n.users
	is := n.class
	if is == ofTyping && !counted {
		is = ofOccupancy
	}
	below := is.below(signalsBelow)
	switch {
	case counted && l.to.follow != 0 && s.datagram(out, below):
		got.datagrams++
	case !s.offer(out, below):
		got.slow[is]++
		return out
	}
	l.told, l.sessions, l.users = n.edition, n.sessions, n.users
	got.signals++
	return out
}

// leave has a listener told nothing from now on.
func (l *listener) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.to = ear{}
}

// tellListeners tells the clients on this node, if what they would see has changed or
// was said long ago.
func (x *Signals) tellListeners(g *gathering, now time.Time) {
	if len(g.audience) == 0 {
		return
	}
	v := g.crowd.view()
	talk := &g.crowd.talk
	if !v.same(g.view) || g.edition == 0 || talk.fresh || len(v.typing) > 0 && now.Sub(g.viewAt) >= roomLease.renew {
		g.view, g.viewAt = v, now
		g.edition++
		g.untold = true
	}
	if g.about.User != "" && v.sessions == 0 && now.Sub(g.since) < userSettles {
		g.lagging = true
		return
	}
	if !g.untold {
		return
	}
	g.untold = false
	g.tellings++
	x.tell(&telling{
		of: g, number: g.tellings, edition: g.edition, said: talk.said, encoded: wire.EncodeSignals(g.signals(v)),
		sessions: v.sessions, users: v.users, class: g.class(len(talk.lines) > 0, false), rest: len(g.audience),
	})
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
