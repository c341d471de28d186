package client

import (
	"time"

	"github.com/starling-im/starling/wire"
)

// Line is what a user said live.
type Line struct {
	User, Content string
	Time          time.Time // by the clock of the user's node
}

// Live is what was said live in a room since it was heard last.
type Live struct {
	// Lines are those that are told, that of this client too. Of one node each comes once at
	// most, those of one user in their order; who changes nodes may hear some again.
	Lines []Line
	// LeftOut is how many more were said: only so many are told, and some get lost.
	LeftOut int
}

// WithLive calls each with what is said live in the room, at most once in 250 ms. As for
// WithSignals, each must not block, and is not called by two goroutines at once.
func WithLive(each func(Live)) FollowOption {
	return func(f *Follow) { f.signals.live = each }
}

// hearLive takes what a node says of what was said live.
func (sub *subscription) hearLive(is *wire.Signals) {
	// What is missing of the count was left out, or was in what got lost.
	left := int(is.Said-min(sub.said, is.Said)) - len(is.Live)
	sub.said = max(sub.said, is.Said)
	if sub.f.signals.live == nil || len(is.Live) == 0 && left <= 0 {
		return
	}
	now := Live{LeftOut: max(0, left), Lines: make([]Line, len(is.Live))}
	for i, l := range is.Live {
		now.Lines[i] = Line{User: l.User, Content: l.Content, Time: time.UnixMilli(l.TsMs)}
	}
	sub.f.signals.live(now)
}

// SayLive says a text of at most 512 bytes to those who follow the room with WithLive just
// now; nobody keeps it. That there is no error does not mean that anybody hears it: it may be
// lost, and left out where many say something. Who says something no longer types. The error
// is a *wire.Error: bad_request, too_large, or unavailable if it could not be sent now.
func (c *Client) SayLive(room, text string) error {
	c.typing.mu.Lock()
	delete(c.typing.said, room)
	c.typing.mu.Unlock()
	return c.sayLive(&wire.Signal{Room: room, Live: text})
}

// SayLiveAs is SayLive for another user, whose token's client may speak for others.
func (c *Client) SayLiveAs(user, room, text string) error {
	return c.sayLive(&wire.Signal{Room: room, Live: text, ActAs: user})
}

func (c *Client) sayLive(is *wire.Signal) error {
	switch {
	case is.Live == "":
		return wire.Errorf(wire.CodeBadRequest, "nothing is said")
	case wire.CheckLine(is.Live) != nil:
		return wire.CheckLine(is.Live)
	case !c.signal(is):
		return wire.Errorf(wire.CodeUnavailable, "no node takes what is said live now")
	}
	return nil
}
