package directory

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

func founded(t testing.TB, i Init) *State {
	t.Helper()
	s, err := New(rank).Apply(Change{Init: i})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func world() Init {
	i := Init{Apps: []App{{Name: "demo", Open: true, Homes: []string{"fra", "iad", "sin"}}, {Name: "other", Homes: []string{"iad"}}}}
	id := uint32(1)
	for _, region := range []string{"fra", "iad", "sin"} {
		node := Node{ID: region + "-1", Region: region, Addr: "127.0.0.1:1"}
		i.Nodes = append(i.Nodes, node)
		for range 4 {
			i.Groups = append(i.Groups, Group{ID: id, Region: region, Voters: []string{node.ID}})
			id++
		}
	}
	return i
}

// Where a room is depends on its id and on what speaks of it, on nothing else.
func TestLocateIgnoresTheUnrelated(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	shuffle := func(s any) { rand.Shuffle(reflect.ValueOf(s).Len(), reflect.Swapper(s)) }
	for seed := range 100 {
		i := world()
		var rules []Rule
		for n := range 1 + r.IntN(6) { // prefixes of which none begins another
			rules = append(rules, Rule{Pattern: fmt.Sprintf("team%d/*", n), Homes: []string{[]string{"fra", "iad", "sin"}[r.IntN(3)]}})
		}
		i.Apps[0].Rules = rules
		s := founded(t, i)

		j := world()
		j.Apps[0].Rules = slices.Clone(rules)
		shuffle(j.Apps[0].Rules)
		j.Apps[0].Rules = append(j.Apps[0].Rules, Rule{Pattern: "unrelated/*", Homes: []string{"sin"}})
		j.Apps[0].Homes = []string{"sin", "fra", "iad"}
		j.Exceptions = []Exception{{App: "demo", Room: "unrelated/x", Group: 1}, {App: "other", Room: "team1/room1", Group: 2}}
		shuffle(j.Apps)
		shuffle(j.Nodes)
		shuffle(j.Groups)
		u := founded(t, j)
		for range 50 {
			room := fmt.Sprintf("team%d/room%d", r.IntN(8), r.IntN(1000))
			a, err := s.Locate("demo", room)
			b, err2 := u.Locate("demo", room)
			if err != nil || err2 != nil || a != b {
				t.Fatalf("seed %d: %s is in group %d (%v), or in %d (%v)", seed, room, a, err, b, err2)
			}
		}
	}
}

func TestRoomsSpread(t *testing.T) {
	s := founded(t, world())
	rooms := map[uint32]int{}
	const n = 12_000
	for i := range n {
		g, err := s.Locate("demo", fmt.Sprint("room", i))
		if err != nil {
			t.Fatal(err)
		}
		rooms[g]++
	}
	for g, count := range rooms {
		if share := float64(count) * 12 / n; len(rooms) != 12 || share < 0.8 || share > 1.2 {
			t.Errorf("group %d of %d has %.2f of its share", g, len(rooms), share)
		}
	}
}

func TestChangesSurviveTheirDocuments(t *testing.T) {
	app := App{Name: "a", Open: true, Homes: []string{"fra"}, Rules: []Rule{{Pattern: "x*", Homes: []string{"iad"}}}, Keys: []Key{{ID: "k", Secret: []byte{0, 255}}}}
	for _, c := range []Change{
		{Init: world()}, {PutApp: app}, {DeleteApp: "a"}, {PutException: Exception{App: "a", Room: "r", Group: 1}},
		{DeleteException: Exception{App: "a", Room: "r"}}, {PutNode: Node{ID: "n", Region: "fra", Addr: "host:1"}}, {PutNode: Node{ID: "n", Region: "fra", Addr: "host:1", Key: "a2V5", Signer: true}},
		{DeleteNode: "n"}, {PutRule: AppRule{App: "a", Rule: Rule{Pattern: "x*", Homes: []string{"fra"}}, First: true}},
		{DeleteRule: AppRule{App: "a", Rule: Rule{Pattern: "x*"}}},
		{PutRule: AppRule{App: "a", Rule: Rule{Pattern: "y*", Homes: []string{"fra"}, Class: Class{Survive: "none", Forbid: []string{"iad"}}}}}, {Settle: 3},
		{AddGroups: []Group{{ID: 7, Region: "fra", Voters: []string{"n"}}}}, {Reconcile: Pause},
		{PutGroup: GroupReplicas{7, Replicas{[]string{"n"}, []string{"m"}}}},
		{PutToken: Token{ID: "t", Region: "fra", Hash: []byte("hash"), Made: 1, Expires: 2}}, {DeleteToken: "t"}, {RevokeNode: "n"},
		{Join: Join{Token: "t", At: 1, Node: Node{ID: "n", Region: "fra", Addr: "host:1", Key: "a2V5"}}}, {PutGossip: GossipKeys{2, []string{"a2V5"}}},
	} {
		got, err := Decode(Encode(c))
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%s decodes to %+v, %v", Encode(c), got, err)
		}
	}
	for _, c := range []Change{{}, {DeleteApp: "a", PutApp: app}} {
		if _, err := Decode(Encode(c)); !errors.Is(err, &Refusal{Code: CodeBadRequest}) {
			t.Errorf("%s: %v", Encode(c), err)
		}
		if _, err := New(rank).Apply(c); !errors.Is(err, &Refusal{Code: CodeBadRequest}) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// These documents are in logs and on disks: if this test fails, the format has
// changed, and needs a new version.
func TestFormats(t *testing.T) {
	i := Init{
		Apps:       []App{{Name: "demo", Open: true, Homes: []string{"fra"}, Rules: []Rule{{Pattern: "x*", Homes: []string{"fra"}}}, Keys: []Key{{ID: "k", Secret: []byte("s")}}}},
		Nodes:      []Node{{ID: "n", Region: "fra", Addr: "host:1"}},
		Groups:     []Group{{ID: 1, Region: "fra", Voters: []string{"n"}}},
		Exceptions: []Exception{{App: "demo", Room: "r", Group: 1}},
	}
	const body = `"apps":[{"name":"demo","open":true,"homes":["fra"],"rules":[{"pattern":"x*","homes":["fra"]}],"keys":[{"id":"k","secret":"cw=="}]}],` +
		`"nodes":[{"id":"n","region":"fra","addr":"host:1"}],"groups":[{"id":1,"region":"fra","voters":["n"]}],"exceptions":[{"app":"demo","room":"r","group":1}]`
	if got, want := string(Encode(Change{Init: i})), `{"v":1,"op":"init","init":{`+body+`}}`; got != want {
		t.Errorf("a change is\n%s, was\n%s", got, want)
	}
	f := founded(t, i)
	got, err := f.Snapshot()
	if want := `{"v":1,"version":1,` + body + `}`; err != nil || string(got) != want {
		t.Errorf("a snapshot is\n%s, was\n%s", got, want)
	}
	for n, c := range []struct {
		change Change
		want   string
	}{
		{Change{PutRule: AppRule{"demo", Rule{Pattern: "y", Homes: []string{"fra"}}, true}}, `{"v":2,"op":"rule.put","rule":{"app":"demo","rule":{"pattern":"y","homes":["fra"]},"first":true}}`},
		{Change{AddGroups: []Group{{ID: 2, Region: "fra", Voters: []string{"n"}}}}, `{"v":2,"op":"groups.add","groups":[{"id":2,"region":"fra","voters":["n"]}]}`},
		{Change{PutGroup: GroupReplicas{1, Replicas{Voters: []string{"n"}}}}, `{"v":2,"op":"group.put","group":{"id":1,"voters":["n"]}}`},
		{Change{DeleteException: Exception{App: "demo", Room: "r"}}, `{"v":1,"op":"exception.delete","exception":{"app":"demo","room":"r"}}`},
	} {
		if got := string(Encode(c.change)); got != c.want {
			t.Errorf("change %d is\n%s, was\n%s", n, got, c.want)
		}
		var err error
		if f, err = f.Apply(c.change); err != nil {
			t.Fatal(err)
		}
	}
	got, err = f.Snapshot()
	if want := `{"v":2,"version":5,"apps":[{"name":"demo","open":true,"homes":["fra"],"rules":[{"pattern":"y","homes":["fra"]},{"pattern":"x*","homes":["fra"]}],` +
		`"keys":[{"id":"k","secret":"cw=="}]}],"nodes":[{"id":"n","region":"fra","addr":"host:1"}],` +
		`"groups":[{"id":1,"region":"fra","voters":["n"],"now":{"voters":["n"]}},{"id":2,"region":"fra","voters":["n"],"since":2}],"placement":3,` +
		`"earlier":[{"app":"demo","until":1,"homes":["fra"],"rules":[{"pattern":"x*","homes":["fra"]}]}],` +
		`"turns":[{"app":"demo","room":"r","group":1},{"app":"demo","room":"r","from":3}]}`; err != nil || string(got) != want {
		t.Errorf("a snapshot is\n%s, was\n%s", got, want)
	}
}

func TestRestoreRefuses(t *testing.T) {
	for text, code := range map[string]string{
		`{"v":5,"more":1}`:      CodeNewerFormat,
		`{"v":2,"more":1}`:      CodeBadRequest,
		`{"v":2}`:               CodeBadRequest, // nothing in it needs format 2
		`{"v":1,"placement":1}`: CodeBadRequest,
		`{"v":2,"placement":1,"earlier":[{"app":"a","until":2,"homes":["fra"]}]}`:                                                      CodeBadRequest,
		`{"v":2,"placement":2,"earlier":[{"app":"a","until":1,"homes":[]}]}`:                                                           CodeBadRequest,
		`{"v":2,"placement":2,"earlier":[{"app":"a","until":2,"homes":["x"]},{"app":"a","until":2,"homes":["x"]}]}`:                    CodeBadRequest,
		`{"v":2,"placement":1,"turns":[{"app":"a","room":"r","from":2}]}`:                                                              CodeBadRequest,
		`{"v":2,"placement":1,"turns":[{"app":"a","room":"r","group":1,"from":1}]}`:                                                    CodeNotFound,
		`{"v":2,"placement":1,"nodes":[{"id":"n","region":"a","addr":"x"}],"groups":[{"id":1,"region":"a","voters":["n"],"since":2}]}`: CodeBadRequest,
		`{"v":1,"more":1}`: CodeBadRequest,
		`{"version":1}`:    CodeBadRequest,
		`{"v":1`:           CodeBadRequest,
		``:                 CodeBadRequest,
		`{"v":1,"groups":[{"id":1,"region":"fra","voters":["n"]}]}`:              CodeNotFound,
		`{"v":1,"nodes":[{"id":"n","region":"a"},{"id":"n","region":"a"}]}`:      CodeConflict,
		`{"v":1,"nodes":[{"id":"n","region":"a/b","addr":"x"}]}`:                 CodeBadRequest,
		`{"v":1,"exceptions":[{"app":"a","room":"r","group":1}]}`:                CodeNotFound,
		`{"v":1,"groups":[{"id":1,"region":"fra","voters":[]}]}`:                 CodeTooMany,
		`{"v":1,"apps":[{"name":"a","homes":["fra"]}]}`:                          CodeNotFound,
		`{"v":1,"apps":[{"name":"a","homes":[]}]}`:                               CodeTooMany,
		`{"v":1,"nodes":[{"id":"","region":"a","addr":"x"}]}`:                    CodeBadRequest,
		`{"v":1,"nodes":[{"id":"a\u0000","region":"a","addr":"x"}]}`:             CodeBadRequest,
		`{"v":1,"version":-1}`:                                                   CodeBadRequest,
		`{"v":1,"version":1} {}`:                                                 CodeBadRequest,
		`[1]`:                                                                    CodeBadRequest,
		`{"v":1,"groups":[{"id":4294967296,"region":"fra","voters":["n"]}]}`:     CodeBadRequest,
		`{"v":1,"nodes":[{"id":"n","region":"a","addr":"` + long(129) + `"}]}`:   CodeBadRequest,
		`{"v":1,"nodes":[{"id":"n","region":"` + long(129) + `","addr":"a:1"}]}`: CodeBadRequest,
	} {
		if _, err := Restore([]byte(text), rank); !errors.Is(err, &Refusal{Code: code}) {
			t.Errorf("Restore(%s) = %v, want %s", text, err, code)
		}
	}
}

func long(n int) string { return string(bytes.Repeat([]byte("x"), n)) }

func TestEverythingIsBounded(t *testing.T) {
	homes := []string{"fra"}
	for name, c := range map[string]Change{
		"homes":  {PutApp: App{Name: "a", Homes: slices.Repeat(homes, maxHomes+1)}},
		"rules":  {PutApp: App{Name: "a", Homes: homes, Rules: slices.Repeat([]Rule{{Pattern: "x", Homes: homes}}, maxRules+1)}},
		"keys":   {PutApp: App{Name: "a", Homes: homes, Keys: make([]Key, maxKeys+1)}},
		"apps":   {PutApp: App{Name: "one more", Homes: homes}},
		"nodes":  {PutNode: Node{ID: "one more", Region: "fra", Addr: "a:1"}},
		"placed": {PutException: Exception{App: "app0", Room: "one more", Group: 1}},
	} {
		i := world()
		i.Apps = nil
		for n := range maxApps {
			i.Apps = append(i.Apps, App{Name: fmt.Sprint("app", n), Homes: homes})
		}
		if name == "homes" || name == "rules" || name == "keys" {
			i.Apps = i.Apps[:1]
		}
		for n := len(i.Nodes); n < maxNodes; n++ {
			i.Nodes = append(i.Nodes, Node{ID: fmt.Sprint("n", n), Region: "fra", Addr: "a:1"})
		}
		for n := range maxExceptions {
			i.Exceptions = append(i.Exceptions, Exception{App: "app0", Room: fmt.Sprint("room", n), Group: 1})
		}
		s := founded(t, i)
		if next, err := s.Apply(c); !errors.Is(err, &Refusal{Code: CodeTooMany}) || next != s {
			t.Errorf("%s: %v, want too_many", name, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(Encode(Change{Init: world()}))
	f.Add(Encode(Change{PutApp: App{Name: "a", Homes: []string{"fra"}}}))
	f.Add(Encode(Change{DeleteException: Exception{App: "a", Room: "r"}}))
	f.Add([]byte(`{"v":3}`))
	f.Add([]byte(`{"v":1,"op":"init","init":{"Apps":[]}}`))
	f.Add([]byte(`{"v":2,"op":"groups.add","groups":[]}`))
	f.Add([]byte(`{"v":2,"op":"group.put","group":{"id":1,"voters":["iad-1"],"learners":[]}}`))
	f.Add(Encode(Change{PutRule: AppRule{App: "demo", Rule: Rule{Pattern: "x*", Homes: []string{"sin"}}}}))
	f.Add(Encode(Change{AddGroups: []Group{{ID: 99, Region: "fra", Voters: []string{"fra-1"}}}}))
	f.Add(Encode(Change{PutGroup: GroupReplicas{1, Replicas{[]string{"iad-1"}, []string{"sin-1"}}}}))
	f.Add(Encode(Change{Settle: 1}))
	start := founded(f, world())
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Decode(b)
		if err != nil {
			if !errors.As(err, new(*Refusal)) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if again, err := Decode(Encode(c)); err != nil || !bytes.Equal(Encode(again), Encode(c)) {
			t.Fatalf("%+v becomes %+v, %v", c, again, err)
		}
		for _, s := range []*State{New(rank), start} {
			next, err := s.Apply(c)
			if err != nil && next != s {
				t.Fatal("a refused change has an effect")
			}
			if err := next.Check(); err != nil {
				t.Fatal(err)
			}
			group, err := next.Locate("demo", "room")
			if err != nil && !errors.As(err, new(*Refusal)) {
				t.Fatalf("untyped error %v", err)
			}
			if places, err2 := next.Places("demo", "room"); (err == nil) != (err2 == nil) || err == nil && places[0] != group {
				t.Fatalf("in group %d (%v), or in %v (%v)", group, err, places, err2)
			}
			restoreSame(t, next)
		}
	})
}

func BenchmarkLocate(b *testing.B) {
	s := founded(b, world())
	b.ReportAllocs()
	for b.Loop() {
		s.Locate("demo", "lobby")
	}
}

// The limit of earlier placements holds for rules, groups and exceptions, and
// settling makes room again.
func TestEarlierPlacementsAreBounded(t *testing.T) {
	change := map[string]func(n int) Change{
		"rules": func(n int) Change {
			return Change{PutRule: AppRule{App: "demo", Rule: Rule{Pattern: "x", Homes: []string{[]string{"fra", "iad", "sin"}[n%3]}}}}
		},
		"groups": func(n int) Change {
			return Change{AddGroups: []Group{{ID: uint32(100 + n), Region: "fra", Voters: []string{"fra-1"}}}}
		},
		"exceptions": func(n int) Change {
			return Change{PutException: Exception{App: "demo", Room: "r", Group: uint32(1 + n%2)}}
		},
	}
	for name, c := range change {
		s, refused := founded(t, world()), 0
		for n := range 3 * maxEarlier {
			next, err := s.Apply(c(n))
			if err == nil {
				s = next
				continue
			}
			refused++
			if !errors.Is(err, &Refusal{Code: CodeTooMany}) {
				t.Fatalf("%s %d: %v", name, n, err)
			}
			if s, err = s.Apply(Change{Settle: s.Placement()}); err != nil {
				t.Fatal(err)
			}
			if places, err := s.Places("demo", "x"); err != nil || len(places) != 1 {
				t.Errorf("%s: settled at %v, %v", name, places, err)
			}
		}
		if refused == 0 {
			t.Errorf("%s: %d changes and no end", name, 3*maxEarlier)
		}
	}
}

// Places are exactly where Locate put the room since the directory began.
func TestPlacesAreAllThatWere(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 3))
		s := founded(t, world())
		regions, rooms := []string{"fra", "iad", "sin"}, []string{"a", "b", "team/a", "~sin/a", "c"}
		were := map[string][]uint32{}
		for step := range 12 {
			home := regions[r.IntN(3)]
			c := []Change{
				{PutRule: AppRule{App: "demo", Rule: Rule{Pattern: []string{"team/*", "a", "*"}[r.IntN(3)], Homes: []string{home}}, First: r.IntN(2) == 0}},
				{DeleteRule: AppRule{App: "demo", Rule: Rule{Pattern: "a"}}},
				{AddGroups: []Group{{ID: uint32(100 + step), Region: home, Voters: []string{home + "-1"}}}},
				{PutException: Exception{App: "demo", Room: rooms[r.IntN(len(rooms))], Group: uint32(1 + r.IntN(12))}},
				{DeleteException: Exception{App: "demo", Room: rooms[r.IntN(len(rooms))]}},
				{PutApp: App{Name: "demo", Homes: []string{home, "fra"}}},
			}[r.IntN(6)]
			for _, room := range rooms {
				if g, err := s.Locate("demo", room); err != nil {
					t.Fatal(err)
				} else if !slices.Contains(were[room], g) {
					were[room] = append(were[room], g)
				}
			}
			if next, err := s.Apply(c); err == nil {
				s = next
			}
			restoreSame(t, s)
			for _, room := range rooms {
				places, err := s.Places("demo", room)
				if err != nil {
					t.Fatal(err)
				}
				want := slices.Clone(were[room])
				if !slices.Contains(want, places[0]) {
					want = append(want, places[0])
				}
				got := slices.Clone(places)
				slices.Sort(got)
				slices.Sort(want)
				if !slices.Equal(got, want) {
					t.Fatalf("seed %d step %d: %s may be in %v, was in %v", seed, step, room, got, want)
				}
			}
		}
	}
}
