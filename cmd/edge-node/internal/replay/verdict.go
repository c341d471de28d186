package replay

import (
	"fmt"
	"maps"
	"slices"
)

// A Region is what the followers of one region received of this run.
type Region struct {
	// Delivered counts events once, as the follower with the fewest has them.
	Delivered  int `json:"delivered"`
	Gaps       int `json:"gaps"`
	Duplicates int `json:"duplicates"`
	Disorder   int `json:"disorder"`
	// SHA256 is over the hashes of the rooms, in order of their names; each of
	// those is over seq, user, kind, text and client_msg_id of its events.
	SHA256 string            `json:"sha256"`
	Rooms  map[string]string `json:"rooms,omitempty"`
	// Differ counts followers that do not agree with the region's first.
	Differ int `json:"differ,omitempty"`
}

// A Verdict is what a Judge finds at the end.
type Verdict struct {
	Messages int `json:"messages"` // sent
	Acked    int `json:"acked"`
	Before   int `json:"before"` // of the acked: had their event already
	Rejected int `json:"rejected"`
	Unknown  int `json:"unknown"`
	Events   int `json:"events"` // of this run, seen by any follower

	Lost     int `json:"lost"`     // acked, but not seen with that seq
	Changed  int `json:"changed"`  // seen with another content than was sent
	Doubled  int `json:"doubled"`  // seen with two seqs
	Unwanted int `json:"unwanted"` // rejected, but seen

	Regions map[string]Region `json:"regions"`
}

// Verdict judges what was delivered so far.
func (j *Judge) Verdict() Verdict {
	j.mu.Lock()
	defer j.mu.Unlock()
	v := Verdict{Regions: make(map[string]Region)}
	for _, follower := range j.views {
		name, s := j.regions[follower.region], follower.close()
		r, ok := v.Regions[name]
		if !ok {
			r = Region{Delivered: s.delivered, SHA256: s.sha256, Rooms: s.rooms}
		}
		if r.SHA256 != s.sha256 {
			r.Differ++
		}
		r.Delivered = min(r.Delivered, s.delivered)
		r.Gaps += s.wrong.gaps
		r.Duplicates += s.wrong.duplicates
		r.Disorder += s.wrong.disorder
		v.Regions[name] = r
	}
	j.ledger.mu.Lock()
	defer j.ledger.mu.Unlock()
	t := j.tally
	v.Messages, v.Acked, v.Before, v.Rejected, v.Events = t.sent, t.acked, t.before, t.rejected, t.events
	v.Unknown = t.sent - t.acked - t.rejected
	v.Changed, v.Doubled = t.changed, t.doubled
	v.Lost, v.Unwanted = j.close()
	return v
}

// Anomalies says in words what is wrong; nothing if all is well.
func (v Verdict) Anomalies() (found []string) {
	add := func(n int, format string, args ...any) {
		if n > 0 {
			found = append(found, fmt.Sprintf("%d ", n)+fmt.Sprintf(format, args...))
		}
	}
	count := func(n int, thing, region string) {
		if n != 1 {
			thing += "s"
		}
		add(n, "%s in %s", thing, region)
	}
	add(v.Rejected, "rejected")
	add(v.Unknown, "with an unknown outcome")
	add(v.Lost, "acked but not delivered with that seq")
	add(v.Changed, "delivered with another content than was sent")
	add(v.Doubled, "delivered with two seqs")
	add(v.Unwanted, "rejected but delivered")
	sums := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(v.Regions)) {
		r := v.Regions[name]
		sums[r.SHA256] = true
		count(r.Gaps, "gap", name)
		count(r.Duplicates, "duplicate", name)
		add(r.Disorder, "out of order in %s", name)
		add(r.Differ, "not agreeing with the first follower in %s", name)
		add(v.Events-r.Delivered, "missing in %s", name)
	}
	if len(sums) > 1 {
		found = append(found, "the regions saw different histories")
	}
	return found
}
