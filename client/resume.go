package client

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/starling-im/starling/wire"
)

// noToken is the failure of Config.Token.
type noToken struct{ err error }

func (e *noToken) Error() string { return fmt.Sprintf("client: no token: %v", e.err) }
func (e *noToken) Unwrap() error { return e.err }

// enter connects to a node and says who the client is: by what the last session
// gave, or by a new token if there is none, or the node does not take it. A
// backend that is down then keeps out nobody who was in.
func (c *Client) enter(addr string, within time.Duration) (*link, error) {
	if resume := c.resumable(); resume != "" {
		l, err := c.open(addr, within, &wire.Hello{Resume: resume})
		if code := said(err).GetCode(); code != wire.CodeUnauthenticated && code != wire.CodeTokenExpired {
			return l, err
		}
		c.cfg.Log.Info("not resumed", "addr", addr, "why", err)
	}
	token, err := c.cfg.Token(c.ctx)
	if err != nil {
		return nil, &noToken{err}
	}
	return c.open(addr, within, &wire.Hello{Token: token})
}

func (c *Client) resumable() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.resume
}

// addrs returns the nodes to try: those that the last one named, once. The one that
// went mute comes last, and is named a second time if it is to be tried only if
// nobody else answers.
func (c *Client) addrs() (addrs []string, mute string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	addrs = slices.Concat(c.preferred, c.cfg.Addrs)
	c.preferred = nil
	if c.avoid == "" || !slices.Contains(addrs, c.avoid) || time.Now().After(c.avoided) {
		return addrs, ""
	}
	addrs = slices.DeleteFunc(addrs, func(a string) bool { return a == c.avoid })
	return append(addrs, c.avoid), c.avoid
}

// answers reports whether a node that did not let the client in is there.
func answers(err error) bool { return stands(err) || busy(err) }

// busy reports whether a node refused to talk at all.
func busy(err error) bool {
	var refused *quic.TransportError
	return errors.As(err, &refused) && refused.Remote && refused.ErrorCode == quic.ConnectionRefused
}

// full reports whether a node had no place for the client, in its own words or, where it
// did not wait for the client's, by its close code.
func full(err error) bool {
	if e := said(err); e != nil {
		return e.Code == wire.CodeTooMany
	}
	code, ok := closedWith(err)
	return ok && code == wire.CloseOverloaded
}

// stands reports whether a node whose link ended so is there, and may be asked
// again at once. One that was started again answers with a reset.
func stands(err error) bool {
	var reset *quic.StatelessResetError
	if said(err) != nil || errors.As(err, &reset) {
		return true
	}
	_, ok := closedWith(err)
	return ok
}
