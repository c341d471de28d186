package main

import (
	"strings"
	"testing"

	"github.com/starling-im/starling"
)

func TestGroupsComplete(t *testing.T) {
	groups := []starling.GroupInfo{
		{ID: 0, Region: "fra"},
		{ID: 7, Region: "iad", Leader: "a", Missing: []string{"c"}, Replicas: []starling.ReplicaInfo{{Node: "a", Voter: true}, {Node: "b", Voter: true}, {Node: "d"}}},
	}
	var members []starling.MemberInfo
	for _, id := range strings.Fields("a b c d e") {
		members = append(members, starling.MemberInfo{ID: id, State: "alive"})
	}
	members = append(members, starling.MemberInfo{ID: "f", State: "failed"})
	for _, tt := range []struct {
		args  string
		nodes []nodesFor
		want  string
	}{
		{"", nil, "0\tof fra, led by nobody|7\tof iad, led by a"},
		{"7", []nodesFor{heirsOf}, "b"},
		{"7", []nodesFor{votersOf, sparesOf}, "a|b|c"},
		{"7 b", []nodesFor{votersOf, sparesOf}, "d|e"},
		{"7 e", []nodesFor{votersOf, sparesOf}, "d"},
		{"8", []nodesFor{heirsOf}, ""},
	} {
		if got := strings.Join(groupWords(groups, members, strings.Fields(tt.args), tt.nodes), "|"); got != tt.want {
			t.Errorf("after %q: %q, want %q", tt.args, got, tt.want)
		}
	}
}
