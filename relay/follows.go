package relay

import (
	"context"

	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// maxSeq bounds the positions that are followed: JSON carries no greater number exactly.
const maxSeq = 1<<53 - 1

// follow makes a cursor at once, so that an Unfollow right behind finds it.
func (s *Session) follow(id uint64, f *wire.Follow) {
	where, err := s.roomID(f.App, f.Room)
	if err == nil && f.AfterSeq > maxSeq {
		err = wire.Errorf(wire.CodeBadRequest, "a room has no seq %d", f.AfterSeq)
	}
	if err == nil {
		err = s.mayAsk() // before there is a topic, whose feed costs more than a refusal
	}
	if err != nil {
		s.replyError(id, err)
		return
	}
	c, err := s.reserve(id, where, s.duty(f))
	if err != nil {
		s.asked()
		s.replyError(id, err)
		return
	}
	s.answer(id, func(ctx context.Context) (*wire.Frame, error) { return nil, s.start(ctx, c, f) })
}

// start answers a follow and begins it. On a stream that carries both, the answer comes
// before the first event; signals may come before it.
func (s *Session) start(ctx context.Context, c *cursor, f *wire.Follow) error {
	head, epoch, err := c.topic.heads.ask(ctx, c.topic)
	if err != nil {
		s.abandon(c)
		return err
	}
	life, current := c.topic.meet(head, epoch)
	if !current || f.Epoch > epoch {
		s.abandon(c)
		return wire.Errorf(wire.CodeUnavailable, "this node has yet to hear of the epoch of room %q", c.topic.id.Room).After(readAgain)
	}
	c.after, c.life = f.AfterSeq, life
	if f.FromHead {
		c.after = head
	}
	unheard := s.listen(c, f.Signals)
	s.reply(&wire.Frame{Id: c.follow, Body: &wire.Frame_Followed{Followed: &wire.Followed{
		Recovered: f.FromHead || f.Epoch == 0 || f.Epoch == epoch, HeadSeq: head, Epoch: epoch, NoSignals: unheard,
	}}})
	if s.cfg.Events == nil && s.replies.Flush(s.ctx) != nil {
		return nil // the session ends
	}
	s.enqueue(c)
	return nil
}

// duty is what the asker counts on this node for: clients for nothing.
func (s *Session) duty(f *wire.Follow) Duty {
	switch {
	case s.cfg.Peer.Node == "":
		return 0
	case f.ToReplica:
		return 2
	case f.AsRelay:
		return 1
	}
	return 0
}

// reserve takes a place among the session's follows and a hold on the topic,
// so that nothing is missed between reading the head and the first event.
func (s *Session) reserve(id uint64, where room.ID, duty Duty) (*cursor, error) {
	t, err := s.cfg.Hub.acquire(where, duty, s.cfg.Peer.Node == "")
	if err != nil {
		return nil, err
	}
	c := &cursor{session: s, follow: id, topic: t}
	s.mu.Lock()
	switch {
	case s.follows == nil:
		err = context.Cause(s.ctx)
	case len(s.follows) >= s.cfg.Limits.Follows:
		e := wire.Errorf(wire.CodeTooMany, "a session follows at most %d rooms", s.cfg.Limits.Follows)
		e.Limit = uint64(s.cfg.Limits.Follows)
		err = e
	case id == 0 || s.follows[id] != nil:
		err = wire.Errorf(wire.CodeBadRequest, "the id %d of a follow must be new and not 0", id)
	default:
		s.follows[id] = c
	}
	s.mu.Unlock()
	if err != nil {
		s.cfg.Hub.release(t)
		return nil, err
	}
	return c, nil
}

// abandon takes a reserved follow back.
func (s *Session) abandon(c *cursor) {
	s.mu.Lock()
	if s.follows[c.follow] == c { // else another one has the id by now
		delete(s.follows, c.follow)
	}
	s.mu.Unlock()
	s.drop(c)
}

func (s *Session) unfollow(id uint64) {
	s.mu.Lock()
	c := s.follows[id]
	s.mu.Unlock()
	if c != nil {
		s.abandon(c)
	}
}
