package relay

import (
	"time"

	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// signal takes what a client says that nobody keeps. Too many are dropped without a
// word: the next one says the same.
func (s *Session) signal(id uint64, b *wire.Signal) {
	if s.cfg.Signals == nil {
		return
	}
	if !s.signalling.AllowN(time.Now(), 1) {
		s.cfg.Signals.limited()
		return
	}
	user, err := s.speaker(b.ActAs)
	if err != nil {
		s.replyError(id, err)
		return
	}
	where, err := s.roomID("", b.Room)
	if err == nil {
		err = named(user)
	}
	if err != nil {
		s.replyError(id, err)
		return
	}
	s.cfg.Signals.typing(where, user, b.Typing)
}

// named refuses what no user is called; users are named as rooms are.
func named(user string) error {
	if err := (room.ID{App: user, Room: user}).Validate(); err != nil {
		return refused(err)
	}
	return nil
}

// aggregate takes what a node tells that follows rooms here.
func (s *Session) aggregate(a *wire.Aggregate) error {
	if s.cfg.Peer.Node == "" {
		return wire.Errorf(wire.CodeProtocol, "aggregates are for links between nodes")
	}
	where, err := s.roomID(a.App, a.Room)
	if err == nil && s.cfg.Signals != nil {
		s.cfg.Signals.hearChild(s, where, a)
	}
	return err
}

// listen tells a client's follow of signals, if wanted.
func (s *Session) listen(c *cursor, wanted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if wanted && !c.ended && s.cfg.Peer.Node == "" && s.cfg.Signals != nil {
		c.signals = true
		s.cfg.Signals.listen(c)
	}
}

// unlisten ends that; s is locked.
func (s *Session) unlisten(c *cursor) {
	if c.signals {
		c.signals = false
		s.cfg.Signals.unlisten(c)
	}
}
