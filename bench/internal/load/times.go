package load

import (
	"math"
	"math/bits"
	"time"
)

// Times are the times of answers, exact to a microsecond or to one in 128,
// whichever is coarser.
type Times struct {
	count   int
	longest time.Duration
	buckets [buckets]uint64
}

// A bucket holds the times whose first fine bits, of their microseconds, are
// the same.
const (
	fine    = 7
	buckets = (64 - fine + 2) << (fine - 1)
)

// note takes a time in.
func (t *Times) note(d time.Duration) {
	t.count++
	t.longest = max(t.longest, d)
	us := uint64(max(0, d.Microseconds()))
	cut := max(0, bits.Len64(us)-fine)
	t.buckets[cut<<(fine-1)+int(us>>cut)]++
}

// add takes in all of other.
func (t *Times) add(other *Times) {
	t.count += other.count
	t.longest = max(t.longest, other.longest)
	for i, n := range other.buckets {
		t.buckets[i] += n
	}
}

// Within is the time that a share, 0 to 1, of the answers took at most; 0 if
// there was none.
func (t *Times) Within(share float64) time.Duration {
	rank := uint64(max(1, math.Ceil(share*float64(t.count))))
	for i, n := range t.buckets {
		if n < rank {
			rank -= n
			continue
		}
		cut := max(0, i>>(fine-1)-1)
		us := (uint64(i-cut<<(fine-1)) << cut) + 1<<cut/2
		return min(time.Duration(us)*time.Microsecond, t.longest)
	}
	return t.longest
}

// Longest is the longest time.
func (t *Times) Longest() time.Duration { return t.longest }
