package geo

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPops(t *testing.T) {
	p := Pops()
	regions := p.Regions()
	if len(regions) != 40 || !slices.IsSorted(regions) {
		t.Errorf("regions %v", regions)
	}
	for _, c := range []struct {
		a, b string
		want time.Duration
	}{
		{"nrt", "icn", 82_315 * time.Microsecond}, // 81.52 one way round, 83.11 the other
		{"fra", "fra", 0},
	} {
		if got, ok := p.RTT(c.a, c.b); !ok || got != c.want {
			t.Errorf("RTT(%s, %s) = %v, %v, want %v", c.a, c.b, got, ok, c.want)
		}
	}
	for _, a := range regions {
		for _, b := range regions {
			ab, _ := p.RTT(a, b)
			ba, _ := p.RTT(b, a)
			if ab != ba || (a == b) != (ab == 0) || ab < 0 || ab > time.Second {
				t.Errorf("RTT(%s, %s) = %v, the other way %v", a, b, ab, ba)
			}
		}
	}
	if _, ok := p.RTT("fra", "box"); ok {
		t.Error("an unknown region has a round-trip time")
	}
	if fra, ok := p.Place("fra"); !ok || fra.City != "Frankfurt" || math.Round(fra.Lat) != 50 || math.Round(fra.Lon) != 9 {
		t.Errorf("fra is %+v", fra)
	}
	if _, ok := p.Place("FRA"); ok {
		t.Error("codes are lower case")
	}
}

func TestParseRefusesDamage(t *testing.T) {
	const places, times = "a,A,X,1,2\nb,B,X,3,4\n", "src,a,b\na,0,1\nb,2,0\n"
	if _, err := parse(places, times); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]string{
		{"a,A,X,north,2\nb,B,X,3,4\n", times}, {"a,A,X,1,east\nb,B,X,3,4\n", times}, {"a,A\nb\n", times},
		{places, "src,a,b\na,0,1\n"}, {places, "src,a,b\na,0,far\nb,2,0\n"}, {places, "src,a\na,0,1\n"},
	} {
		if _, err := parse(c[0], c[1]); err == nil {
			t.Errorf("parse(%q, %q) = nil", c[0], c[1])
		}
	}
}

func TestNearest(t *testing.T) {
	for _, c := range []struct {
		from, to, want string
		ok             bool
	}{
		{"fra", "iad sin ams", "ams", true},
		{"fra", "iad fra sin", "fra", true},
		{"sin", "fra iad", "fra", true},
		{"fra", "box iad", "iad", true},
		{"fra", "box bax", "bax", false},
		{"box", "fra iad", "fra", false},
		{"box", "fra box", "box", false},
		{"fra", "", "", false},
	} {
		got, ok := Pops().Nearest(c.from, strings.Fields(c.to))
		if got != c.want || ok != c.ok {
			t.Errorf("Nearest(%s, %s) = %q, %v, want %q, %v", c.from, c.to, got, ok, c.want, c.ok)
		}
	}
}

// Meshes have rooms on disk where this order has put them.
func TestRankNeverChanges(t *testing.T) {
	choices := []string{"1", "2", "3", "4", "fra", "iad", "sin"}
	for key, want := range map[string]string{
		"":           "2 sin 3 fra iad 1 4",
		"lobby":      "2 fra 4 3 iad 1 sin",
		"demo/lobby": "sin 2 4 fra 1 iad 3",
		"日本語":        "1 3 4 fra sin iad 2",
	} {
		if got := strings.Join(Rank(key, choices), " "); got != want {
			t.Errorf("Rank(%q) = %q, was %q", key, got, want)
		}
	}
}

func TestRankIsFair(t *testing.T) {
	choices := []string{"a", "b", "c", "d", "e"}
	first := map[string]int{}
	const keys = 20_000
	for i := range keys {
		key := fmt.Sprint("room", i)
		order := Rank(key, choices)
		first[order[0]]++
		without := slices.DeleteFunc(slices.Clone(choices), func(c string) bool { return c == order[0] })
		if got := Rank(key, without); !slices.Equal(got, order[1:]) {
			t.Fatalf("without its first choice %v became %v", order, got)
		}
		rand.Shuffle(len(choices), func(i, j int) { choices[i], choices[j] = choices[j], choices[i] })
	}
	for c, n := range first {
		if share := float64(n) * 5 / keys; share < 0.95 || share > 1.05 {
			t.Errorf("%s is first for %.2f of its share", c, share)
		}
	}
}

// sites reads "a@fra b@iad".
func sites(text string) (s []Site) {
	for _, f := range strings.Fields(text) {
		node, region, _ := strings.Cut(f, "@")
		s = append(s, Site{node, region})
	}
	return s
}

func TestVoters(t *testing.T) {
	for _, c := range []struct {
		home    string
		survive Survive
		sites   string
		want    string // regions, or a number of nodes of the home region
	}{
		{"fra", SurviveRegion, "f@fra i@iad s@sin", "fra iad sin"},
		{"sin", SurviveRegion, "f@fra i@iad s@sin", "sin fra iad"},
		{"fra", SurviveRegion, "f@fra f2@fra i@iad i2@iad s@sin s2@sin a@ams", "fra ams iad"},
		{"fra", SurviveRegion, "f@fra i@iad b@box", "fra iad box"},
		{"box", SurviveRegion, "f@fra i@iad b@box", "box fra iad"},
		{"fra", SurviveRegion, "f@fra i@iad", "fra iad"},
		{"fra", SurviveRegion, "i@iad s@sin", "iad sin"},
		{"fra", SurviveNode, "f@fra f2@fra f3@fra f4@fra i@iad", "fra fra fra"},
		{"fra", SurviveNode, "f@fra f@fra i@iad", "fra"},
		{"fra", SurviveNode, "i@iad", ""},
		{"fra", SurviveNone, "f@fra f2@fra i@iad", "fra"},
		{"fra", "whatever", "f@fra f2@fra i@iad", "fra"},
		{"fra", SurviveRegion, "", ""},
	} {
		all := sites(c.sites)
		region := map[string]string{}
		for _, s := range all {
			region[s.Node] = s.Region
		}
		got := Voters(c.home, c.survive, all, Pops(), "group/1")
		var regions []string
		for _, v := range got {
			regions = append(regions, region[v])
		}
		if strings.Join(regions, " ") != c.want {
			t.Errorf("Voters(%s, %s, %s) = %v in %v, want %s", c.home, c.survive, c.sites, got, regions, c.want)
		}
		for range 10 {
			rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			if again := Voters(c.home, c.survive, all, Pops(), "group/1"); !slices.Equal(again, got) {
				t.Errorf("Voters(%s, %s) = %v, in another order of sites %v", c.home, c.survive, got, again)
			}
		}
	}
}

func TestNextRelay(t *testing.T) {
	for _, c := range []struct {
		name, self, replicas, alive string
		duty                        Duty
		want                        string
	}{
		{name: "a replica follows nobody", self: "f@fra", replicas: "f@fra i@iad", alive: "i@iad", want: ""},
		{name: "a replica of the region", self: "f@fra", replicas: "g@fra i@iad", alive: "f@fra g@fra i@iad", want: "g"},
		{name: "also as a relay", self: "f@fra", replicas: "g@fra i@iad", alive: "g@fra i@iad", duty: RelayDuty, want: "g"},
		{name: "alone in the region", self: "f@fra", replicas: "i@iad s@sin", alive: "i@iad s@sin", want: "i"},
		{name: "the nearest is dead", self: "f@fra", replicas: "i@iad s@sin", alive: "s@sin", want: "s"},
		{name: "all are dead", self: "f@fra", replicas: "i@iad", alive: "f@fra", want: "i"},
		{name: "there are none", self: "f@fra", replicas: "", alive: "f@fra", want: ""},
		{name: "counted on as relay", self: "f@fra", replicas: "i@iad", alive: "a@fra b@fra c@fra d@fra i@iad", duty: RelayDuty, want: "i"},
		{name: "nobody knows where the box is", self: "b@box", replicas: "i@iad", alive: "i@iad", want: "i"},
	} {
		q := Hop{Room: "demo/lobby", Replicas: sites(c.replicas), Alive: sites(c.alive), Self: sites(c.self)[0], Duty: c.duty}
		if got := NextRelay(q, Decision{}, time.Time{}).To.Node; got != c.want {
			t.Errorf("%s: NextRelay = %q, want %q", c.name, got, c.want)
		}
	}
}

// Random meshes, in which all nodes have the same view: everybody gets to a
// replica, in two steps at most, and one node of a region at most leaves it.
func TestRelaysMakeTrees(t *testing.T) {
	regions := []string{"fra", "iad", "sin", "gru", "box", "bax"}
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 0))
		var all, alive, replicas []Site
		for i := range 1 + r.IntN(12) {
			s := Site{fmt.Sprint("n", i), regions[r.IntN(len(regions))]}
			all = append(all, s)
			if r.IntN(4) > 0 {
				alive = append(alive, s)
			}
		}
		for _, i := range r.Perm(len(all))[:min(len(all), 1+r.IntN(3))] {
			replicas = append(replicas, all[i])
		}
		region := map[string]string{}
		for _, s := range all {
			region[s.Node] = s.Region
		}
		isReplica := func(n string) bool {
			return slices.ContainsFunc(replicas, func(s Site) bool { return s.Node == n })
		}
		leaving := map[string][]string{}
		for _, s := range alive {
			shuffled := slices.Clone(alive)
			r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
			q := Hop{Self: s, Room: fmt.Sprint("room", seed), Replicas: replicas, Alive: shuffled}
			at := NextRelay(q, Decision{}, time.Time{}).To.Node
			if at == "" {
				if !isReplica(s.Node) {
					t.Fatalf("seed %d: %s follows nobody", seed, s.Node)
				}
				continue
			}
			if region[at] != s.Region {
				leaving[s.Region] = append(leaving[s.Region], s.Node)
			}
			if !isReplica(at) {
				if region[at] != s.Region || at == s.Node {
					t.Fatalf("seed %d: %v follows %s, a relay of %s", seed, s, at, region[at])
				}
				next := NextRelay(Hop{Self: Site{at, region[at]}, Room: q.Room, Replicas: replicas, Alive: alive, Duty: RelayDuty}, Decision{}, time.Time{}).To.Node
				if !isReplica(next) {
					t.Fatalf("seed %d: relay %s follows %s, no replica", seed, at, next)
				}
				// By itself it decides the same, so that it has one parent.
				if own := NextRelay(Hop{Self: Site{at, region[at]}, Room: q.Room, Replicas: replicas, Alive: shuffled}, Decision{}, time.Time{}).To.Node; own != next {
					t.Fatalf("seed %d: relay %s follows %s for others and %s for itself", seed, at, next, own)
				}
			}
		}
		for reg, nodes := range leaving {
			if len(nodes) > 1 {
				t.Fatalf("seed %d: %v of %s each get a copy from afar", seed, nodes, reg)
			}
		}
	}
}
