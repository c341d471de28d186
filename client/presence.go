package client

import (
	"slices"
	"sync"
	"time"

	"github.com/starling-im/starling/wire"
)

// State is how a user is.
type State int

// The states of a user. Unsaid is what is not known, or not said.
const (
	Unsaid State = iota
	Offline
	Away
	Online
)

// String returns "", "offline", "away" or "online".
func (s State) String() string {
	return [...]string{"", "offline", "away", "online"}[min(max(s, 0), Online)]
}

// Presence is what a client says of its user, and whom it watches.
type Presence struct {
	// Own is how the user is, as far as this client goes: of several clients the one that
	// is most there counts. It holds while the client has a session.
	Own State
	// Watch are the users of whom Each is told, at most wire.Watches.
	Watch []string
	// Each is called with a user's state, first what it is and then whenever it changes. It
	// must not block; it is not called by two goroutines at once.
	Each func(user string, is State)
}

// presence is that of a Client.
type presence struct {
	mu   sync.Mutex
	set  bool
	said int // how often
	is   Presence
	told sync.Mutex // held while Each runs
}

// Present replaces what was said and watched before. It is said again after a change of
// node, and while a node has no place for all who are watched. The error is a *wire.Error if
// too many are.
func (c *Client) Present(p Presence) error {
	if len(p.Watch) > wire.Watches {
		return wire.Errorf(wire.CodeTooMany, "a session watches at most %d users", wire.Watches)
	}
	p.Watch = slices.Clone(p.Watch)
	c.presence.mu.Lock()
	c.presence.set, c.presence.is = true, p
	c.presence.mu.Unlock()
	if l := c.current(); l != nil {
		l.present()
	}
	return nil
}

// present says the client's presence over a link, again until the node has taken it.
func (l *link) present() {
	p := &l.c.presence
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.set {
		return
	}
	p.said++
	said := p.said
	l.session.Call(&wire.Frame{Body: &wire.Frame_Presence{Presence: &wire.Presence{Own: wire.State(p.is.Own), Watch: p.is.Watch}}}, func(_ *wire.Frame, err error) {
		if err == nil || !wire.AsError(err).Retryable {
			return
		}
		wait := time.Duration(wire.AsError(err).RetryAfterMs) * time.Millisecond
		time.AfterFunc(max(retryMax, wait), func() {
			p.mu.Lock()
			newest := said == p.said
			p.mu.Unlock()
			if newest && l.ctx.Err() == nil {
				l.present()
			}
		})
	})
}

// states tells of those who are watched.
func (p *presence) states(all []*wire.UserState) {
	p.mu.Lock()
	is := p.is
	p.mu.Unlock()
	p.told.Lock()
	defer p.told.Unlock()
	for _, u := range all {
		if is.Each != nil && slices.Contains(is.Watch, u.User) {
			is.Each(u.User, State(u.State))
		}
	}
}
