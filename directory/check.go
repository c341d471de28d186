package directory

import (
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
	// nameBytes bounds a name, in bytes; roomBytes a room's id or pattern.
	nameBytes = 128
	roomBytes = 300
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
		if r := first(checkName("node", n.ID, nameBytes), checkRegion(n.Region), checkName("address", n.Addr, nameBytes)); r != nil {
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
	return s.checkExceptions()
}

func (s *State) checkCounts() *Refusal {
	for _, c := range []struct {
		what   string
		n, max int
	}{
		{"apps", len(s.apps), maxApps}, {"nodes", len(s.nodes), maxNodes},
		{"groups", len(s.groups), maxGroups}, {"exceptions", len(s.exceptions), maxExceptions},
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
	if len(g.Voters) == 0 || len(g.Voters) > maxVoters {
		return refuse(CodeTooMany, "group %d has %d voters, not 1 to %d", g.ID, len(g.Voters), maxVoters)
	}
	seen := map[string]bool{}
	for _, v := range g.Voters {
		if _, ok := s.nodes[v]; !ok {
			return refuse(CodeNotFound, "there is no node %q to vote in group %d", v, g.ID)
		}
		if seen[v] {
			return refuse(CodeConflict, "node %q votes twice in group %d", v, g.ID)
		}
		seen[v] = true
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
		if r := first(checkName("pattern", rule.Pattern, roomBytes), s.checkHomes(a.Name, rule.Homes)); r != nil {
			return r
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
	for at, group := range s.exceptions {
		if r := s.checkException(at, group); r != nil && (worst == nil || r.Message < worst.Message) {
			worst = r
		}
	}
	return worst
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
