package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/wire"
)

// What is told of a replacement goes on and never back, and its end before it is
// done says what the mesh does.
func TestReplacementIsTold(t *testing.T) {
	var said bytes.Buffer
	r := &replacement{app: &app{stderr: &said}, group: "3", old: "b", new: "d"}
	plan := func(leader, voters, learners string, order ...string) starling.GroupPlan {
		return starling.GroupPlan{Group: 3, Leader: leader, Voters: strings.Fields(voters), Learners: strings.Fields(learners), Replace: order, Why: "for the reader of explain"}
	}
	paused, failed := plan("a", "a b c", "", "b", "d"), plan("a", "a b c", "d", "b", "d")
	paused.Paused, failed.Failed = true, "it is full"
	for _, tt := range []struct {
		plan   starling.GroupPlan
		leader string // that is known to have the order
		says   string
	}{
		{plan("a", "a b c", "", "b", "d"), "a", "d is to take the place of b in group 3"},
		{paused, "a", "d is to take the place of b in group 3; moves are paused: edge-node groups resume"},
		{plan("a", "a b c", "d", "b", "d"), "a", "d learns what there is"},
		{plan("", "a b c", "d"), "a", "d learns what there is; nobody leads the group now"},
		{plan("c", "a b c", "d"), "", "d learns what there is"},
		{plan("c", "a b c", "d", "b", "d"), "c", ""},
		{failed, "a", "d learns what there is; the last try failed: it is full"},
		{plan("a", "a b c d", "", "b", "d"), "a", "d has its vote, and b is to give its own up"},
		{plan("a", "a b c", "d", "b", "d"), "a", ""},
	} {
		said.Reset()
		if err := r.hear(tt.plan); err != nil || r.leader != tt.leader {
			t.Errorf("after %+v the order is with %q, %v; want %q", tt.plan, r.leader, err, tt.leader)
		}
		if got := strings.TrimPrefix(strings.TrimSpace(said.String()), "edge-node: "); got != tt.says {
			t.Errorf("of %+v it says %q, want %q", tt.plan, got, tt.says)
		}
	}
	again := plan("a", "a b c d", "")
	again.Term = 2
	if err := r.hear(again); err != nil || r.leader != "" {
		t.Errorf("the leader lost the lead and has it again, without the order: %v, it is with %q", err, r.leader)
	}
	r.leader = "a"
	for _, order := range [][]string{nil, {"b", "e"}} {
		if err := r.hear(plan("a", "a b c d", "", order...)); err == nil || !strings.Contains(err.Error(), "called off") {
			t.Errorf("the leader that had the order has %q: %v", order, err)
		}
	}
	if got := r.late(errors.New("not done within 1s"), nil).Error(); got != "not done within 1s: d has not taken the place of b in group 3 yet, and the mesh goes on with it; "+
		"edge-node groups explain 3 tells how far it is, edge-node groups replace 3 --cancel calls it off" {
		t.Errorf("late: %s", got)
	}
	r.leader = ""
	if got := r.late(context.Canceled, wire.Errorf(wire.CodeUnavailable, "who leads?")).Error(); got != "interrupted; the last answer was unavailable: who leads?; "+
		"whether the mesh has the order is not known: edge-node groups explain 3 tells" {
		t.Errorf("interrupted: %s", got)
	}
}
