package geo

import (
	"compress/gzip"
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// matrix is measured round trips, in ms; 0 = not measured.
type matrix [][]float64

// matrices are those of the folder $STARLING_DATA, or that which is shipped.
func matrices(tb testing.TB) map[string]matrix {
	dir := os.Getenv("STARLING_DATA")
	if dir == "" {
		t := Pops()
		m := newMatrix(len(t.places))
		for i := range m {
			for j := range m {
				m[i][j] = float64(t.rtt[i][j]+t.rtt[j][i]) / 2e6
			}
		}
		return map[string]matrix{"pops": m}
	}
	all := map[string]matrix{}
	rows := readRows(tb, dir, "net_pops_rtt_avg_ms.csv")[1:]
	m := newMatrix(len(rows))
	for i, r := range rows {
		for j := range m {
			m.add(i, j, number(tb, r[j+1]))
		}
	}
	all["pops"] = m
	rows = readRows(tb, dir, "net_planetlab490_median_ms.csv.gz")
	m = newMatrix(len(rows))
	for i, r := range rows {
		for j := range m {
			m.add(i, j, number(tb, r[j]))
		}
	}
	all["planetlab490"] = m
	rows = readRows(tb, dir, "net_wonder_rtt.csv.gz")[1:]
	index := map[string]int{}
	for _, r := range rows {
		for _, city := range r[:2] {
			if _, ok := index[city]; !ok {
				index[city] = len(index)
			}
		}
	}
	m = newMatrix(len(index))
	for _, r := range rows {
		if r[7] == "0" { // not faster than light
			m.add(index[r[0]], index[r[1]], number(tb, r[2]))
		}
	}
	all["wonder"] = m
	return all
}

func newMatrix(n int) matrix {
	m := make(matrix, n)
	for i := range m {
		m[i] = make([]float64, n)
	}
	return m
}

// add adds what was measured from one side: a pair has the mean of both.
func (m matrix) add(i, j int, ms float64) {
	if i == j || ms <= 0 {
		return
	}
	if m[i][j] > 0 {
		ms = (m[i][j] + ms) / 2
	}
	m[i][j], m[j][i] = ms, ms
}

func (m matrix) rtt(i, j int) time.Duration {
	return time.Duration(m[i][j] * float64(time.Millisecond))
}

func readRows(tb testing.TB, dir, name string) [][]string {
	f, err := os.Open(filepath.Join(dir, "net", name))
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	var in io.Reader = f
	if strings.HasSuffix(name, ".gz") {
		if in, err = gzip.NewReader(f); err != nil {
			tb.Fatal(err)
		}
	}
	rows, err := csv.NewReader(in).ReadAll()
	if err != nil {
		tb.Fatal(err)
	}
	return rows
}

func number(tb testing.TB, text string) float64 {
	x, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil {
		tb.Fatal(err)
	}
	return x
}

// share returns the value below which a share of all values is.
func share(values []float64, of float64) float64 {
	slices.Sort(values)
	return values[min(len(values)-1, int(of*float64(len(values))))]
}

// BenchmarkCoordinates estimates all pairs after each node has measured others at
// random a thousand times: the error is the difference by the truth.
func BenchmarkCoordinates(b *testing.B) {
	for name, m := range matrices(b) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				at := settle(len(m), 1000, rand.New(rand.NewPCG(1, 1)), m.rtt)
				var wrong []float64
				for i := range m {
					for j := range i {
						if m[i][j] > 0 {
							wrong = append(wrong, math.Abs(float64(at[i].RTT(at[j]))/1e6-m[i][j])/m[i][j])
						}
					}
				}
				b.ReportMetric(share(wrong, 0.5), "median-error")
				b.ReportMetric(share(wrong, 0.95), "p95-error")
			}
		})
	}
}

// BenchmarkWays follows rooms, each with three replicas placed by Place around a home,
// from a share of all other places, each of which is a region of its own. Relays over
// which others come are counted on to go to a replica, as in a mesh. The bound of
// a delivery is the shortest way over the matrix from any replica, of any number of hops.
func BenchmarkWays(b *testing.B) {
	const homes = 40
	for name, m := range matrices(b) {
		short := m.shortest()
		for _, part := range []float64{1, 0.1} {
			b.Run(fmt.Sprintf("%s/followed-by-%.0f%%", name, 100*part), func(b *testing.B) {
				for b.Loop() {
					w, rng := worked{}, rand.New(rand.NewPCG(1, 2))
					for _, home := range rng.Perm(len(m))[:min(len(m), homes)] {
						m.follow(home, short, rng, part, &w)
					}
					b.ReportMetric(share(w.ratios, 0.5), "median-ratio")
					b.ReportMetric(share(w.ratios, 0.99), "p99-ratio")
					b.ReportMetric(share(w.straight, 0.99), "p99-ratio-straight")
					b.ReportMetric(float64(w.copies)/float64(w.followed), "copies/optimum")
					b.ReportMetric(100*float64(w.faster)/float64(w.followed), "%faster-by-detour")
				}
			})
		}
	}
}

// shortest is the matrix of the shortest ways (Floyd and Warshall).
func (m matrix) shortest() matrix {
	s := newMatrix(len(m))
	for i := range m {
		for j := range m {
			if s[i][j] = m[i][j]; m[i][j] == 0 && i != j {
				s[i][j] = math.Inf(1)
			}
		}
	}
	for k := range s {
		for i := range s {
			for j := range s {
				s[i][j] = min(s[i][j], s[i][k]+s[k][j])
			}
		}
	}
	return s
}

// worked is what following came to.
type worked struct {
	ratios, straight         []float64
	followed, copies, faster int // regions that follow, copies that went into regions, detours that were faster
}

// place names and RTT make a matrix Distances.
func place(i int) string { return fmt.Sprintf("p%03d", i) }

func placeOf(region string) int {
	i, _ := strconv.Atoi(region[1:])
	return i
}

func (m matrix) RTT(a, b string) (time.Duration, bool) {
	d := m.rtt(placeOf(a), placeOf(b))
	return d, d > 0 || a == b
}

// follow lets a share of all places follow a room, until nobody changes any more.
func (m matrix) follow(home int, short matrix, rng *rand.Rand, part float64, w *worked) {
	var nodes []NodeState
	var all []Site
	for i := range m {
		s := Site{place(i), place(i)}
		all = append(all, s)
		nodes = append(nodes, NodeState{Site: s, State: Alive})
	}
	var replicas []Site
	for _, v := range Place(Policy{Home: place(home), Survive: SurviveRegion, Key: place(home)}, nodes, Config{}, m).Voters {
		replicas = append(replicas, Site{v, v})
	}
	links := func(a, b Site) Link {
		d, by := Know(m.rtt(placeOf(a.Region), placeOf(b.Region)), 0, 0)
		return Link{RTT: d, By: by}
	}
	follows := map[int]Decision{}
	duty := map[int]Duty{}
	var todo []int
	for i := range all {
		if rng.Float64() < part {
			duty[i], todo = NoDuty, append(todo, i)
		}
	}
	followers := slices.Clone(todo)
	for len(todo) > 0 {
		i := todo[0]
		todo = todo[1:]
		d := NextRelay(Hop{Self: all[i], Room: place(home), Replicas: replicas, Alive: all, Duty: duty[i], Links: links}, Decision{}, time.Time{})
		follows[i] = d
		if d.Role != Detour {
			continue
		}
		if to := placeOf(d.To.Region); duty[to] < LastDuty {
			duty[to], todo = LastDuty, append(todo, to)
		}
	}
	for i, d := range follows {
		if d.Role != NoRole {
			w.copies++
		}
		if !slices.Contains(followers, i) || d.Role == NoRole {
			continue
		}
		bound, straight, took := math.Inf(1), math.Inf(1), float64(d.RTT)/1e6
		for _, r := range replicas {
			bound = min(bound, short[i][placeOf(r.Region)])
			if x := m[i][placeOf(r.Region)]; x > 0 {
				straight = min(straight, x)
			}
		}
		w.followed++
		w.ratios = append(w.ratios, took/bound)
		if !math.IsInf(straight, 1) {
			w.straight = append(w.straight, straight/bound)
			if took < straight {
				w.faster++
			}
		}
	}
}
