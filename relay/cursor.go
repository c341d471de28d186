package relay

// A position is how far somebody has read a topic.
type position struct {
	after uint64
	life  uint64 // of the topic, when the follow began
}

// A cursor is one follow of a session. It is in one place at a time, and who holds it there
// may change its position: its topic, while it waits for events; a job of the pump; its
// session's ready or behind, or its fetching; a timer after a failure.
type cursor struct {
	position
	session *Session
	follow  uint64 // the frame id that named the follow
	topic   *topic // nil until the follow has begun; then it does not change
	ended   bool   // unfollowed; guarded by the session's lock
	signals bool   // wants signals; likewise
	gone    bool   // waits for nothing any more; guarded by the topic's lock
}

// advance returns the events to send now, at most chunkBytes of frame or one, from a block
// of history if there is one for it, else from the tail. More says that the cursor is to be
// asked again; else it waits, or others have it.
func (c *cursor) advance(history *block) (got chunk, more bool, err error) {
	if history != nil {
		if err := c.topic.outlived(c.life); err != nil {
			return chunk{}, false, err
		}
		got = history.after(c.after, chunkBytes)
		c.after += uint64(got.events)
		if !history.has(c.after) {
			c.session.fetchNext(c)
		}
		return got, true, nil
	}
	got, waits, older, err := c.topic.read(c, chunkBytes)
	if older {
		c.session.fetch(c)
	}
	return got, !waits && !older, err
}

// fetch has a cursor wait for history. A session has that of one room at a time, so that it
// holds one block at most of what others do not share.
func (s *Session) fetch(c *cursor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behind = append(s.behind, c)
	if s.fetching == nil {
		s.startFetch()
	}
}

// fetchNext is called when c has no use for history any more: it is the next one's turn.
func (s *Session) fetchNext(c *cursor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fetching == c {
		s.startFetch()
	}
}

// startFetch begins to read history for the first cursor that waits for it; s is locked.
func (s *Session) startFetch() {
	s.fetching = nil
	s.keep(nil)
	for len(s.behind) > 0 && s.follows != nil {
		c := s.behind[0]
		s.behind = s.behind[1:]
		if !c.ended {
			s.fetching = c
			s.fetchAgain()
			return
		}
	}
	s.behind = nil
}

// fetchAgain reads history for the cursor whose turn it is; s is locked.
func (s *Session) fetchAgain() {
	c := s.fetching
	s.work.Go(func() { s.fetchFor(c) })
}

// keep holds a block of history for the cursor whose turn it is, and no other; s is locked.
func (s *Session) keep(b *block) {
	if s.fetched != nil {
		s.cfg.Hub.fetched.Add(-int64(s.fetched.bytes()))
	}
	if s.fetched = b; b != nil {
		s.cfg.Hub.fetched.Add(int64(b.bytes()))
	}
}

// spare gives back the history of a peer that has yet to read what was sent, where those of
// the node hold too much, and reports whether it did. It is read again when it can be sent;
// s is locked.
func (s *Session) spare() bool {
	much := s.writing == sending && s.cfg.Hub.fetched.Load() > s.cfg.Hub.cfg.FetchedBytes
	if much {
		s.keep(nil)
	}
	return much
}

// fetchFor reads history for a cursor, and puts it up.
func (s *Session) fetchFor(c *cursor) {
	b, err := c.topic.older.get(s.ctx, c.topic, c.after, c.life)
	if b != nil {
		s.mu.Lock()
		if s.fetching == c { // else it has ended meanwhile
			s.keep(b)
			s.spared = !s.spared && s.spare() // not twice in a row: other rooms may always be sent
		}
		s.mu.Unlock()
		s.enqueue(c)
		return
	}
	s.fetchNext(c)
	switch {
	case err != nil:
		s.fail(c, err)
	case !c.topic.await(c):
		s.enqueue(c)
	}
}
