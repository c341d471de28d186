package load

import (
	"encoding/json"
	"time"
)

// Note takes a time in.
func (t *Times) Note(d time.Duration) { t.note(d) }

// Add takes in all of other.
func (t *Times) Add(other *Times) { t.add(other) }

// told is how Times go from one process to another.
type told struct {
	Longest time.Duration
	Buckets map[int]uint64
}

// MarshalJSON implements json.Marshaler.
func (t *Times) MarshalJSON() ([]byte, error) {
	all := told{t.longest, map[int]uint64{}}
	for i, n := range t.buckets {
		if n > 0 {
			all.Buckets[i] = n
		}
	}
	return json.Marshal(all)
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *Times) UnmarshalJSON(b []byte) error {
	var all told
	if err := json.Unmarshal(b, &all); err != nil {
		return err
	}
	*t = Times{longest: all.Longest}
	for i, n := range all.Buckets {
		if i >= 0 && i < buckets {
			t.buckets[i] = n
			t.count += int(n)
		}
	}
	return nil
}
