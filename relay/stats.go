package relay

import (
	"sync/atomic"
	"time"
)

// stats are what a hub counts.
type stats struct {
	events, writes, bytes atomic.Uint64
	hits, misses          atomic.Uint64
	pages                 atomic.Uint64
	readers               atomic.Int64
	waited, took          times
}

// Stats are a hub's figures since it was made.
type Stats struct {
	// Topics are the rooms that are followed now, Followers those who do: clients, other
	// nodes, and readers within this one.
	Topics, Followers int
	// Events is how many were sent to followers, by so many Writes of Bytes in all.
	Events, Writes, Bytes uint64
	// Hits are reads of tails that found events, Misses those that had to ask for history.
	Hits, Misses uint64
	// Readers are the followers that wait for history now, Pages what was read for them.
	Readers int64
	Pages   uint64
	// Waited is how long those for whom there was something waited for a worker, Took how
	// long their part of its work took.
	Waited, Took Times
}

// Stats returns the hub's figures of now.
func (h *Hub) Stats() Stats {
	s := &h.stats
	h.mu.Lock()
	topics, followers := len(h.topics), h.followers
	h.mu.Unlock()
	return Stats{
		Topics: topics, Followers: followers,
		Events: s.events.Load(), Writes: s.writes.Load(), Bytes: s.bytes.Load(),
		Hits: s.hits.Load(), Misses: s.misses.Load(), Readers: s.readers.Load(), Pages: s.pages.Load(),
		Waited: s.waited.now(), Took: s.took.now(),
	}
}

func (s *stats) sent(events, bytes int) {
	s.events.Add(uint64(events))
	s.writes.Add(1)
	s.bytes.Add(uint64(bytes))
}

// turn notes how long a part of a job has waited, and how long it took.
func (s *stats) turn(waited, took time.Duration) {
	s.waited.add(waited)
	s.took.add(took)
}
