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

// Locate returns the group in which a room lives, whether it exists or not:
// what an exception says; else a group of the region that the id itself names,
// as in ~fra/standup; else of the homes that the app's first matching rule
// names; else of the app's homes. The error is a *Refusal with code not_found:
// no such app, no such region, no group in the region.
func (s *State) Locate(app, room string) (group uint32, err error) {
	if app == SystemApp && room == SystemRoom {
		return 0, nil
	}
	a, ok := s.apps[app]
	if !ok {
		return 0, refuse(CodeNotFound, "there is no app %q", app)
	}
	if group, ok := s.exceptions[place{app, room}]; ok {
		return group, nil
	}
	key := app + "\x00" + room
	home, ok := namedRegion(room)
	if !ok {
		home = s.rank(key, a.homes(room))[0]
	}
	r, ok := s.regions[home]
	if !ok {
		return 0, refuse(CodeNotFound, "there is no region %q", home)
	}
	if len(r.names) == 0 {
		return 0, refuse(CodeNotFound, "region %q has no groups", home)
	}
	return r.ids[s.rank(key, r.names)[0]], nil
}

// homes returns the regions that a room of a may live in.
func (a App) homes(room string) []string {
	for _, r := range a.Rules {
		if begin, ok := strings.CutSuffix(r.Pattern, "*"); room == r.Pattern || ok && strings.HasPrefix(room, begin) {
			return r.Homes
		}
	}
	return a.Homes
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
