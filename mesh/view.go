package mesh

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/starling-im/starling/geo"
)

// State is what gossip last said of a member.
type State uint8

const (
	// Unknown is a configured peer of which nothing was heard yet.
	Unknown State = iota
	// Alive answers, as far as anyone knows.
	Alive
	// Draining is alive, and about to leave: it serves whom it has, and wants nobody new.
	Draining
	// Left said goodbye.
	Left
	// Failed stopped answering; it may be dead, or only cut off.
	Failed
)

func (s State) String() string {
	return [...]string{"unknown", "alive", "draining", "left", "failed"}[s]
}

// Here reports whether a member in this state answers, as far as anyone knows.
func (s State) Here() bool { return s == Alive || s == Draining }

// Member is a node of the mesh, as seen from one node.
type Member struct {
	ID, Region string
	Addr       string // host:port
	State      State
	Version    string // of its program
	// RTT is smoothed, MinRTT the least seen and Jitter the mean deviation, all of the
	// link; 0 = unknown.
	RTT, MinRTT, Jitter time.Duration
	Coordinate          geo.Coordinate // estimates round trips to others
	Linked              bool           // there is a link to it
	Keys                uint64         // the version of the keys of gossip that it has
	Outbound            bool           // it cannot be dialled from outside
	Parents             []string       // over whom it is reached, if it is Outbound
	Path                string         // how the link goes: PathUDP, PathTCP or "through" another node
}

// View is the mesh at one moment. It never changes.
type View struct {
	Members []Member // by id, this node included
	next    chan struct{}
}

// Member returns the member with an id.
func (v *View) Member(id string) (Member, bool) {
	i, ok := slices.BinarySearchFunc(v.Members, id, func(m Member, id string) int { return cmp.Compare(m.ID, id) })
	if !ok {
		return Member{}, false
	}
	return v.Members[i], true
}

// Next is closed when there is a newer view.
func (v *View) Next() <-chan struct{} { return v.next }

// entry is all that is known of a member.
type entry struct {
	Member
	static   bool   // configured, so never forgotten
	instance uint64 // of the process that last spoke for it; 0 = none yet
	goodbye  uint64 // the instance that said goodbye over its link
	said     meta
	doubted  bool // said is of a node that the cluster does not know yet
	since    time.Time
}

// table holds the members and their links, and publishes views of them.
type table struct {
	self string
	mu   sync.Mutex
	all  map[string]*entry
	link map[string]*link
	view atomic.Pointer[View]
}

func newTable(self Member, peers []Member) *table {
	t := &table{self: self.ID, all: make(map[string]*entry), link: make(map[string]*link)}
	for _, p := range peers {
		t.all[p.ID] = &entry{Member: Member{ID: p.ID, Region: p.Region, Addr: p.Addr}, static: true}
	}
	self.State = Alive
	t.all[self.ID] = &entry{Member: self, static: true}
	t.publish()
	return t
}

// publish replaces the view. The caller holds mu, or is alone.
func (t *table) publish() {
	v := &View{Members: make([]Member, 0, len(t.all)), next: make(chan struct{})}
	for id, e := range t.all {
		m := e.Member
		if l := t.link[id]; l != nil {
			s := l.conn.ConnectionStats()
			m.Path = l.path()
			m.Linked, m.RTT, m.MinRTT, m.Jitter = true, s.SmoothedRTT, s.MinRTT, s.MeanDeviation
		}
		v.Members = append(v.Members, m)
	}
	slices.SortFunc(v.Members, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	if old := t.view.Swap(v); old != nil {
		close(old.next)
	}
}

// alive takes what a node says of itself through gossip. What is not believed yet
// is shown when it is.
func (t *table) alive(id string, m meta, believed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if id == t.self {
		return
	}
	e := t.all[id]
	if e == nil {
		e = &entry{}
		t.all[id] = e
	}
	if m.instance < e.instance && e.State.Here() {
		return // of two processes with one id, the later one
	}
	state := m.state()
	if m.instance == e.goodbye {
		state = Left // what is still said of it is older than its goodbye
	}
	if !believed {
		state = Unknown
	}
	e.Member = Member{ID: id, Region: m.region, Addr: m.addr, Version: m.version, State: state, Keys: m.keys, Outbound: m.flags&flagOutbound != 0, Parents: m.parents, Coordinate: e.Coordinate}
	e.instance, e.since, e.said, e.doubted = m.instance, time.Now(), m, !believed
	t.publish()
}

// setSelf shows this node in another state.
func (t *table) setSelf(s State) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all[t.self].State = s
	t.publish()
}

// review looks again at whom the cluster knows: those that it does now are shown, and
// those that it does not any more are forgotten.
func (t *table) review(check func(id string, said meta) error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, e := range t.all {
		if id == t.self || e.said.instance == 0 {
			continue
		}
		err := check(id, e.said)
		switch {
		case err == nil && e.doubted:
			e.State, e.doubted = e.said.state(), false
		case err != nil && !e.doubted:
			e.State, e.doubted, e.static = Unknown, true, false
		}
	}
	t.publish()
}

// links returns all links.
func (t *table) links() (all []*link) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range t.link {
		all = append(all, l)
	}
	return all
}

// gone takes that a node does not answer any more.
func (t *table) gone(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.all[id]
	if e != nil && e.doubted && id != t.self {
		delete(t.all, id)
		t.publish()
		return
	}
	if e == nil || id == t.self || !e.State.Here() {
		return
	}
	e.State, e.since = Failed, time.Now()
	t.forget()
	t.publish()
}

// forget drops the member that is gone for longest if there are too many.
func (t *table) forget() {
	var oldest *entry
	count := 0
	for _, e := range t.all {
		if e.static || e.State.Here() {
			continue
		}
		count++
		if oldest == nil || e.since.Before(oldest.since) {
			oldest = e
		}
	}
	if count > membersGone {
		delete(t.all, oldest.ID)
	}
}

// linkUp makes l the link to its node, and returns the one that it replaces.
func (t *table) linkUp(l *link) *link {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.link[l.node]
	t.link[l.node] = l
	if t.all[l.node] == nil {
		t.all[l.node] = &entry{Member: Member{ID: l.node}, since: time.Now()}
		t.forget()
	}
	t.publish()
	return old
}

// linkDown takes that l ended, with a goodbye of the node or without.
func (t *table) linkDown(l *link, goodbye bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.link[l.node] != l {
		return // replaced
	}
	delete(t.link, l.node)
	if e := t.all[l.node]; e != nil && goodbye {
		e.goodbye = e.instance
		if e.State.Here() || e.State == Failed {
			e.State, e.since = Left, time.Now()
			t.forget()
		}
	}
	t.publish()
}

// wanted returns a member that a link should be kept to.
func (t *table) wanted(id string) (Member, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.all[id]
	if e == nil || e.doubted || e.Addr == "" || e.State == Left && !e.static {
		return Member{}, false
	}
	return e.Member, true
}

// to returns the link to a node, nil if there is none.
func (t *table) to(id string) *link {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.link[id]
}

// measure publishes a new view if a round-trip time, or the estimate of one, has
// changed by a tenth and by at least a millisecond.
func (t *table) measure() {
	t.mu.Lock()
	defer t.mu.Unlock()
	view := t.view.Load()
	self, _ := view.Member(t.self)
	for _, m := range view.Members {
		l := t.link[m.ID]
		if l != nil && changed(l.rtt(), m.RTT) || t.moved(m, self) {
			t.publish()
			return
		}
	}
}
