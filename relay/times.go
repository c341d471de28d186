package relay

import (
	"math"
	"sync/atomic"
	"time"
)

const (
	// TimesSchema says how fine Times are: as the schema of Prometheus' native histograms,
	// 2^TimesSchema buckets for each doubling.
	TimesSchema = 3
	// TimesBrief is what is too short to be told apart, in seconds, a power of two; what is
	// longer than timesLong doublings of that counts as that.
	TimesBrief = 1. / (1 << timesFirst)

	timesFirst = 20
	timesLong  = 26
	timesParts = 1 << TimesSchema
)

// Times tells how long something took, how often.
type Times struct {
	Sum time.Duration
	// Brief is how many took at most TimesBrief.
	Brief uint64
	// Buckets are the others: at i those that took more than 2^((i-1)/8) seconds, and at
	// most 2^(i/8).
	Buckets map[int]int64
}

// times counts durations. It is safe for concurrent use, and makes no garbage.
type times struct {
	sum     atomic.Int64
	brief   atomic.Uint64
	buckets [timesLong * timesParts]atomic.Int64
}

// parts are the bounds within a doubling, as bits of a number from 1 to 2.
var parts = func() (bounds [timesParts]uint64) {
	for i := range bounds {
		bounds[i] = math.Float64bits(math.Exp2(float64(i) / timesParts))
	}
	return bounds
}()

func (x *times) add(d time.Duration) {
	x.sum.Add(int64(d))
	if i := place(d); i < 0 {
		x.brief.Add(1)
	} else {
		x.buckets[min(i, len(x.buckets)-1)].Add(1)
	}
}

// place is which bucket a duration is for; below 0 it is brief.
func place(d time.Duration) int {
	seconds := d.Seconds()
	if seconds <= TimesBrief {
		return -1
	}
	const fraction = 52 // bits of a float64
	bits := math.Float64bits(seconds)
	doublings := int(bits>>fraction) - 1023
	bits = bits&(1<<fraction-1) | 1023<<fraction
	part := 0
	for part < timesParts && bits > parts[part] {
		part++
	}
	return (doublings+timesFirst)*timesParts + part - 1
}

func (x *times) now() Times {
	t := Times{Sum: time.Duration(x.sum.Load()), Brief: x.brief.Load(), Buckets: make(map[int]int64)}
	for i := range x.buckets {
		if n := x.buckets[i].Load(); n > 0 {
			t.Buckets[i+1-timesFirst*timesParts] = n
		}
	}
	return t
}
