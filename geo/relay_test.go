package geo

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// table makes links of lines such as "f i 90 0.02": nodes, round trip in ms, price.
func table(text string) Links {
	known := map[[2]string]Link{}
	for line := range strings.Lines(text) {
		var a, b string
		var rtt, price float64
		if n, _ := fmt.Sscan(line, &a, &b, &rtt, &price); n < 3 {
			continue
		}
		l := Link{RTT: time.Duration(rtt * float64(time.Millisecond)), By: Measured, Price: price}
		known[[2]string{a, b}], known[[2]string{b, a}] = l, l
	}
	return func(a, b Site) Link {
		if l, ok := known[[2]string{a.Node, b.Node}]; ok {
			return l
		}
		return Link{RTT: guess, By: Guessed}
	}
}

func TestWays(t *testing.T) {
	const all = "s@sin h@hkg f@fra i@iad"
	for _, c := range []struct {
		name, links, replicas string
		duty                  Duty
		carries               []string
		want                  string
	}{
		{"the nearest replica", "s f 160\ns i 220", "f@fra i@iad", RelayDuty, nil, "f far replica"},
		{"what is measured comes before what is not", "s i 220", "f@fra i@iad", RelayDuty, nil, "i far replica"},
		{"a detour that is clearly faster", "s f 260\ns h 40\nh f 150", "f@fra", NoDuty, nil, "h detour"},
		{"one that is not", "s f 200\ns h 40\nh f 145", "f@fra", NoDuty, nil, "f far replica"},
		{"one that is only guessed", "s f 700\ns h 40", "f@fra", NoDuty, nil, "f far replica"},
		{"no detour for whom others count on", "s f 260\ns h 40\nh f 150", "f@fra", LastDuty, nil, "f far replica"},
		{"the price", "s f 160 0.02\ns i 220", "f@fra i@iad", RelayDuty, nil, "f far replica"},
		{"ten times the price", "s f 160 0.2\ns i 220", "f@fra i@iad", RelayDuty, nil, "i far replica"},
		{"around a dear link", "s f 160 0.2\ns h 40\nh f 150", "f@fra", RelayDuty, nil, "h detour"},
		{"around is as dear", "s f 160 0.2\ns h 40\nh f 150 0.2", "f@fra", RelayDuty, nil, "f far replica"},
		{"unless it is carried anyway", "s f 160 0.2\ns h 40\nh f 150 0.2", "f@fra", RelayDuty, []string{"h"}, "h detour"},
	} {
		q := Hop{Self: Site{"s", "sin"}, Room: "r", Replicas: sites(c.replicas), Alive: sites(all), Duty: c.duty, Carries: c.carries, Links: table(c.links)}
		d := NextRelay(q, Decision{}, time.Time{})
		if got := d.To.Node + " " + string(d.Role); got != c.want {
			t.Errorf("%s: %s, want %s\n%s", c.name, got, c.want, strings.Join(d.Explain(), "\n"))
		}
	}
}

// Of two relays that carry a room and could each save by the other, one does.
func TestRelaysDoNotTurnToEachOther(t *testing.T) {
	links := table("s h 20\ns f 150 0.2\nh f 150 0.2")
	follows := map[string]string{}
	for _, self := range []Site{{"s", "sin"}, {"h", "hkg"}} {
		q := Hop{Self: self, Room: "r", Replicas: sites("f@fra"), Alive: sites("s@sin h@hkg f@fra"), Duty: RelayDuty, Carries: []string{"s", "h"}, Links: links}
		follows[self.Node] = NextRelay(q, Decision{}, time.Time{}).To.Node
	}
	if follows["s"] == follows["h"] || follows["s"] == "h" && follows["h"] == "s" {
		t.Errorf("they follow %v", follows)
	}
}

func TestExplain(t *testing.T) {
	q := Hop{
		Self: Site{"s", "sin"}, Room: "r", Replicas: sites("f@fra i@iad"), Alive: sites("s@sin h@hkg f@fra i@iad"), Duty: RelayDuty,
		Links: table("s f 160 0.2\ns i 220 0.2\ns h 40\nh f 150"),
	}
	want := `follows h in hkg, which goes on to f: 190.0 ms (measured)
not f in fra, a replica: 160.0 ms (measured), 0.2 per GB; 30.0 ms shorter, 0.2 per GB dearer, which counts as 200.0 ms
not i in iad, a replica: 220.0 ms (measured), 0.2 per GB; 30.0 ms longer, 0.2 per GB dearer, which counts as 200.0 ms`
	if got := strings.Join(NextRelay(q, Decision{}, time.Time{}).Explain(), "\n"); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// The nearest replica may be farther from the leader than what it saves; how far leader and
// replica are counts for detours too.
func TestLeaderIsWhereEventsComeFrom(t *testing.T) {
	q := Hop{
		Self: Site{"s", "syd"}, Room: "r", Replicas: sites("n@nrt h@hkg"), Alive: sites("s@syd n@nrt h@hkg"), Duty: RelayDuty,
		Links: table("s n 111\ns h 94\nn h 70"),
	}
	for leader, want := range map[string]string{"": "h 94ms", "n": "n 111ms", "h": "h 94ms"} {
		if leader != "" {
			q.Leader = Site{leader, map[string]string{"n": "nrt", "h": "hkg"}[leader]}
		}
		if d := NextRelay(q, Decision{}, time.Time{}); fmt.Sprint(d.To.Node, " ", d.RTT) != want {
			t.Errorf("led by %q: follows %s, %v, want %s", leader, d.To.Node, d.RTT, want)
		}
	}
	q.Leader = Site{}
	q.Replicas, q.Alive = sites("n@nrt"), sites("s@syd n@nrt h@hkg g@gum")
	q.Leader, q.Links = Site{"n", "nrt"}, table("s n 200\ns g 50\ng n 60")
	if d := NextRelay(q, Decision{}, time.Time{}); d.To.Node != "g" || d.RTT != 110*time.Millisecond {
		t.Errorf("follows %s, %v", d.To.Node, d.RTT)
	}
}

// A better way is taken when it has been better for a while without a break.
func TestHysteresis(t *testing.T) {
	began := time.Unix(0, 0)
	at := func(seconds int, last Decision, fra, iad float64) Decision {
		q := Hop{Self: Site{"s", "sin"}, Room: "r", Replicas: sites("f@fra i@iad"), Alive: sites("f@fra i@iad"), Links: table(fmt.Sprintf("s f %v\ns i %v", fra, iad))}
		return NextRelay(q, last, began.Add(time.Duration(seconds)*time.Second))
	}
	d := at(0, Decision{}, 160, 220)
	for _, step := range []struct {
		second   int
		fra, iad float64
		want     string
	}{
		{1, 160, 150, "f"},    // better, but not clearly
		{2, 160, 120, "f"},    // clearly, since now
		{20, 160, 120, "f"},   // for 18 s
		{21, 160, 150, "f"},   // and not any more
		{22, 160, 120, "f"},   // anew
		{41, 160, 120, "f"},   // for 19 s
		{42, 160, 120, "i"},   // for 20 s
		{43, 119, 120, "i"},   // the other is not clearly better now
		{44, 3000, 3001, "i"}, // nor of two that are far
	} {
		if d = at(step.second, d, step.fra, step.iad); d.To.Node != step.want {
			t.Fatalf("at %d s: follows %s, want %s", step.second, d.To.Node, step.want)
		}
	}
	q := Hop{Self: Site{"s", "sin"}, Room: "r", Replicas: sites("f@fra i@iad"), Alive: sites("f@fra"), Links: table("s f 900\ns i 1")}
	if d = NextRelay(q, d, began.Add(time.Minute)); d.To.Node != "f" {
		t.Errorf("a relay that is gone is followed: %s", d.To.Node)
	}
}

// Every node sees another mesh, counts on what it likes and measures what it likes, and
// only where the replicas are is known to all: nobody follows in a circle, once what
// each is counted on for has arrived.
func TestNoCircleWhateverIsSeen(t *testing.T) {
	regions := []string{"fra", "iad", "sin", "hkg", "box"}
	detours, moved := 0, 0
	for seed := range uint64(1500) {
		r := rand.New(rand.NewPCG(seed, 1))
		var all []Site
		for i := range 4 + r.IntN(9) {
			all = append(all, Site{fmt.Sprint("n", i), regions[r.IntN(len(regions))]})
		}
		replicas := all[:1+r.IntN(2)]
		hops, last := make([]Hop, len(all)), make([]Decision, len(all))
		for i, s := range all {
			q := Hop{Self: s, Room: fmt.Sprint("room", seed), Replicas: replicas}
			for _, other := range all {
				if r.IntN(4) > 0 {
					q.Alive = append(q.Alive, other)
				}
				if r.IntN(3) == 0 {
					q.Carries = append(q.Carries, other.Node)
				}
			}
			salt := r.Uint64()
			q.Links = func(a, b Site) Link {
				x := rand.New(rand.NewPCG(salt, uint64(len(a.Node+b.Node))+uint64(a.Node[1])*uint64(b.Node[1])))
				return Link{RTT: time.Duration(1+x.IntN(300)) * time.Millisecond, By: Measured, Price: float64(x.IntN(3)) / 10}
			}
			hops[i] = q
		}
		index := func(node string) int {
			return slices.IndexFunc(all, func(s Site) bool { return s.Node == node })
		}
		for changed, rounds := true, 0; changed; rounds++ {
			if changed = false; rounds > 2*len(all) {
				t.Fatalf("seed %d: duties never settle", seed)
			}
			for i := range hops {
				last[i] = NextRelay(hops[i], last[i], time.Unix(int64(rounds), 0))
				if last[i].Role == NoRole {
					continue
				}
				if to := &hops[index(last[i].To.Node)]; to.Duty < last[i].Asks() {
					to.Duty, changed = last[i].Asks(), true
					moved++
				}
			}
		}
		for i := range all {
			at, steps := i, 0
			for last[at].Role != NoRole {
				if last[at].Role == Detour {
					detours++
				}
				if at = index(last[at].To.Node); steps > 3 {
					t.Fatalf("seed %d: %s goes in a circle", seed, all[i].Node)
				}
				steps++
			}
		}
	}
	if detours == 0 || moved == 0 {
		t.Errorf("the test saw %d detours and %d duties", detours, moved)
	}
}

func TestCandidates(t *testing.T) {
	nodes := []NodeState{}
	for _, s := range sites("i@iad f1@fra f2@fra a@ams s@sin b@box") {
		nodes = append(nodes, NodeState{Site: s, State: Alive})
	}
	nodes[3].State = Draining
	var got []string
	for _, c := range Candidates("fra", "alice", nodes, Pops()) {
		got = append(got, c.Node+": "+c.Why)
	}
	want := "f1: it is in fra|f2: it is in fra|i: iad is 92.2 ms from fra|s: sin is 165.0 ms from fra|b: nobody knows how far box is"
	if text := strings.Join(got, "|"); text != want && text != strings.Replace(want, "f1: it is in fra|f2", "f2: it is in fra|f1", 1) {
		t.Errorf("got %s", text)
	}
}
