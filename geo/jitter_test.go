package geo

import (
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// deviations are the mean deviations of round trips between places, in ms.
func deviations(t *testing.T) func(a, b string) float64 {
	text, err := os.ReadFile("testdata/rtt_mdev_ms.csv")
	if err != nil {
		t.Fatal(err)
	}
	rows, err := readCSV(string(text))
	if err != nil {
		t.Fatal(err)
	}
	column := map[string]int{}
	for i, code := range rows[0] {
		column[strings.ToLower(code)] = i
	}
	return func(a, b string) float64 {
		ms, err := strconv.ParseFloat(rows[column[a]][column[b]], 64)
		if err != nil {
			t.Fatal(err)
		}
		return ms
	}
}

// Half an hour of real jitter, smoothed as QUIC smooths (RFC 9002, 5.3), in which every
// place looks every two seconds whom it should follow. Whoever took the best of each
// moment would go to and fro.
func TestJitterMovesNothing(t *testing.T) {
	pops, deviation := Pops(), deviations(t)
	regions := pops.Regions()
	rng := rand.New(rand.NewPCG(1, 5))
	naive, moved, followed := 0, 0, 0
	for _, r := range regions {
		// Replicas that are about as far, and two places between them and here.
		self, order := Site{r, r}, byDistance(pops, r, regions)
		var near []Site
		for _, i := range []int{12, 13, 14, 4, 8} {
			near = append(near, Site{order[i], order[i]})
		}
		replicas := near[:3]
		smoothed := map[Site]time.Duration{}
		var d, best Decision
		followed++
		for second := 0; second < 1800; second += 2 {
			for _, to := range near {
				rtt, _ := pops.RTT(self.Region, to.Region)
				noise := rng.ExpFloat64() * deviation(self.Region, to.Region)
				if rng.IntN(2) == 0 {
					noise = -noise
				}
				sample := max(rtt/2, rtt+time.Duration(noise*float64(time.Millisecond)))
				if smoothed[to] == 0 {
					smoothed[to] = rtt // as a link that has lived for a while
				}
				smoothed[to] += (sample - smoothed[to]) / 8
			}
			q := Hop{Self: self, Room: "r", Replicas: replicas, Alive: near, Duty: RelayDuty, Links: func(a, b Site) Link {
				rtt := smoothed[b]
				if a != self {
					rtt, _ = pops.RTT(a.Region, b.Region)
				}
				return Link{RTT: rtt, By: Measured}
			}}
			now := time.Unix(int64(second), 0)
			was, before := d.Way, best.Way
			if d, best = NextRelay(q, d, now), NextRelay(q, Decision{}, now); second == 0 {
				continue
			}
			if !d.same(was) {
				moved++
			}
			if !best.same(before) {
				naive++
			}
		}
	}
	t.Logf("of %d relays: %d changes, %d without hysteresis", followed, moved, naive)
	if naive < 100 || moved > 0 {
		t.Errorf("%d changes, %d without hysteresis", moved, naive)
	}
}

// TestPlaceKeepsItsLeader: of two regions about as far from a home without nodes, the one that
// leads goes on, whatever jitter makes of them.
func TestPlaceKeepsItsLeader(t *testing.T) {
	nodes := []NodeState{{Site: Site{"a", "ams"}, State: Alive}, {Site: Site{"b", "lhr"}, State: Alive}}
	for _, c := range []struct {
		ams, lhr float64
		want     string
	}{{20, 21, "b"}, {19, 20.5, "b"}, {10, 20, "a"}} {
		now := Config{Voters: []string{"a", "b"}, Leader: "b"}
		got := Place(Policy{Home: "fra", Survive: SurviveRegion}, nodes, now, fixed{"ams": c.ams, "lhr": c.lhr})
		if got.Voters[0] != c.want {
			t.Errorf("ams at %v and lhr at %v: %v, want %s to lead", c.ams, c.lhr, got.Voters, c.want)
		}
	}
}

// fixed are distances from anywhere, in ms.
type fixed map[string]float64

func (f fixed) RTT(_, to string) (time.Duration, bool) {
	ms := f[to]
	return time.Duration(math.Round(ms * 1e6)), ms > 0
}
