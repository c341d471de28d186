package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/starling-im/starling"
)

// changePlaces changes where rooms are made while the mesh runs; what was said in
// them before is still there.
func changePlaces(t *testing.T, home string) {
	said := output(t, home, "", "export", "lobby", "--json")
	output(t, home, "", "apps", "rules", "put", devApp, "*", "iad")
	output(t, home, "", "apps", "rules", "put", devApp, "team/*", "sin,fra", "--first")
	if got := output(t, home, "", "apps", "rules", "list", devApp); !strings.Contains(got, "team/*         sin,fra       region\n*              iad           region\n(all others)") {
		t.Errorf("rules are\n%s", got)
	}
	added := lines[[]starling.AddedInfo](t, output(t, home, "", "groups", "add", "--region", "iad", "--count", "2", "--json"))[0]
	if len(added) != 2 || added[1].Region != "iad" || len(added[1].Voters) != 3 {
		t.Errorf("added %+v", added)
	}
	alone := lines[[]starling.AddedInfo](t, output(t, home, "", "groups", "add", "--region", "iad", "--survive", "none", "--forbid", "sin", "--json"))[0]
	if len(alone) != 1 || len(alone[0].Voters) != 1 || alone[0].Survive != "none" {
		t.Errorf("added %+v", alone)
	}
	if got := output(t, home, "", "apps", "rules", "put", devApp, "log/*", "iad", "--survive", "none", "--forbid", "sin"); !strings.Contains(got, "none forbid=sin") {
		t.Errorf("rules are\n%s", got)
	}
	output(t, home, "after the change\n", "chat", "lobby", "--as", "carol")
	output(t, home, "", "apps", "rules", "delete", devApp, "team/*")
	settled := lines[starling.SettleInfo](t, output(t, home, "", "groups", "settle", "--json"))[0]
	if !settled.Settled || settled.Placement != 6 {
		t.Errorf("settled %+v", settled)
	}
	now := output(t, home, "", "export", "lobby", "--json")
	if more, ok := strings.CutPrefix(now, said); !ok || strings.Count(more, "\n") != 1 || !strings.Contains(more, "after the change") {
		t.Errorf("the lobby had %d bytes of history and has\n%s", len(said), now)
	}
	groups := lines[[]starling.GroupInfo](t, output(t, home, "", "groups", "--json"))[0]
	if !slices.ContainsFunc(groups, func(g starling.GroupInfo) bool { return g.ID == added[1].ID && g.Leader != "" }) {
		t.Errorf("group %d does not run: %+v", added[1].ID, groups)
	}
}
