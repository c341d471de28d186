package starling_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// Operators change rules and add groups at any node. Asked again with the same
// id, as after a lost answer, a change happens once.
func TestOperatorsChangeWhereRoomsAreMade(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "fra", "iad", "sin")
		for _, p := range w.peers {
			w.start(p.ID)
		}
		c := w.dial("alice", 0)
		_, err := c.Publish(t.Context(), client.Message{Room: "team/a", Content: "first"})
		ok(t, err)
		time.Sleep(2 * time.Second) // all nodes have linked
		n := w.nodes["iad-1"].node
		ask := func(code, what string, args ...string) (answer string) {
			t.Helper()
			b, err := n.Operate(t.Context(), what, args...)
			if (code == "") != (err == nil) || code != "" && !errors.Is(err, &wire.Error{Code: code}) {
				t.Errorf("%s %q: %v, want %q", what, args, err, code)
			}
			return string(b)
		}
		ask("", "apps.rules.put", "1", "demo", "team/*", "sin")
		ask("", "apps.rules.put", "1", "demo", "team/*", "sin")
		got := ask("", "apps.rules.put", "2", "demo", "team/b", "fra,iad", "first")
		if want := `[{"app":"demo","pattern":"team/b","homes":["fra","iad"],"survive":"region"},{"app":"demo","pattern":"team/*","homes":["sin"],"survive":"region"},` +
			`{"app":"demo","pattern":"","homes":["fra","iad","sin"],"survive":"region"}]`; got != want || got != ask("", "apps.rules", "demo") {
			t.Errorf("rules are %s", got)
		}
		ask("", "apps.rules.delete", "3", "demo", "team/b")
		ask(wire.CodeNotFound, "apps.rules.delete", "4", "demo", "team/b")
		ask(wire.CodeNotFound, "apps.rules.put", "5", "demo", "x", "mars")
		ask(wire.CodeConflict, "apps.rules.put", "1", "demo", "team/*", "iad")
		ask(wire.CodeBadRequest, "apps.rules.put", "6", "demo", "x")
		ask(wire.CodeBadRequest, "apps.rules.put", "6", "demo", "x", "fra", "last")
		ask(wire.CodeBadRequest, "apps.rules.put", "", "demo", "x", "fra")
		ask(wire.CodeBadRequest, "apps.rules.put", "6", "demo", "x", "fra,iad,fra")
		ask(wire.CodeBadRequest, "apps.rules.put", "6", "demo", strings.Repeat("x", room.NameBytes+1), "fra")
		ask("", "apps.rules.put", "6", "demo", strings.Repeat("x", room.NameBytes), "fra")
		ask("", "apps.rules.delete", "6d", "demo", strings.Repeat("x", room.NameBytes))

		var added, again []starling.AddedInfo
		ok(t, json.Unmarshal([]byte(ask("", "groups.add", "7", "sin", "2")), &added))
		ok(t, json.Unmarshal([]byte(ask("", "groups.add", "7", "sin", "2")), &again))
		if len(added) != 2 || added[0].ID != 4 || added[0].Voters[0] != "sin-1" || len(added[0].Voters) != 3 || len(again) != 2 || again[1].ID != added[1].ID {
			t.Errorf("added %+v, and again %+v", added, again)
		}
		var rest []starling.GroupInfo
		ok(t, json.Unmarshal([]byte(ask("", "groups", "3")), &rest))
		if len(rest) != 2 || rest[0].ID != 4 {
			t.Errorf("the groups after 3 are %+v", rest)
		}
		ask(wire.CodeBadRequest, "groups", "x")
		ask(wire.CodeBadRequest, "groups.add", "8", "sin", "65")
		ask(wire.CodeNotFound, "groups.add", "8", "mars", "1")

		// The room is where it was made, for everyone; new ones are in sin.
		d := w.dial("bob", 2)
		for _, m := range []client.Message{{Room: "team/a", Content: "second"}, {Room: "team/c", Content: "first"}} {
			_, err := d.Publish(t.Context(), m)
			ok(t, err)
		}
		page, err := c.History(t.Context(), "team/a", 0, 0, client.Linearizable())
		ok(t, err)
		if len(page.Events) != 2 || page.Events[1].Content != "second" {
			t.Errorf("team/a has %+v", page.Events)
		}
		_, _ = c.Close(), d.Close()
		w.stopAll()
	})
}
