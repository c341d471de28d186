package relay

import (
	"container/heap"
	"context"
	"maps"
	"sync"
	"time"

	"github.com/starling-im/starling/wire"
)

const (
	// signalSubjects bounds the rooms with signals on a node, and the users of whom is
	// said or asked how they are, together. Apps have shares of it, as of the sends.
	signalSubjects = 64 << 10
	// talksBytes bounds what waits of what is said live, in all rooms. Apps have shares
	// of it too.
	talksBytes = 32 << 20
	// signalsBelow and aggregatesBelow are the most bytes that may wait for a client
	// or a node that is to get signals, half of it if these are who types or how users are;
	// with more, it gets the next ones.
	signalsBelow    = 16 << 10
	aggregatesBelow = 256 << 10
	// renewalsWait is how long shares that say nothing new wait for company.
	renewalsWait = time.Second
)

// Subject is what signals are about: what goes on in a room, or how a user is.
type Subject struct{ App, Room, User string }

// about is the subject of an aggregate.
func about(a *wire.Aggregate) Subject {
	return Subject{App: a.GetApp(), Room: a.GetRoom(), User: a.GetUser()}
}

// class is that of listening to a subject.
func (s Subject) class() class {
	if s.User != "" {
		return ofPresence
	}
	return ofOccupancy
}

// SignalsConfig says where a node's signals go.
type SignalsConfig struct {
	// Self is the node.
	Self string
	// Parent returns the node to which this one tells signals, "" if others tell this
	// one. It must not block.
	Parent func(Subject) string
	// Send sends a frame to a node unless more than below bytes wait for it, and
	// reports whether it did.
	Send func(node string, f *wire.Frame, below int) bool
	// Sent is called for each aggregate that goes to a node; may be nil.
	Sent func(node string, about Subject)
}

// Signals gathers what clients say that nobody keeps, and tells those who want to
// know: for each room or user at most one Aggregate per node and one Signals per follow in
// wire.AggregateEvery. It is safe for concurrent use.
type Signals struct {
	cfg   SignalsConfig
	woken chan struct{}
	lots  func(round uint64, user string) uint64
	began time.Time

	mu      sync.Mutex
	all     map[Subject]*gathering
	apps    apps // that have them
	due     schedule
	talking apps // bytes of what is said live
	tellers tellers
	stats   SignalStats
}

// SignalStats counts what became of signals since the node started.
type SignalStats struct {
	Aggregates uint64 // sent to nodes
	Signals    uint64 // sent to clients
	Datagrams  uint64 // those of them that went as datagrams
	// Dropped counts what sessions said, aggregates and Signals that were dropped, and lines
	// where more is said live than is told.
	Dropped map[Drop]uint64
}

// gathering is a subject of signals on this node.
type gathering struct {
	about     Subject
	since     time.Time
	crowd     *crowd
	parent    string
	told      uint64 // the version up to which the parent knows the crowd
	toldAt    time.Time
	children  map[string]*child // nodes that tell this one
	listeners map[ear]*listener
	audience  audience // those
	view      view     // what they are told, at last
	edition   uint64
	viewAt    time.Time
	untold    bool     // one of them has yet to be told that
	telling   *telling // under way
	tellings  uint64
	over      bool      // nobody says or wants anything here, and the parent knows
	gone      bool      // that was so for a while
	lagging   bool      // somebody was not told the newest
	flushed   time.Time // when others were told last
	at        time.Time // when to flush
	index     int       // in the schedule
}

type child struct {
	session *Session
	told    uint64
	heard   time.Time
}

// NewSignals returns a Signals that knows nothing. It starts nothing.
func NewSignals(cfg SignalsConfig) *Signals {
	if cfg.Sent == nil {
		cfg.Sent = func(string, Subject) {}
	}
	return &Signals{
		cfg: cfg, woken: make(chan struct{}, 1), lots: drawLots(), began: time.Now(), all: map[Subject]*gathering{},
		apps: newApps(signalSubjects), talking: newApps(talksBytes), tellers: newTellers(), stats: SignalStats{Dropped: noDrops()},
	}
}

// Stats returns the counts of now.
func (x *Signals) Stats() SignalStats {
	x.mu.Lock()
	defer x.mu.Unlock()
	is := x.stats
	is.Dropped = maps.Clone(is.Dropped)
	return is
}

// Run tells others what is new until ctx ends.
func (x *Signals) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-x.woken:
		case <-ctx.Done():
			return
		}
		if wait, ok := x.flushDue(time.Now()); ok {
			timer.Reset(wait)
		}
	}
}

// flushDue flushes the rooms whose time has come; it returns how long to wait for the
// next one, if there is one.
func (x *Signals) flushDue(now time.Time) (time.Duration, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for len(x.due) > 0 {
		g := x.due[0]
		if g.at.After(now) {
			return g.at.Sub(now), true
		}
		if g.telling != nil { // the end of that wakes it: listeners are told one thing after the other
			g.at = never
			heap.Fix(&x.due, 0)
			continue
		}
		x.flush(g, now)
		if next := g.next(now); next.IsZero() {
			heap.Pop(&x.due)
			delete(x.all, g.about)
			x.apps.release(g.about.App)
		} else {
			g.at = next
			heap.Fix(&x.due, 0)
		}
	}
	return 0, false
}

// gather returns the gathering of a subject, made if need be; nil if there are too many, in
// all or of the app, for what is said of it.
func (x *Signals) gather(about Subject, is class) *gathering {
	g := x.all[about]
	if g != nil {
		return g
	}
	early := is.early() && x.apps.held >= x.apps.max-x.apps.max/8
	if early || x.apps.full() || x.apps.over(about.App) {
		x.drop(is, dropFull)
		return nil
	}
	x.apps.take(about.App)
	l := roomLease
	if about.User != "" {
		l = userLease
	}
	g = &gathering{
		about: about, since: time.Now(), crowd: newCrowd(x.cfg.Self, l, x.lots),
		children: map[string]*child{}, listeners: map[ear]*listener{}, at: never,
	}
	x.all[about] = g
	heap.Push(&x.due, g)
	return g
}

// never is far from now.
var never = time.Unix(1<<40, 0)

// wake has a room flushed after a while, but not before its turn.
func (x *Signals) wake(g *gathering, after time.Duration) {
	at := time.Now().Add(after)
	if turn := g.flushed.Add(wire.AggregateEvery); at.Before(turn) {
		at = turn
	}
	if !at.Before(g.at) {
		return
	}
	g.at = at
	heap.Fix(&x.due, g.index)
	if g.index == 0 {
		select {
		case x.woken <- struct{}{}:
		default:
		}
	}
}

// drop counts what is dropped; x is locked.
func (x *Signals) drop(is class, reason string) { x.stats.Dropped[is.drop(reason)]++ }

// limited counts a signal of a session that sends too many.
func (x *Signals) limited(is class) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.drop(is, dropRate)
}

// limit is how many subjects there can be.
func (x *Signals) limit() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.apps.max
}

// typing takes the signal of a client of this node.
func (x *Signals) typing(about Subject, user string, on bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !on && x.all[about] == nil {
		return
	}
	g := x.gather(about, ofTyping)
	if g == nil {
		return
	}
	_, was := g.crowd.typers[user]
	if !g.crowd.typing(user, on, time.Now()) {
		x.drop(ofTyping, dropFull)
		return
	}
	if was != on {
		x.wake(g, 0)
	}
}

// listen tells a session of a subject from now on, unless there is no place. Of a room it
// counts as there.
func (x *Signals) listen(about Subject, to ear) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	g := x.gather(about, about.class())
	if g == nil || g.listeners[to] != nil {
		return g != nil
	}
	l := &listener{to: to, began: g.crowd.talk.told, since: g.tellings}
	g.listeners[to] = l
	g.audience.add(l)
	g.untold = true
	if about.Room != "" {
		g.crowd.join(to.session.cfg.Peer.User)
	}
	x.wake(g, 0)
	return true
}

// unlisten ends listen: when it returns, nothing more is told.
func (x *Signals) unlisten(about Subject, to ear) {
	if l := x.forget(about, to); l != nil {
		l.leave() // not with x locked: it may just be told
	}
}

func (x *Signals) forget(about Subject, to ear) *listener {
	x.mu.Lock()
	defer x.mu.Unlock()
	g := x.all[about]
	if g == nil || g.listeners[to] == nil {
		return nil
	}
	l := g.listeners[to]
	delete(g.listeners, to)
	g.audience.remove(l)
	if about.Room != "" {
		g.crowd.part(to.session.cfg.Peer.User)
	}
	x.wake(g, 0)
	return l
}

// is takes how a session says its user is, after what it said before, unless there is no
// place: there is if something was said before.
func (x *Signals) is(about Subject, now, before wire.State) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	g := x.gather(about, ofPresence)
	if g == nil {
		return false
	}
	g.crowd.present(now, before)
	x.wake(g, 0)
	return true
}

// hearChild takes what a node tells that has this one for its parent.
func (x *Signals) hearChild(s *Session, a *wire.Aggregate) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if a.Over && x.all[about(a)] == nil {
		return
	}
	g := x.gather(about(a), about(a).class())
	if g == nil {
		return
	}
	node := s.cfg.Peer.Node
	c := g.children[node]
	if c == nil || c.session != s {
		c = &child{session: s}
		g.children[node] = c
		x.wake(g, 0)
	}
	c.heard = time.Now()
	x.hear(g, node, false, a)
	if a.Over {
		delete(g.children, node)
		x.wake(g, 0)
	}
}

// HearParent takes what a node tells to which this one tells.
func (x *Signals) HearParent(node string, a *wire.Aggregate) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if g := x.all[about(a)]; g != nil && g.parent == node {
		x.hear(g, node, true, a)
	}
}

func (x *Signals) hear(g *gathering, node string, down bool, a *wire.Aggregate) {
	if !proper(a) {
		return
	}
	newer, changed, full := g.crowd.hear(node, down, a.Shares, time.Now())
	if full {
		x.drop(g.about.class(), dropFull)
	}
	for _, is := range a.Talks {
		if x.hearTalk(g, node, down, is) {
			x.drop(ofLive, dropFull)
		}
	}
	switch {
	case changed || g.crowd.talk.fresh:
		x.wake(g, 0)
	case newer:
		x.wake(g, renewalsWait)
	}
}
