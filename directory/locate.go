package directory

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// SystemApp is the app of the mesh itself, whose tokens operators carry. Its
// room SystemRoom is the directory's log; that lives in group 0, which holds no
// other.
const (
	SystemApp  = "starling"
	SystemRoom = "directory"
)

// Locate returns the group in which a room is made, if it does not exist: what
// an exception says; else a group of the region that the id itself names, as in
// ~fra/standup; else of the homes that the app's first matching rule names; else
// of the app's homes. Where a rule matches it is a group of just its class, else
// one of the mesh's class; so it is where an id names a region without groups of
// the rule's class. The error is a *Refusal with code not_found: no such app,
// no such region, no group in the region.
func (s *State) Locate(app, room string) (group uint32, err error) {
	group, _, r := s.locateAt(app, room, s.placement)
	if r != nil {
		return 0, r
	}
	return group, nil
}

// Places returns the groups in which a room may live, each once: the first one
// is that of Locate, the others are those of earlier placements, the newest
// first. A room that exists is in the first one, or in one of the others, or
// the first one knows where it is. The error is that of Locate.
func (s *State) Places(app, room string) ([]uint32, error) {
	group, from, r := s.locateAt(app, room, s.placement)
	if r != nil {
		return nil, r
	}
	places := []uint32{group}
	for from > 0 {
		if group, from, r = s.locateAt(app, room, from-1); r == nil && !slices.Contains(places, group) {
			places = append(places, group)
		}
	}
	return places, nil
}

// locateAt is Locate by the rules of a placement. They said the same since from.
func (s *State) locateAt(app, room string, placement uint64) (group uint32, from uint64, r *Refusal) {
	if app == SystemApp && room == SystemRoom {
		return 0, 0, nil
	}
	a, ok := s.apps[app]
	if !ok {
		return 0, 0, refuse(CodeNotFound, "there is no app %q", app)
	}
	group, from = s.exceptionAt(place{app, room}, placement)
	if group != 0 {
		return group, from, nil
	}
	key := app + "\x00" + room
	was, since := s.appAt(a, placement)
	from = max(from, since) // also of a room that names its region: a rule may name its class
	homes, class := was.homes(room)
	home, ok := namedRegion(room)
	if !ok {
		home = s.rank(key, homes)[0]
	}
	if _, ok := s.regions[home]; !ok {
		return 0, from, refuse(CodeNotFound, "there is no region %q", home)
	}
	reg := s.pools[pool{home, class.key()}]
	names, since := reg.at(placement)
	from = max(from, since)
	if len(names) == 0 && ok { // a rule cannot take the region's rooms away
		reg, class = s.pools[pool{home, Class{}.key()}], Class{}
		names, since = reg.at(placement)
		from = max(from, since)
	}
	if len(names) == 0 {
		return 0, from, noGroups(home, class)
	}
	return reg.groups[s.rank(key, names)[0]].ID, from, nil
}

// region is what a region has, or what of it is of one class.
type region struct {
	names  []string // by which its groups are ranked
	groups map[string]Group
}

// at returns the names of the groups of a placement, and since when those were
// all.
func (r region) at(placement uint64) (names []string, from uint64) {
	names = r.names
	for i, name := range r.names {
		since := r.groups[name].Since
		switch {
		case since <= placement:
			from = max(from, since)
			if len(names) < len(r.names) {
				names = append(names, name)
			}
		case len(names) == len(r.names):
			names = slices.Clone(r.names[:i])
		}
	}
	return names, from
}

// homes returns the regions that a room of a may live in, and the class of its
// group.
func (a App) homes(room string) ([]string, Class) {
	for _, r := range a.Rules {
		if begin, ok := strings.CutSuffix(r.Pattern, "*"); room == r.Pattern || ok && strings.HasPrefix(room, begin) {
			return r.Homes, r.Class
		}
	}
	return a.Homes, Class{}
}

// namedRegion returns REGION of a room ~REGION/….
func namedRegion(room string) (string, bool) {
	rest, ok := strings.CutPrefix(room, "~")
	if !ok {
		return "", false
	}
	region, _, ok := strings.Cut(rest, "/")
	return region, ok
}

// groupName is what groups are ranked by: it never changes.
func groupName(id uint32) string { return strconv.FormatUint(uint64(id), 10) }

func sortedValues[V any](m map[string]V) []V {
	values := make([]V, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		values = append(values, m[k])
	}
	return values
}
