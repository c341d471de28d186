package directory

import (
	"maps"
	"reflect"
	"slices"
)

// Where rooms may live changes: rules and homes of an app, groups of a region,
// exceptions. Each such change is a new placement, and the earlier ones are kept:
// a room that was made by one of them is still there.

// maxEarlier bounds the earlier placements of one app, of one region and of one
// room. Beyond it a change is refused until the earlier ones are settled.
const maxEarlier = 8

// Earlier is how an app's rooms were placed until a placement.
type Earlier struct {
	App   string   `json:"app"`
	Until uint64   `json:"until"` // the first placement for which it does not hold
	Homes []string `json:"homes"`
	Rules []Rule   `json:"rules,omitempty"`
}

func (e Earlier) like(a App) bool {
	return slices.Equal(e.Homes, a.Homes) && reflect.DeepEqual(e.Rules, a.Rules)
}

// turn is where an exception puts a room from a placement on; group 0 means that
// there is none any more.
type turn struct {
	from  uint64
	group uint32
}

// Placement counts the changes that may have moved the place of a room.
func (s *State) Placement() uint64 { return s.placement }

// retire notes how an app's rooms were placed until now, if that has changed.
func (s *State) retire(was App, is App) {
	if slices.Equal(was.Homes, is.Homes) && reflect.DeepEqual(was.Rules, is.Rules) {
		return
	}
	s.placement++
	list := slices.Clone(s.earlier[was.Name])
	if n := len(list); n > 0 && list[n-1].like(was) {
		list[n-1].Until = s.placement // it was deleted in between
	} else {
		list = append(list, Earlier{was.Name, s.placement, was.Homes, was.Rules})
	}
	s.earlier = maps.Clone(s.earlier)
	s.earlier[was.Name] = list
}

func (s *State) putRule(p AppRule) *Refusal {
	a, ok := s.apps[p.App]
	if !ok {
		return refuse(CodeNotFound, "there is no app %q", p.App)
	}
	for _, h := range p.Rule.Homes {
		if len(s.pools[pool{h, p.Rule.key()}].names) == 0 {
			if !p.Rule.isZero() {
				return noGroups(h, p.Rule.Class)
			}
			return refuse(CodeNotFound, "region %q, a home of app %q, has no groups", h, p.App)
		}
	}
	p.Rule.Class = p.Rule.bare()
	rules := slices.Clone(a.Rules)
	switch i := slices.IndexFunc(rules, func(r Rule) bool { return r.Pattern == p.Rule.Pattern }); {
	case i >= 0:
		rules[i] = p.Rule
	case p.First:
		rules = slices.Insert(rules, 0, p.Rule)
	default:
		rules = append(rules, p.Rule)
	}
	s.putRules(a, rules)
	return nil
}

func (s *State) deleteRule(p AppRule) *Refusal {
	a, ok := s.apps[p.App]
	i := slices.IndexFunc(a.Rules, func(r Rule) bool { return r.Pattern == p.Rule.Pattern })
	if !ok || i < 0 || len(p.Rule.Homes) > 0 || !p.Rule.isZero() || p.First {
		return refuse(CodeNotFound, "there is no rule %q of app %q", p.Rule.Pattern, p.App)
	}
	s.putRules(a, slices.Delete(slices.Clone(a.Rules), i, i+1))
	return nil
}

func (s *State) putRules(a App, rules []Rule) {
	was := a
	a.Rules = rules
	s.apps = maps.Clone(s.apps)
	s.putApp(a)
	s.retire(was, s.apps[a.Name])
}

func (s *State) addGroups(groups []Group) *Refusal {
	s.placement++
	s.groups = maps.Clone(s.groups)
	for _, g := range groups {
		if _, ok := s.groups[g.ID]; ok {
			return refuse(CodeConflict, "group %d is there already", g.ID)
		}
		if g.Since != 0 || !reflect.ValueOf(g.Now).IsZero() {
			return refuse(CodeBadRequest, "group %d is new, and has a past", g.ID)
		}
		g.Since, g.Class = s.placement, g.bare()
		s.groups[g.ID] = g
	}
	return nil
}

func (s *State) putGroup(p GroupReplicas) *Refusal {
	g, ok := s.groups[p.ID]
	if !ok && p.ID != 0 {
		return refuse(CodeNotFound, "there is no group %d", p.ID)
	}
	if r := checkVoters(p.ID, p.Voters); r != nil {
		return r
	}
	if len(p.Learners) == 0 {
		p.Learners = nil
	}
	if p.ID == 0 {
		s.root = p.Replicas
		return nil
	}
	g.Now = p.Replicas
	s.groups = maps.Clone(s.groups)
	s.groups[p.ID] = g
	return nil
}

// settle drops what is before a placement.
func (s *State) settle(before uint64) *Refusal {
	if before > s.placement {
		return refuse(CodeBadRequest, "placement %d is settled, and %d is the newest", before, s.placement)
	}
	earlier := map[string][]Earlier{}
	for app, list := range s.earlier {
		kept := slices.DeleteFunc(slices.Clone(list), func(e Earlier) bool { return e.Until <= before })
		if len(kept) > 0 {
			earlier[app] = kept
		}
	}
	s.earlier = earlier
	s.groups = maps.Clone(s.groups)
	for id, g := range s.groups {
		if g.Since <= before {
			g.Since = 0
			s.groups[id] = g
		}
	}
	exceptions := map[place][]turn{}
	for at, turns := range s.exceptions {
		first := 0 // the last that holds at the placement
		for i, t := range turns {
			if t.from <= before {
				first = i
			}
		}
		kept := slices.Clone(turns[first:])
		if kept[0].from <= before {
			kept[0].from = 0
		}
		if kept[0].from == 0 && kept[0].group == 0 {
			kept = kept[1:]
		}
		if len(kept) > 0 {
			exceptions[at] = kept
		}
	}
	s.exceptions = exceptions
	return nil
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
	if e.From != 0 {
		return refuse(CodeBadRequest, "the exception of room %q is new, and has a past", e.Room)
	}
	return s.turn(at, e.Group)
}

func (s *State) deleteException(e Exception) *Refusal {
	at := place{e.App, e.Room}
	if s.exception(at) == 0 || e.From != 0 {
		return refuse(CodeNotFound, "there is no exception for room %q of app %q", e.Room, e.App)
	}
	return s.turn(at, 0)
}

// turn gives a room another exception, or none.
func (s *State) turn(at place, group uint32) *Refusal {
	if s.exception(at) == group {
		return nil
	}
	s.placement++
	s.exceptions = maps.Clone(s.exceptions)
	s.exceptions[at] = append(slices.Clone(s.exceptions[at]), turn{s.placement, group})
	return first(s.checkCounts(), s.checkTurns(at))
}

// exception returns the group of the room's exception, 0 if it has none.
func (s *State) exception(at place) uint32 {
	turns := s.exceptions[at]
	if len(turns) == 0 {
		return 0
	}
	return turns[len(turns)-1].group
}

// exceptionAt returns that of a placement, and since when it holds.
func (s *State) exceptionAt(at place, placement uint64) (group uint32, from uint64) {
	for _, t := range s.exceptions[at] {
		if t.from <= placement {
			group, from = t.group, t.from
		}
	}
	return group, from
}

// appAt returns an app as it placed rooms at a placement, and since when.
func (s *State) appAt(a App, placement uint64) (App, uint64) {
	var from uint64
	for _, e := range s.earlier[a.Name] {
		if placement < e.Until {
			return App{Name: a.Name, Homes: e.Homes, Rules: e.Rules}, from
		}
		from = e.Until
	}
	return a, from
}
