package relay

import (
	"sync/atomic"
	"time"
)

// stats are what a hub counts.
type stats struct {
	events, writes, bytes atomic.Uint64
	hits, misses          atomic.Uint64
}

// Stats are a hub's figures since it was made.
type Stats struct {
	// Events is how many were sent to followers, by so many Writes of Bytes in all.
	Events, Writes, Bytes uint64
	// Hits are reads of tails that found events, Misses those that had to ask for history.
	Hits, Misses uint64
}

// Stats returns the hub's figures of now.
func (h *Hub) Stats() Stats {
	s := &h.stats
	return Stats{Events: s.events.Load(), Writes: s.writes.Load(), Bytes: s.bytes.Load(), Hits: s.hits.Load(), Misses: s.misses.Load()}
}

func (s *stats) sent(events, bytes int) {
	s.events.Add(uint64(events))
	s.writes.Add(1)
	s.bytes.Add(uint64(bytes))
}

// turn notes how long a part of a job has waited, and how long it took.
func (s *stats) turn(waited, took time.Duration) {}
