package starling

import (
	"context"
	"slices"
	"sync"
)

// slots bound what is under way at one time. Those who wait get them in turn by the name
// that they wait under, however many wait under one.
type slots struct {
	mu      sync.Mutex
	free    int
	order   []string // the names of who waits, the next one first
	waiting map[string][]chan struct{}
}

func newSlots(n int) *slots { return &slots{free: n, waiting: make(map[string][]chan struct{})} }

// take waits for a slot until ctx ends. Who has one gives it back.
func (s *slots) take(ctx context.Context, name string) error {
	turn := s.queue(name)
	if turn == nil {
		return nil
	}
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
		if !s.leave(name, turn) {
			s.give() // it came at the same moment
		}
		return ctx.Err()
	}
}

// queue takes a slot and returns nil, or returns what is closed with one.
func (s *slots) queue(name string) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.free > 0 {
		s.free--
		return nil
	}
	if len(s.waiting[name]) == 0 {
		s.order = append(s.order, name)
	}
	turn := make(chan struct{})
	s.waiting[name] = append(s.waiting[name], turn)
	return turn
}

// leave reports whether turn still waited.
func (s *slots) leave(name string, turn chan struct{}) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.waiting[name], turn)
	if i < 0 {
		return false
	}
	if s.waiting[name] = slices.Delete(s.waiting[name], i, i+1); len(s.waiting[name]) == 0 {
		delete(s.waiting, name)
		s.order = slices.DeleteFunc(s.order, func(x string) bool { return x == name })
	}
	return true
}

func (s *slots) give() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.order) == 0 {
		s.free++
		return
	}
	name := s.order[0]
	s.order = s.order[1:]
	close(s.waiting[name][0])
	if s.waiting[name] = s.waiting[name][1:]; len(s.waiting[name]) == 0 {
		delete(s.waiting, name)
	} else {
		s.order = append(s.order, name)
	}
}
