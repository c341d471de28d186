package directory

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// The bounds of a directory.
const (
	maxApps       = 4096
	maxNodes      = 1024
	maxGroups     = 1024
	maxExceptions = 8192
	maxHomes      = 16
	maxRules      = 256
	maxKeys       = 16
	maxVoters     = 7
	maxLearners   = 64
	// nameBytes bounds a name, in bytes; roomBytes a room's id or pattern.
	nameBytes = 128
	roomBytes = 300
	// patternBytes bounds the pattern of a new rule: a room's id is not longer.
	patternBytes = 128
	// secretBytes bounds the secret of a key, in bytes.
	secretBytes = 256
)

// Check says what is wrong with s, nil if nothing is.
func (s *State) Check() error {
	if r := s.check(); r != nil {
		return r
	}
	return nil
}

// check returns the first thing wrong by the order of names, so that all nodes
// refuse a change in the same words.
func (s *State) check() *Refusal {
	if r := s.checkCounts(); r != nil {
		return r
	}
	for _, n := range sortedValues(s.nodes) {
		if r := first(checkName("node", n.ID, nameBytes), checkRegion(n.Region), checkName("address", n.Addr, nameBytes), checkKey(n)); r != nil {
			return r
		}
	}
	if len(s.root.Voters)+len(s.root.Learners) > 0 {
		if r := s.checkReplicas(0, s.root.Voters, s.root.Learners); r != nil {
			return r
		}
	}
	for _, g := range s.Groups() {
		if r := s.checkGroup(g); r != nil {
			return r
		}
	}
	keys := map[string]string{}
	for _, a := range sortedValues(s.apps) {
		if r := s.checkApp(a, keys); r != nil {
			return r
		}
	}
	return first(s.checkExceptions(), s.checkEarlier(), s.checkAdmission())
}

func (s *State) checkCounts() *Refusal {
	for _, c := range []struct {
		what   string
		n, max int
	}{
		{"apps", len(s.apps), maxApps}, {"nodes", len(s.nodes), maxNodes},
		{"groups", len(s.groups), maxGroups}, {"exceptions, also former ones,", len(s.exceptions), maxExceptions},
		{"apps with earlier rules", len(s.earlier), maxApps}, {"join tokens", len(s.tokens), maxTokens}, {"revoked nodes", len(s.revoked), maxRevoked},
	} {
		if c.n > c.max {
			return refuse(CodeTooMany, "%d %s, the limit is %d", c.n, c.what, c.max)
		}
	}
	return nil
}

func (s *State) checkGroup(g Group) *Refusal {
	if r := checkRegion(g.Region); r != nil {
		return r
	}
	if g.ID == 0 {
		return refuse(CodeBadRequest, "group 0 is the directory's own")
	}
	if r := checkClass(fmt.Sprintf("group %d", g.ID), g.Class, g.Region); r != nil {
		return r
	}
	if g.Since > s.placement {
		return refuse(CodeBadRequest, "group %d is of placement %d, and %d is the newest", g.ID, g.Since, s.placement)
	}
	if len(g.Now.Voters) == 0 {
		return s.checkReplicas(g.ID, g.Voters, g.Now.Learners)
	}
	// Of the first voters some may have left the mesh.
	return first(checkVoters(g.ID, g.Voters), s.checkReplicas(g.ID, g.Now.Voters, g.Now.Learners))
}

func checkVoters(group uint32, voters []string) *Refusal {
	if len(voters) == 0 || len(voters) > maxVoters {
		return refuse(CodeTooMany, "group %d has %d voters, not 1 to %d", group, len(voters), maxVoters)
	}
	return nil
}

func (s *State) checkReplicas(group uint32, voters, learners []string) *Refusal {
	if r := checkVoters(group, voters); r != nil {
		return r
	}
	if len(learners) > maxLearners {
		return refuse(CodeTooMany, "group %d has %d learners, the limit is %d", group, len(learners), maxLearners)
	}
	seen := map[string]bool{}
	for i, v := range slices.Concat(voters, learners) {
		does := "vote"
		if i >= len(voters) {
			does = "learn"
		}
		if _, ok := s.nodes[v]; !ok {
			return refuse(CodeNotFound, "there is no node %q to %s in group %d", v, does, group)
		}
		if seen[v] {
			return refuse(CodeConflict, "node %q %ss twice in group %d", v, does, group)
		}
		seen[v] = true
	}
	return nil
}

// checkEarlier checks what is kept of earlier placements.
func (s *State) checkEarlier() *Refusal {
	for _, list := range sortedValues(s.earlier) {
		if len(list) > maxEarlier {
			return refuse(CodeTooMany, "app %q has %d earlier placements, the limit is %d: they have to be settled first (edge-node groups settle)", list[0].App, len(list), maxEarlier)
		}
		until := uint64(0)
		for _, e := range list {
			rules := append([]Rule{{Pattern: "*", Homes: e.Homes}}, e.Rules...)
			if e.Until <= until || e.Until > s.placement || len(e.Rules) > maxRules || slices.ContainsFunc(rules, func(r Rule) bool { return len(r.Homes) == 0 }) {
				return refuse(CodeBadRequest, "earlier placement %d of app %q makes no sense", e.Until, e.App)
			}
			until = e.Until
		}
	}
	for _, code := range slices.Sorted(maps.Keys(s.regions)) {
		additions := map[uint64]bool{}
		for _, g := range s.regions[code].groups {
			additions[g.Since] = g.Since > 0
		}
		delete(additions, 0)
		if len(additions) > maxEarlier {
			return refuse(CodeTooMany, "region %q got groups %d times, the limit is %d: they have to be settled first (edge-node groups settle)", code, len(additions), maxEarlier)
		}
	}
	return nil
}

// checkApp also notes the app's keys, whose ids are unique.
func (s *State) checkApp(a App, keys map[string]string) *Refusal {
	if r := first(checkName("app", a.Name, nameBytes), s.checkHomes(a.Name, a.Homes)); r != nil {
		return r
	}
	if len(a.Rules) > maxRules {
		return refuse(CodeTooMany, "app %q has %d rules, the limit is %d", a.Name, len(a.Rules), maxRules)
	}
	for _, rule := range a.Rules {
		what := fmt.Sprintf("rule %q of app %q", rule.Pattern, a.Name)
		if r := first(checkName("pattern", rule.Pattern, roomBytes), s.checkHomes(a.Name, rule.Homes), checkClass(what, rule.Class, rule.Homes...)); r != nil {
			return r
		}
		for _, h := range rule.Homes {
			if !rule.isZero() && len(s.pools[pool{h, rule.key()}].names) == 0 {
				return noGroups(h, rule.Class)
			}
		}
		if i := strings.IndexByte(rule.Pattern, '*'); i >= 0 && i != len(rule.Pattern)-1 {
			return refuse(CodeBadRequest, "pattern %q of app %q has a * before its end", rule.Pattern, a.Name)
		}
	}
	if len(a.Keys) > maxKeys {
		return refuse(CodeTooMany, "app %q has %d keys, the limit is %d", a.Name, len(a.Keys), maxKeys)
	}
	for _, k := range a.Keys {
		if r := checkName("key", k.ID, nameBytes); r != nil {
			return r
		}
		if other, ok := keys[k.ID]; ok {
			return refuse(CodeConflict, "key %q is there twice, of apps %q and %q", k.ID, other, a.Name)
		}
		if len(k.Secret) == 0 || len(k.Secret) > secretBytes {
			return refuse(CodeBadRequest, "key %q has a secret of %d bytes, not 1 to %d", k.ID, len(k.Secret), secretBytes)
		}
		keys[k.ID] = a.Name
	}
	return nil
}

func (s *State) checkHomes(app string, homes []string) *Refusal {
	if len(homes) == 0 || len(homes) > maxHomes {
		return refuse(CodeTooMany, "app %q has %d homes, not 1 to %d", app, len(homes), maxHomes)
	}
	for _, h := range homes {
		if _, ok := s.regions[h]; !ok {
			return refuse(CodeNotFound, "region %q, a home of app %q, is not known", h, app)
		}
	}
	return nil
}

func (s *State) checkExceptions() *Refusal {
	var worst *Refusal // the first by text: the order of a map is by chance
	for at, turns := range s.exceptions {
		r := s.checkTurns(at)
		for _, t := range turns {
			if r == nil && t.group != 0 {
				r = s.checkException(at, t.group)
			}
		}
		if r != nil && (worst == nil || r.Message < worst.Message) {
			worst = r
		}
	}
	return worst
}

func (s *State) checkTurns(at place) *Refusal {
	turns := s.exceptions[at]
	if len(turns) > maxEarlier+1 {
		return refuse(CodeTooMany, "room %q of app %q has had %d exceptions, the limit is %d: they have to be settled first (edge-node groups settle)", at.room, at.app, len(turns)-1, maxEarlier)
	}
	for i, t := range turns {
		if t.from > s.placement || i > 0 && t.from <= turns[i-1].from {
			return refuse(CodeBadRequest, "the exceptions of room %q of app %q are in no order", at.room, at.app)
		}
	}
	return nil
}

func (s *State) checkException(at place, group uint32) *Refusal {
	if r := first(checkName("app", at.app, nameBytes), checkName("room", at.room, roomBytes)); r != nil {
		return r
	}
	if _, ok := s.groups[group]; !ok {
		return refuse(CodeNotFound, "there is no group %d for room %q of app %q", group, at.room, at.app)
	}
	return nil
}

// checkRegion: a region's code is part of room ids, between ~ and /.
func checkRegion(code string) *Refusal {
	if strings.Contains(code, "/") {
		return refuse(CodeBadRequest, "region %q has a slash", code)
	}
	return checkName("region", code, nameBytes)
}

func checkName(what, name string, max int) *Refusal {
	switch {
	case name == "":
		return refuse(CodeBadRequest, "%s is empty", what)
	case len(name) > max:
		return refuse(CodeBadRequest, "%s has %d bytes, the limit is %d", what, len(name), max)
	case !utf8.ValidString(name):
		return refuse(CodeBadRequest, "%s is not UTF-8", what)
	}
	for _, r := range name {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return refuse(CodeBadRequest, "%s has the control character %U", what, r)
		}
	}
	return nil
}

func first(refusals ...*Refusal) *Refusal {
	for _, r := range refusals {
		if r != nil {
			return r
		}
	}
	return nil
}
