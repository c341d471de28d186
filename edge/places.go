package edge

import (
	"context"
	"net"
	"net/netip"
	"sync"

	"github.com/starling-im/starling/wire"
)

// places counts the connections of a door and gives out what is left.
type places struct {
	mu        sync.Mutex
	open      int
	shut      bool                 // nobody comes in over WebSocket any more
	strangers map[netip.Prefix]int // those not yet authenticated, by address
	sessions  map[session]*place   // of the others
	users     map[user]int         // and how many each has
	apps      map[string]int
}

// A user is one of an app.
type user struct{ app, name string }

// A session goes on over other connections, when it is resumed; only who was given its id with
// the very same rights has it.
type session struct {
	Identity
	id string
}

// A place is what one connection takes.
type place struct {
	door     *Door
	carrier  transport
	from     netip.Prefix
	stranger bool    // it has not been said whose it is
	session  session // zero: a stranger's, or another connection has it by now
	end      context.CancelCauseFunc
}

// appPart bounds the connections of an app: it may have so many times as many as are free. An
// app alone may have three quarters of a node's, and of what is left the next ones may have
// as much of each, so that one that comes finds some however many the others want.
const appPart = 3

// errResumed ends a connection whose session goes on over another.
var errResumed = wire.Errorf(wire.CodeConflict, "the session was resumed over another connection")

func (p *places) shutDown() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shut = true
}

// enter takes a place for a connection whose client has not said who it is. The place is to
// be given back; end ends the connection before.
func (d *Door) enter(remote net.Addr, carrier transport, end context.CancelCauseFunc) (*place, error) {
	from := network(remote)
	p := &d.places
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.open >= d.cfg.Connections:
		return nil, tooMany(d.cfg.Connections, "the node serves %d connections already", p.open)
	case p.strangers[from] >= d.cfg.PerAddress:
		return nil, tooMany(d.cfg.PerAddress, "%d connections from your address have not said who they are", p.strangers[from])
	}
	p.open++
	p.strangers[from]++
	d.stats.open[carrier].Add(1)
	return &place{door: d, carrier: carrier, from: from, stranger: true, end: end}, nil
}

// settle makes a stranger's place that of a session. If a connection here has that session
// already, this one takes its place, and it ends: a client whose path is bad must not be kept
// out by what it has lost.
func (pl *place) settle(s session) error {
	p := &pl.door.places
	p.mu.Lock()
	defer p.mu.Unlock()
	if before := p.sessions[s]; before != nil {
		before.session = session{}
		before.end(errResumed)
	} else if err := pl.door.settled(s.Identity); err != nil {
		return err
	}
	p.sessions[s], pl.session = pl, s
	pl.stranger = false
	less(p.strangers, pl.from)
	return nil
}

// settled counts one more of a user and of its app, if they may have that; the places are
// locked.
func (d *Door) settled(id Identity) error {
	p, u := &d.places, user{id.App, id.User}
	if most := appPart * (d.cfg.Connections - len(p.sessions)); p.apps[id.App] >= most {
		return tooMany(p.apps[id.App], "app %q has %d connections already, and leaves the node's others to other apps", id.App, p.apps[id.App])
	}
	if !id.ActAs {
		if p.users[u] >= d.cfg.PerUser {
			return tooMany(d.cfg.PerUser, "user %q has %d connections already", id.User, p.users[u])
		}
		p.users[u]++
	}
	p.apps[id.App]++
	return nil
}

// leave gives all back.
func (pl *place) leave() {
	pl.end(nil)
	pl.door.stats.open[pl.carrier].Add(-1)
	p := &pl.door.places
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open--
	if pl.stranger {
		less(p.strangers, pl.from)
	}
	if s := pl.session; s != (session{}) {
		delete(p.sessions, s)
		less(p.apps, s.App)
		if !s.ActAs {
			less(p.users, user{s.App, s.User})
		}
	}
}

// tooMany is the refusal of one beyond a limit.
func tooMany(limit int, format string, args ...any) error {
	e := wire.Errorf(wire.CodeTooMany, format, args...)
	e.Limit = uint64(limit)
	return e
}

func less[K comparable](counts map[K]int, key K) {
	if counts[key]--; counts[key] == 0 {
		delete(counts, key)
	}
}

// network is what counts as one address: in IPv6 a /64, since whoever has one
// address there has them all.
func network(a net.Addr) netip.Prefix {
	u, ok := a.(interface{ AddrPort() netip.AddrPort })
	if !ok {
		return netip.Prefix{}
	}
	ip := u.AddrPort().Addr().Unmap()
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.WithZone("").Prefix(bits) // fails for an invalid address only
	return p
}
