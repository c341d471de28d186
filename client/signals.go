package client

import (
	"bytes"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/starling-im/starling/wire"
)

// Signals is what goes on in a room besides its events, as last heard.
type Signals struct {
	// Typing are some of the users who type, without that of this client; Others is how
	// many more do.
	Typing []string
	Others int
	// Sessions is how many follow the room with signals in the whole mesh, and Users
	// how many users these are; one who is on two nodes counts twice.
	Sessions, Users int
	// Unheard: the node has no place for the signals of this follow. Nothing of them will
	// be heard, nor what is said live, before there is another node.
	Unheard bool
}

// FollowOption changes what a Follow gets.
type FollowOption func(*Follow)

// WithSignals calls each with the room's Signals whenever they change, at most once in
// 250 ms. each must not block; it is not called by two goroutines
// at once, and may be called once more after Close.
func WithSignals(each func(Signals)) FollowOption {
	return func(f *Follow) { f.signals.each = each }
}

// typingUnheard is after how long without a word nobody is held to type.
const typingUnheard = 10 * time.Second

// signals are those of a Follow.
type signals struct {
	each  func(Signals) // nil = not wanted
	live  func(Live)    // nil = not wanted
	mu    sync.Mutex    // held while each or live runs
	last  Signals
	unsay *time.Timer // forgets who types
}

func (s *signals) wanted() bool { return s.each != nil || s.live != nil }

// hear takes what a node says; own is the user of this client.
func (sub *subscription) hear(is *wire.Signals, own string) {
	f := sub.f
	s := &f.signals
	s.mu.Lock()
	defer s.mu.Unlock()
	if is.Edition < sub.edition {
		return
	}
	sub.edition = is.Edition
	sub.hearLive(is)
	typing := slices.DeleteFunc(is.Typing, func(user string) bool { return user == own })
	s.tell(Signals{Typing: typing, Others: int(is.Others), Sessions: int(is.Sessions), Users: int(is.Users)})
	if s.unsay != nil {
		s.unsay.Stop()
		s.unsay = nil
	}
	if len(typing) > 0 || is.Others > 0 {
		s.unsay = time.AfterFunc(typingUnheard, f.forgetTyping)
	}
}

// forgetTyping is called when nothing was heard for a while.
func (f *Follow) forgetTyping() {
	f.mu.Lock()
	over := f.err != nil
	f.mu.Unlock()
	if over {
		return
	}
	s := &f.signals
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.last
	now.Typing, now.Others = nil, 0
	s.tell(now)
}

// unheard is called when the node has no place for the signals.
func (s *signals) unheard() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tell(Signals{Unheard: true})
}

func (s *signals) tell(now Signals) {
	same := slices.Equal(now.Typing, s.last.Typing) && now.Others == s.last.Others && now.Sessions == s.last.Sessions && now.Users == s.last.Users && now.Unheard == s.last.Unheard
	s.last = now
	if !same && s.each != nil {
		s.each(now)
	}
}

// signals hands Signals to their follow.
func (l *link) signals(f *wire.Frame) {
	is := f.GetSignals()
	if is == nil {
		return
	}
	l.c.presence.states(is.States)
	if s := l.sub(is.Follow); s != nil && s.f.signals.wanted() {
		s.hear(is, l.welcome.GetUser())
	}
}

// hearDatagrams begins to read datagrams, once; l is locked.
func (l *link) hearDatagrams() {
	next := l.datagrams
	if next == nil {
		return
	}
	l.datagrams = nil
	l.c.spawn(func() {
		for {
			b, err := next(l.ctx)
			if err != nil {
				return
			}
			f, err := wire.NewReader(bytes.NewReader(b), wire.ClientFrame).Frame()
			if err == nil {
				l.signals(f)
			}
		}
	})
}

// typing is what the client has said of its user's typing.
type typing struct {
	mu   sync.Mutex
	said map[string]time.Time // by room: when
}

// typingRooms bounds the rooms in which it is remembered that the user types.
const typingRooms = 256

// Typing says that the user types in a room just now. Call it at each keystroke: what
// was said lately is not said again. It may be lost, and is forgotten after 6 s.
func (c *Client) Typing(room string) {
	now := time.Now()
	c.typing.mu.Lock()
	maps.DeleteFunc(c.typing.said, func(_ string, at time.Time) bool { return now.Sub(at) >= wire.TypingAgain })
	_, lately := c.typing.said[room]
	if !lately && len(c.typing.said) < typingRooms {
		if c.typing.said == nil {
			c.typing.said = map[string]time.Time{}
		}
		c.typing.said[room] = now
	}
	c.typing.mu.Unlock()
	if !lately {
		c.signal(&wire.Signal{Room: room, Typing: true})
	}
}

// StopTyping says that the user no longer types in a room.
func (c *Client) StopTyping(room string) {
	c.typing.mu.Lock()
	delete(c.typing.said, room)
	c.typing.mu.Unlock()
	c.signal(&wire.Signal{Room: room})
}

// signal sends a Signal, if there is a session that has not much else to send.
func (c *Client) signal(is *wire.Signal) bool {
	l := c.current()
	return l != nil && l.session.Offer(&wire.Frame{Body: &wire.Frame_Signal{Signal: is}}, signalBelow)
}

// signalBelow is the most bytes that may wait before a signal is dropped.
const signalBelow = 16 << 10

// Offer sends a frame that has no answer, unless more than below bytes wait to be
// written. It reports whether it did, and never blocks.
func (s *Session) Offer(f *wire.Frame, below int) bool {
	if s.queue.Len() > below || s.register(f, nil) != nil {
		return false
	}
	return s.push(f) == nil
}

// TypingAs is Typing for another user, whose token's client may speak for others. It is
// sent each time.
func (c *Client) TypingAs(user, room string) {
	c.signal(&wire.Signal{Room: room, Typing: true, ActAs: user})
}
