package relay

import (
	"context"

	"github.com/starling-im/starling/wire"
)

// maxSeq bounds the positions that are followed: JSON carries no greater number exactly.
const maxSeq = 1<<53 - 1

// follow makes a cursor at once, so that an Unfollow right behind finds it. The rest is not
// for the goroutine that reads: what is called there deepens a stack that is kept.
func (s *Session) follow(id uint64, f *wire.Follow) {
	c, err := s.reserve(id)
	if err == nil {
		if err = s.mayAsk(); err != nil {
			s.abandon(c)
		}
	}
	if err != nil {
		s.replyError(id, err)
		return
	}
	s.answer(id, func(ctx context.Context) (*wire.Frame, error) { return nil, s.start(ctx, c, f) })
}

// start answers a follow and begins it. On a stream that carries both, the answer comes
// before the first event; signals may come before it.
func (s *Session) start(ctx context.Context, c *cursor, f *wire.Follow) error {
	head, epoch, err := s.meet(ctx, c, f)
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

// reserve takes a place among the session's follows.
func (s *Session) reserve(id uint64) (*cursor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.follows == nil:
		return nil, context.Cause(s.ctx)
	case len(s.follows) >= s.cfg.Limits.Follows:
		e := wire.Errorf(wire.CodeTooMany, "a session follows at most %d rooms", s.cfg.Limits.Follows)
		e.Limit = uint64(s.cfg.Limits.Follows)
		return nil, e
	case id == 0 || s.follows[id] != nil:
		return nil, wire.Errorf(wire.CodeBadRequest, "the id %d of a follow must be new and not 0", id)
	}
	c := &cursor{session: s, follow: id}
	s.follows[id] = c
	return c, nil
}

// meet gives a cursor a hold on its topic before the head is read, so that nothing is missed
// between that and the first event.
func (s *Session) meet(ctx context.Context, c *cursor, f *wire.Follow) (head, epoch uint64, err error) {
	where, err := s.roomID(f.App, f.Room)
	if err == nil && f.AfterSeq > maxSeq {
		err = wire.Errorf(wire.CodeBadRequest, "a room has no seq %d", f.AfterSeq)
	}
	if err != nil {
		return 0, 0, err
	}
	t, err := s.cfg.Hub.acquire(where, s.duty(f), s.cfg.Peer.Node == "")
	if err != nil {
		return 0, 0, err
	}
	s.mu.Lock()
	ended := c.ended
	if !ended {
		c.topic = t
	}
	s.mu.Unlock()
	if ended {
		s.cfg.Hub.release(t)
		return 0, 0, wire.Errorf(wire.CodeBadRequest, "the follow %d was ended before it began", c.follow)
	}
	return t.heads.ask(ctx, t)
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
