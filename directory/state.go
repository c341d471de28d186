package directory

import (
	"maps"
	"reflect"
	"slices"
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
	exceptions map[place][]turn     // the last one holds
	placement  uint64               // see Placement
	paused     bool                 // see Paused
	root       Replicas             // see Root
	earlier    map[string][]Earlier // of apps, also of those that are gone; the last one is the newest
	tokens     map[string]Token     // by which nodes come in
	revoked    map[string]bool      // nodes
	gossip     GossipKeys

	// Of the above, for lookups.
	keys    map[string]Key
	regions map[string]region
	pools   map[pool]region
}

// place is a room as exceptions name it.
type place struct{ app, room string }

// New returns the directory of a mesh that is not founded yet.
func New(rank Rank) *State {
	s := &State{
		rank: rank, apps: map[string]App{}, nodes: map[string]Node{}, groups: map[uint32]Group{},
		exceptions: map[place][]turn{}, earlier: map[string][]Earlier{},
		tokens: map[string]Token{}, revoked: map[string]bool{},
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

// Apps returns all apps by name.
func (s *State) Apps() []App { return sortedValues(s.apps) }

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

// Nodes returns all nodes by id.
func (s *State) Nodes() []Node { return sortedValues(s.nodes) }

// Root returns the replicas of group 0, which holds the directory itself, as last
// heard of; none as long as they are the first ones.
func (s *State) Root() Replicas { return s.root }

// Paused says that replicas stay where they are, whatever policies want.
func (s *State) Paused() bool { return s.paused }

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
	var r *Refusal
	switch c.op() {
	case opInit:
		if s.version > 0 {
			return nil
		}
		*s = *New(s.rank)
		r = s.found(c.Init)
	case opAppPut:
		was, ok := s.apps[c.PutApp.Name]
		s.apps = maps.Clone(s.apps)
		s.putApp(c.PutApp)
		if ok {
			s.retire(was, s.apps[c.PutApp.Name])
		}
	case opAppDelete:
		r = s.deleteApp(c.DeleteApp)
	case opNodePut:
		s.nodes = maps.Clone(s.nodes)
		s.nodes[c.PutNode.ID] = c.PutNode
	case opNodeDelete:
		r = s.deleteNode(c.DeleteNode)
	case opExceptionPut:
		return s.putException(c.PutException)
	case opExceptionDelete:
		return s.deleteException(c.DeleteException)
	case opRulePut:
		r = s.putRule(c.PutRule)
	case opRuleDelete:
		r = s.deleteRule(c.DeleteRule)
	case opGroupsAdd:
		r = s.addGroups(c.AddGroups)
	case opGroupPut:
		r = s.putGroup(c.PutGroup)
	case opSettle:
		r = s.settle(c.Settle)
	case opReconcile:
		if c.Reconcile != Pause && c.Reconcile != Resume {
			return refuse(CodeBadRequest, "reconcile is %q, not %s or %s", c.Reconcile, Pause, Resume)
		}
		s.paused = c.Reconcile == Pause
	case opTokenPut:
		r = s.putToken(c.PutToken)
	case opTokenDelete:
		r = s.deleteToken(c.DeleteToken)
	case opJoin:
		r = s.join(c.Join)
	case opNodeRevoke:
		r = s.revoke(c.RevokeNode)
	case opNodeLeave:
		r = s.leave(c.LeaveNode, true)
	case opNodeStay:
		r = s.leave(c.StayNode, false)
	case opGossipPut:
		r = s.putGossip(c.PutGossip)
	default:
		r = refuse(CodeBadRequest, "a change must say exactly one thing")
	}
	if r != nil {
		return r
	}
	s.index()
	return s.check()
}

func (s *State) deleteApp(name string) *Refusal {
	was, ok := s.apps[name]
	if !ok {
		return refuse(CodeNotFound, "there is no app %q", name)
	}
	s.apps = maps.Clone(s.apps)
	delete(s.apps, name)
	s.retire(was, App{})
	return nil
}

func (s *State) deleteNode(id string) *Refusal {
	if _, ok := s.nodes[id]; !ok {
		return refuse(CodeNotFound, "there is no node %q", id)
	}
	for _, g := range s.Groups() {
		if r := g.Replicas(); slices.Contains(r.Voters, id) || slices.Contains(r.Learners, id) {
			return refuse(CodeConflict, "node %q holds a replica of group %d", id, g.ID)
		}
	}
	if slices.Contains(s.root.Voters, id) || slices.Contains(s.root.Learners, id) {
		return refuse(CodeConflict, "node %q holds a replica of group 0", id)
	}
	s.nodes = maps.Clone(s.nodes)
	delete(s.nodes, id)
	return nil
}

func (s *State) same(t *State) bool {
	return s.placement == t.placement && s.paused == t.paused && reflect.DeepEqual(s.apps, t.apps) && maps.Equal(s.nodes, t.nodes) && reflect.DeepEqual(s.root, t.root) &&
		reflect.DeepEqual(s.groups, t.groups) && reflect.DeepEqual(s.exceptions, t.exceptions) && reflect.DeepEqual(s.earlier, t.earlier) &&
		reflect.DeepEqual(s.tokens, t.tokens) && maps.Equal(s.revoked, t.revoked) && reflect.DeepEqual(s.gossip, t.gossip)
}

// putApp makes empty lists nil, as they are after a snapshot.
func (s *State) putApp(a App) {
	if len(a.Rules) == 0 {
		a.Rules = nil
	}
	if len(a.Keys) == 0 {
		a.Keys = nil
	}
	for i, r := range a.Rules {
		a.Rules[i].Class = r.bare()
	}
	s.apps[a.Name] = a
}

// found makes the first directory, which has no past.
func (s *State) found(i Init) *Refusal {
	for _, g := range i.Groups {
		if g.Since != 0 || !reflect.ValueOf(g.Now).IsZero() {
			return refuse(CodeBadRequest, "group %d is new, and has a past", g.ID)
		}
	}
	for _, e := range i.Exceptions {
		if e.From != 0 {
			return refuse(CodeBadRequest, "the exception of room %q is new, and has a past", e.Room)
		}
	}
	return s.fill(i)
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
		g.Class = g.bare()
		s.groups[g.ID] = g
	}
	for _, e := range i.Exceptions {
		s.exceptions[place{e.App, e.Room}] = []turn{{e.From, e.Group}}
	}
	if len(s.apps) != len(i.Apps) || len(s.nodes) != len(i.Nodes) || len(s.groups) != len(i.Groups) || len(s.exceptions) != len(i.Exceptions) {
		return refuse(CodeConflict, "an app, node, group or exception is there twice")
	}
	return nil
}

// index makes the tables for lookups anew.
func (s *State) index() {
	s.keys, s.regions, s.pools = map[string]Key{}, map[string]region{}, map[pool]region{}
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
		in := pool{g.Region, g.key()}
		s.regions[g.Region], s.pools[in] = s.regions[g.Region].with(g), s.pools[in].with(g)
	}
}

// with returns r with another group.
func (r region) with(g Group) region {
	if r.groups == nil {
		r.groups = map[string]Group{}
	}
	name := groupName(g.ID)
	r.names = append(r.names, name)
	r.groups[name] = g
	return r
}
