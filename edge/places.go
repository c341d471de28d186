package edge

import (
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
	users     map[string]int       // by app and user
	strangers map[netip.Prefix]int // those not yet authenticated, by address
}

func (p *places) shutDown() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shut = true
}

// enter takes a place for a connection whose client has not said who it is;
// known, to be called once, gives back what it holds of its address, and leave
// all else.
func (d *Door) enter(remote net.Addr) (known, leave func(), err error) {
	from := network(remote)
	p := &d.places
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.open >= d.cfg.Connections:
		return nil, nil, wire.Errorf(wire.CodeTooMany, "the node serves %d connections already", p.open)
	case p.strangers[from] >= d.cfg.PerAddress:
		return nil, nil, wire.Errorf(wire.CodeTooMany, "%d connections from your address have not said who they are", p.strangers[from])
	}
	p.open++
	p.strangers[from]++
	known = sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		less(p.strangers, from)
	})
	return known, func() {
		known()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.open--
	}, nil
}

// enterUser takes one of a user's places, which leave gives back.
func (d *Door) enterUser(id Identity) (leave func(), err error) {
	if id.ActAs {
		return func() {}, nil
	}
	key := id.App + "\x00" + id.User
	p := &d.places
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.users[key] >= d.cfg.PerUser {
		return nil, wire.Errorf(wire.CodeTooMany, "user %q has %d connections already", id.User, p.users[key])
	}
	p.users[key]++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		less(p.users, key)
	}, nil
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
