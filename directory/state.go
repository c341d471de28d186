package directory

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Rank orders choices for a key. It must be the same in every release.
type Rank func(key string, choices []string) []string

// State is a directory. It never changes: share it freely, and do not write
// to what its methods return.
type State struct {
	rank       Rank
	version    uint64
	apps       map[string]App
	nodes      map[string]Node
	groups     map[uint32]Group
	exceptions map[place]uint32

	// Of the above, for lookups.
	keys    map[string]Key
	regions map[string]region
}

// place is a room as exceptions name it.
type place struct{ app, room string }

// region is what a region has: the names by which its groups are ranked.
type region struct {
	names []string
	ids   map[string]uint32
}

// New returns the directory of a mesh that is not founded yet.
func New(rank Rank) *State {
	s := &State{
		rank: rank, apps: map[string]App{}, nodes: map[string]Node{}, groups: map[uint32]Group{},
		exceptions: map[place]uint32{},
	}
	s.index()
	return s
}

// Version counts the changes that had an effect; 0 is the empty directory.
func (s *State) Version() uint64 { return s.version }

// App returns an app by its name.
func (s *State) App(name string) (App, bool) {
	a, ok := s.apps[name]
	return a, ok
}

// Key returns a key by its id, with the app whose it is.
func (s *State) Key(id string) (Key, bool) {
	k, ok := s.keys[id]
	return k, ok
}

// Group returns a group by its id.
func (s *State) Group(id uint32) (Group, bool) {
	g, ok := s.groups[id]
	return g, ok
}

// Groups returns all groups by id.
func (s *State) Groups() []Group {
	return slices.SortedFunc(maps.Values(s.groups), func(a, b Group) int { return int(a.ID) - int(b.ID) })
}

// Apply returns the directory after a change: s itself if the change changes
// nothing, s and a *Refusal if it is not allowed. c belongs to the State then.
func (s *State) Apply(c Change) (*State, error) {
	next := *s
	if r := next.apply(c); r != nil {
		return s, r
	}
	if next.same(s) {
		return s, nil
	}
	next.version++
	return &next, nil
}

// apply carries c out on a copy, whose maps are still shared.
func (s *State) apply(c Change) *Refusal {
	switch c.op() {
	case opInit:
		if s.version > 0 {
			return nil
		}
		s.apps, s.nodes = map[string]App{}, map[string]Node{}
		s.groups, s.exceptions = map[uint32]Group{}, map[place]uint32{}
		if r := s.fill(c.Init); r != nil {
			return r
		}
	case opAppPut:
		s.apps = maps.Clone(s.apps)
		s.putApp(c.PutApp)
	case opAppDelete:
		if _, ok := s.apps[c.DeleteApp]; !ok {
			return refuse(CodeNotFound, "there is no app %q", c.DeleteApp)
		}
		s.apps = maps.Clone(s.apps)
		delete(s.apps, c.DeleteApp)
	case opNodePut:
		s.nodes = maps.Clone(s.nodes)
		s.nodes[c.PutNode.ID] = c.PutNode
	case opExceptionPut:
		return s.putException(c.PutException)
	case opExceptionDelete:
		return s.deleteException(c.DeleteException)
	default:
		return refuse(CodeBadRequest, "a change must say exactly one thing")
	}
	s.index()
	return s.check()
}

// Exceptions come and go more often than all else: only they are looked at.

func (s *State) putException(e Exception) *Refusal {
	if _, ok := s.apps[e.App]; !ok {
		return refuse(CodeNotFound, "there is no app %q", e.App)
	}
	at := place{e.App, e.Room}
	if r := s.checkException(at, e.Group); r != nil {
		return r
	}
	s.exceptions = maps.Clone(s.exceptions)
	s.exceptions[at] = e.Group
	return s.checkCounts()
}

func (s *State) deleteException(e Exception) *Refusal {
	at := place{e.App, e.Room}
	if _, ok := s.exceptions[at]; !ok {
		return refuse(CodeNotFound, "there is no exception for room %q of app %q", e.Room, e.App)
	}
	s.exceptions = maps.Clone(s.exceptions)
	delete(s.exceptions, at)
	return nil
}

func (s *State) same(t *State) bool {
	return reflect.DeepEqual(s.apps, t.apps) && maps.Equal(s.nodes, t.nodes) &&
		reflect.DeepEqual(s.groups, t.groups) && maps.Equal(s.exceptions, t.exceptions)
}

// putApp makes empty lists nil, as they are after a snapshot.
func (s *State) putApp(a App) {
	if len(a.Rules) == 0 {
		a.Rules = nil
	}
	if len(a.Keys) == 0 {
		a.Keys = nil
	}
	s.apps[a.Name] = a
}

// fill puts all of a first directory, or of a snapshot, into an empty state.
func (s *State) fill(i Init) *Refusal {
	for _, a := range i.Apps {
		s.putApp(a)
	}
	for _, n := range i.Nodes {
		s.nodes[n.ID] = n
	}
	for _, g := range i.Groups {
		s.groups[g.ID] = g
	}
	for _, e := range i.Exceptions {
		s.exceptions[place{e.App, e.Room}] = e.Group
	}
	if len(s.apps) != len(i.Apps) || len(s.nodes) != len(i.Nodes) || len(s.groups) != len(i.Groups) || len(s.exceptions) != len(i.Exceptions) {
		return refuse(CodeConflict, "an app, node, group or exception is there twice")
	}
	return nil
}

// index makes the tables for lookups anew.
func (s *State) index() {
	s.keys, s.regions = map[string]Key{}, map[string]region{}
	for _, a := range s.apps {
		for _, k := range a.Keys {
			k.App = a.Name
			s.keys[k.ID] = k
		}
	}
	for _, n := range s.nodes {
		s.regions[n.Region] = region{}
	}
	for _, g := range s.Groups() {
		r := s.regions[g.Region]
		if r.ids == nil {
			r.ids = map[string]uint32{}
		}
		name := groupName(g.ID)
		r.names = append(r.names, name)
		r.ids[name] = g.ID
		s.regions[g.Region] = r
	}
}

// snapshot is the JSON form of a State.
type snapshot struct {
	V       int    `json:"v"`
	Version uint64 `json:"version"`
	Init
}

// Snapshot returns s as a versioned JSON document for Restore. Equal states
// have equal snapshots. It holds the secrets of keys.
func (s *State) Snapshot() ([]byte, error) {
	d := snapshot{V: documentVersion, Version: s.version, Init: Init{Groups: s.Groups()}}
	for _, name := range slices.Sorted(maps.Keys(s.apps)) {
		d.Apps = append(d.Apps, s.apps[name])
	}
	for _, id := range slices.Sorted(maps.Keys(s.nodes)) {
		d.Nodes = append(d.Nodes, s.nodes[id])
	}
	for at, group := range s.exceptions {
		d.Exceptions = append(d.Exceptions, Exception{at.app, at.room, group})
	}
	slices.SortFunc(d.Exceptions, func(a, b Exception) int {
		if a.App != b.App {
			return strings.Compare(a.App, b.App)
		}
		return strings.Compare(a.Room, b.Room)
	})
	return json.Marshal(d)
}

// Restore returns the State of a snapshot. The error is a *Refusal, newer_format
// if a later release made the snapshot.
func Restore(b []byte, rank Rank) (*State, error) {
	var d snapshot
	if r := decode(b, &d); r != nil {
		return nil, r
	}
	s := New(rank)
	if r := s.fill(d.Init); r != nil {
		return nil, r
	}
	s.version = d.Version
	s.index()
	if r := s.check(); r != nil {
		return nil, r
	}
	return s, nil
}
