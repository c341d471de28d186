package replay

import (
	"slices"
	"time"
)

// A Pair is what the records took whose senders are in one region and whose
// rooms live in another.
type Pair struct {
	From    string             `json:"from"`
	Home    string             `json:"home"`
	Records int                `json:"records"`
	AckP50  float64            `json:"ack_p50_ms"`
	Deliver map[string]float64 `json:"deliver_p50_ms"` // to the first follower of each region
}

// Latency returns the time in milliseconds within which a share (0 to 1) of
// all acks came.
func (j *Judge) Latency(shares ...float64) []float64 {
	j.ledger.mu.Lock()
	var acks []uint32
	for i := range j.entries {
		if j.entries[i].acked != 0 {
			acks = append(acks, j.entries[i].ack)
		}
	}
	j.ledger.mu.Unlock()
	slices.Sort(acks)
	found := make([]float64, len(shares))
	for i, share := range shares {
		found[i] = quantile(acks, share)
	}
	return found
}

// Pairs returns the times per pair of regions; home tells where a room lives,
// "" if it is not known.
func (j *Judge) Pairs(home func(room string) string) []Pair {
	type key struct{ from, home string }
	type times struct {
		acks    []uint32
		deliver [][]uint32
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ledger.mu.Lock()
	defer j.ledger.mu.Unlock()
	homes := make([]string, len(j.rooms))
	for i, room := range j.rooms {
		homes[i] = home(room)
	}
	all := make(map[key]*times)
	for line := range j.entries {
		e := &j.entries[line]
		if e.acked == 0 || homes[e.room] == "" {
			continue
		}
		k := key{j.regions[e.from], homes[e.room]}
		t := all[k]
		if t == nil {
			t = &times{deliver: make([][]uint32, len(j.regions))}
			all[k] = t
		}
		t.acks = append(t.acks, e.ack)
		for _, v := range j.views {
			if v.timed && line < len(v.micros) && v.micros[line] != 0 {
				t.deliver[v.region] = append(t.deliver[v.region], v.micros[line])
			}
		}
	}
	var pairs []Pair
	for _, from := range j.regions {
		for _, home := range j.regions {
			t := all[key{from, home}]
			if t == nil {
				continue
			}
			p := Pair{From: from, Home: home, Records: len(t.acks), AckP50: median(t.acks), Deliver: make(map[string]float64)}
			for i, us := range t.deliver {
				if len(us) > 0 {
					p.Deliver[j.regions[i]] = median(us)
				}
			}
			pairs = append(pairs, p)
		}
	}
	return pairs
}

func median(us []uint32) float64 {
	slices.Sort(us)
	return quantile(us, 0.5)
}

// quantile is in milliseconds; us is sorted and in microseconds.
func quantile(us []uint32, share float64) float64 {
	if len(us) == 0 {
		return 0
	}
	i := min(int(share*float64(len(us))), len(us)-1)
	d := time.Duration(us[i]) * time.Microsecond
	return float64(d.Microseconds()) / 1000
}
