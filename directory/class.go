package directory

import (
	"fmt"
	"slices"
	"strings"
)

// Class is what an operator wants of the replicas of a group, and which groups a
// rule wants rooms in: those of just this class. The zero Class is that of the
// mesh, which its configuration says.
type Class struct {
	// Survive is what the rooms outlive: node, region or none; "" = what the mesh
	// does.
	Survive string `json:"survive,omitempty"`
	// Allow are the regions whose disks may hold the rooms, none = all; Forbid are
	// those that must not. Both are sorted.
	Allow  []string `json:"allow,omitempty"`
	Forbid []string `json:"forbid,omitempty"`
}

// survives are the values of Class.Survive.
var survives = []string{"", "node", "region", "none"}

func (c Class) isZero() bool { return c.Survive == "" && len(c.Allow) == 0 && len(c.Forbid) == 0 }

// key tells classes apart. Regions have no control characters.
func (c Class) key() string {
	return c.Survive + "\x00" + strings.Join(c.Allow, "\x01") + "\x00" + strings.Join(c.Forbid, "\x01")
}

// flags are those of edge-node that say c.
func (c Class) flags() (text string) {
	for _, f := range []struct{ name, value string }{{"survive", c.Survive}, {"allow", strings.Join(c.Allow, ",")}, {"forbid", strings.Join(c.Forbid, ",")}} {
		if f.value != "" {
			text += fmt.Sprintf(" --%s %s", f.name, f.value)
		}
	}
	return text
}

// bare makes empty lists nil, as they are after a snapshot.
func (c Class) bare() Class {
	if len(c.Allow) == 0 {
		c.Allow = nil
	}
	if len(c.Forbid) == 0 {
		c.Forbid = nil
	}
	return c
}

// checkClass checks the class of something that has homes.
func checkClass(what string, c Class, homes ...string) *Refusal {
	if !slices.Contains(survives, c.Survive) {
		return refuse(CodeBadRequest, "%s is to survive %q, not node, region or none", what, c.Survive)
	}
	for _, list := range [][]string{c.Allow, c.Forbid} {
		if len(list) > maxHomes {
			return refuse(CodeTooMany, "%s names %d regions, the limit is %d", what, len(list), maxHomes)
		}
		for i, r := range list {
			if i > 0 && list[i-1] >= r {
				return refuse(CodeBadRequest, "%s names regions in no order, or twice: %v", what, list)
			}
			if r := checkRegion(r); r != nil {
				return r
			}
		}
	}
	for _, h := range homes {
		if slices.Contains(c.Forbid, h) || len(c.Allow) > 0 && !slices.Contains(c.Allow, h) {
			return refuse(CodeConflict, "%s has the home %q, whose disks may not hold it", what, h)
		}
	}
	return nil
}

// pool names the groups among which a room's group is chosen.
type pool struct{ region, class string }

// noGroups says that a pool has none.
func noGroups(region string, c Class) *Refusal {
	if c.isZero() {
		return refuse(CodeNotFound, "region %q has no groups", region)
	}
	return refuse(CodeNotFound, "region %q has no groups of this policy: edge-node groups add --region %s%s", region, region, c.flags())
}

// classed reports whether groups or rules need the format that knows classes.
func classed(groups []Group, rules ...[]Rule) bool {
	return slices.ContainsFunc(groups, func(g Group) bool { return !g.isZero() }) ||
		slices.ContainsFunc(rules, func(list []Rule) bool { return slices.ContainsFunc(list, func(r Rule) bool { return !r.isZero() }) })
}

// rulesOf returns the rules of all apps.
func rulesOf(apps []App) (rules [][]Rule) {
	for _, a := range apps {
		rules = append(rules, a.Rules)
	}
	return rules
}
