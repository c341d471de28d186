package load

import "time"

// Note takes a time in.
func (t *Times) Note(d time.Duration) { t.note(d) }

// Add takes in all of other.
func (t *Times) Add(other *Times) { t.add(other) }
