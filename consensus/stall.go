package consensus

import (
	"errors"
	"sync"
	"time"
)

// stallAfter is how long a durable write may wait before this node holds back
// what makes others take it for a leader.
const stallAfter = 2 * time.Second

var errStalled = errors.New("consensus: the disk does not answer")

// stall knows the durable writes that are under way.
type stall struct {
	mu   sync.Mutex
	next uint64
	open map[uint64]time.Time
}

// begin notes a write that begins; what it returns notes its end.
func (s *stall) begin() (end func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[uint64]time.Time{}
	}
	s.next++
	n := s.next
	s.open[n] = time.Now()
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, n)
	}
}

// stalled reports whether a write has been waiting for too long.
func (s *stall) stalled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, since := range s.open {
		if time.Since(since) >= stallAfter {
			return true
		}
	}
	return false
}
