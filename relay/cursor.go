package relay

// A cursor is one follow of a session: a position in a topic. It is in one place at a
// time, and who holds it there may change it: its topic, while it waits for events; a
// job of the pump; its session's ready or behind; a timer after a failure.
type cursor struct {
	session *Session
	follow  uint64 // the frame id that named the follow
	topic   *topic
	after   uint64
	life    uint64 // of the topic, when the follow began
	fetched *block // of history, with the next event
	ended   bool   // unfollowed; guarded by the session's lock
	signals bool   // wants signals; likewise
}

// advance returns the events to send now, at most chunkBytes of frame or one. More says
// that the cursor is to be asked again; else it waits, or others have it.
func (c *cursor) advance() (got chunk, more bool, err error) {
	if b := c.fetched; b != nil {
		if err := c.topic.outlived(c.life); err != nil {
			return chunk{}, false, err
		}
		got = b.after(c.after, chunkBytes)
		c.after += uint64(got.events)
		if !b.has(c.after) {
			c.fetched = nil
			c.session.fetchNext()
		}
		return got, true, nil
	}
	got, waits, older, err := c.topic.read(c, chunkBytes)
	if older {
		c.session.fetch(c)
	}
	return got, !waits && !older, err
}

// fetch has a cursor wait for history. A session reads that of one room at a time, so
// that it holds one block at most of what others do not share.
func (s *Session) fetch(c *cursor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behind = append(s.behind, c)
	if !s.fetching && s.follows != nil {
		s.fetching = true
		s.work.Go(s.fetchOne)
	}
}

// fetchNext is called when what was fetched has been sent.
func (s *Session) fetchNext() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.startFetch()
}

// startFetch begins to read history for the next cursor that waits for it; s is locked.
func (s *Session) startFetch() {
	if s.fetching = len(s.behind) > 0 && s.follows != nil; s.fetching {
		s.work.Go(s.fetchOne)
	}
}

// unfetch drops what was fetched for a cursor that is not sent any more: it is the next
// one's turn. s is locked.
func (s *Session) unfetch(c *cursor) {
	if c.fetched != nil {
		c.fetched = nil
		s.startFetch()
	}
}

// fetchOne reads history for the first cursor that waits for it.
func (s *Session) fetchOne() {
	c := s.lagging()
	if c == nil {
		return
	}
	b, err := c.topic.older.get(s.ctx, c.topic, c.after, c.life)
	switch {
	case err != nil:
		s.fetchNext()
		s.fail(c, err)
	case b == nil:
		s.fetchNext()
		if !c.topic.await(c) {
			s.enqueue(c)
		} else if s.ended(c) {
			c.topic.forget(c)
		}
	default:
		c.fetched = b
		s.enqueue(c)
	}
}

// ended reports whether a cursor was unfollowed.
func (s *Session) ended(c *cursor) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return c.ended
}

// lagging takes the first cursor of those that wait for history, nil if there is none.
func (s *Session) lagging() *cursor {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.behind) > 0 && s.follows != nil {
		c := s.behind[0]
		s.behind = s.behind[1:]
		if !c.ended {
			return c
		}
	}
	s.behind, s.fetching = nil, false
	return nil
}
