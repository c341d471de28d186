package relay

import (
	"bytes"
	"time"

	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// signal takes what a client says that nobody keeps. Too many are dropped without a
// word: of who types the next one says the same, and what is said live may be lost.
func (s *Session) signal(id uint64, b *wire.Signal) {
	is := ofTyping
	if b.Live != "" {
		is = ofLive
	}
	if !s.signals(is) {
		return
	}
	user, err := s.speaker(b.ActAs)
	if err == nil {
		err = named(user)
	}
	if err != nil {
		s.replyError(id, err)
		return
	}
	where, err := s.roomID("", b.Room)
	if err == nil {
		err = wire.CheckLine(b.Live)
	}
	if err != nil {
		s.replyError(id, err)
		return
	}
	about := Subject{App: where.App, Room: where.Room}
	s.cfg.Signals.typing(about, user, b.Typing)
	if b.Live != "" {
		s.cfg.Signals.live(about, user, b.Live)
	}
}

// signals reports whether the session may signal now.
func (s *Session) signals(is class) bool {
	if s.signalling == nil {
		s.signalling = s.cfg.Limits.signalling()
	}
	switch {
	case s.cfg.Signals == nil:
		return false
	case s.signalling.AllowN(time.Now(), 1):
		return true
	}
	s.cfg.Signals.limited(is)
	return false
}

// named refuses what no user is called; users are named as rooms are.
func named(user string) error {
	if err := (room.ID{App: user, Room: user}).Validate(); err != nil {
		return refused(err)
	}
	return nil
}

// presence is what a session has said of its user and whom it watches; for the reader
// alone.
type presence struct {
	own   wire.State
	watch map[string]bool
}

// present takes how the session's user is, and whom it watches. What finds no place is
// not taken, and to be said again.
func (s *Session) present(id uint64, b *wire.Presence) {
	if err := s.watchable(b); err != nil {
		s.replyError(id, err)
		return
	}
	app, x := s.cfg.Peer.App, s.cfg.Signals
	full := false
	if b.Own != s.presence.own {
		if full = !x.is(Subject{App: app, User: s.cfg.Peer.User}, b.Own, s.presence.own); !full {
			s.presence.own = b.Own
		}
	}
	before := s.presence.watch
	s.presence.watch = make(map[string]bool, len(b.Watch))
	for _, user := range b.Watch {
		if x.listen(Subject{App: app, User: user}, ear{session: s}) {
			s.presence.watch[user] = true
		} else {
			full = true
		}
	}
	for user := range before {
		if !s.presence.watch[user] {
			x.unlisten(Subject{App: app, User: user}, ear{session: s})
		}
	}
	if full {
		s.replyError(id, noPlace(x.limit()))
		return
	}
	s.reply(&wire.Frame{Id: id, Body: &wire.Frame_Answer{Answer: &wire.Answer{}}})
}

// noPlace says that there will be place again, since others leave.
func noPlace(limit int) error {
	e := wire.Errorf(wire.CodeTooMany, "this node has no place for all of these users: it has places for %d rooms and users with signals, of which the last are for rooms, and an app its share", limit).After(placeAgain)
	e.Limit, e.Retryable = uint64(limit), true
	return e
}

// placeAgain is after how long it is worth asking again for a place.
const placeAgain = time.Second

func (s *Session) watchable(b *wire.Presence) error {
	if s.cfg.Peer.Node != "" {
		return wire.Errorf(wire.CodeForbidden, "nodes are not present")
	}
	if s.cfg.Signals == nil {
		return wire.Errorf(wire.CodeUnsupported, "this node has no signals")
	}
	if !s.signals(ofPresence) {
		return wire.Errorf(wire.CodeRateLimited, "more than %v signals per second", s.signalling.Limit()).After(time.Second)
	}
	if len(b.Watch) > wire.Watches {
		e := wire.Errorf(wire.CodeTooMany, "a session watches at most %d users", wire.Watches)
		e.Limit = wire.Watches
		return e
	}
	for _, user := range b.Watch {
		if err := named(user); err != nil {
			return err
		}
	}
	return nil
}

// depart ends what the session has said of its user, and its watching.
func (s *Session) depart() {
	app := s.cfg.Peer.App
	if s.presence.own != 0 {
		s.cfg.Signals.is(Subject{App: app, User: s.cfg.Peer.User}, 0, s.presence.own) // has its place
	}
	for user := range s.presence.watch {
		s.cfg.Signals.unlisten(Subject{App: app, User: user}, ear{session: s})
	}
}

// aggregate takes what another node tells.
func (s *Session) aggregate(a *wire.Aggregate) error {
	if s.cfg.Peer.Node == "" {
		return wire.Errorf(wire.CodeProtocol, "aggregates are for links between nodes")
	}
	var err error
	if a.User == "" {
		_, err = s.roomID(a.App, a.Room)
	} else if err = named(a.User); a.Room != "" {
		err = wire.Errorf(wire.CodeBadRequest, "an aggregate is of a room or of a user")
	}
	if err == nil && s.cfg.Signals != nil {
		s.cfg.Signals.hearChild(s, a)
	}
	return err
}

// listen tells a client's follow of signals, if wanted. It reports whether there was no
// place for one that wants them.
func (s *Session) listen(c *cursor, wanted bool) (full bool) {
	if !wanted || s.cfg.Peer.Node != "" || s.cfg.Signals == nil {
		return false
	}
	s.mu.Lock()
	c.signals = !c.ended
	ended := c.ended
	s.mu.Unlock()
	if ended {
		return false
	}
	// Not with s locked: a worker of the pump would wait for all who say signals.
	full = !s.cfg.Signals.listen(c.subject(), ear{s, c.follow})
	s.mu.Lock()
	ended = c.ended
	s.mu.Unlock()
	if ended { // perhaps before there was anything to end
		s.unlisten(c)
	}
	return full
}

// unlisten ends that.
func (s *Session) unlisten(c *cursor) { s.cfg.Signals.unlisten(c.subject(), ear{s, c.follow}) }

func (c *cursor) subject() Subject { return Subject{App: c.topic.id.App, Room: c.topic.id.Room} }

// datagramBytes is the largest frame that is sent as a datagram: it fits any path.
const datagramBytes = 1100

// datagram sends a frame that may be lost, if the peer takes such and the last one has
// gone; on the stream unless more than below bytes wait there if it takes none after all. Who
// types is said again before long, and what is said live may be lost; the counts
// are not said again, and go on the stream.
func (s *Session) datagram(frame []byte, below int) bool {
	if s.cfg.Datagram == nil || len(frame) > datagramBytes || !s.datagrams.CompareAndSwap(false, true) {
		return false
	}
	frame = bytes.Clone(frame)
	go func() {
		defer s.datagrams.Store(false)
		if s.cfg.Datagram(frame) != nil {
			s.offer(frame, below)
		}
	}()
	return true
}

// offer sends a frame unless more than below bytes wait for the peer.
func (s *Session) offer(frame []byte, below int) bool {
	return s.replies.Len() <= below && s.replies.Push(frame) == nil
}
