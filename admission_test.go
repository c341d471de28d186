package starling_test

import (
	"encoding/json"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/wire"
)

// A node is revoked under a chat: nobody speaks with it any more, and long before it
// would be given up another has its vote.
func TestRevokedNodeIsReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRegion(t, 4)
		for _, p := range w.peers {
			w.start(p.ID)
		}
		p := w.until("three voters", 20*time.Second, func(p starling.GroupPlan) bool { return len(p.Voters) == 3 && p.Next == "" })
		bad := p.Voters[slices.IndexFunc(p.Voters, func(v string) bool { return v != p.Leader })]
		stop := w.chatter(slices.IndexFunc(w.peers, func(n starling.Peer) bool { return n.ID == w.free(p) }))
		b, err := w.nodes[p.Leader].node.Operate(t.Context(), "node.revoke", "r1", bad)
		ok(t, err)
		var info starling.NodeInfo
		ok(t, json.Unmarshal(b, &info))
		if !info.Revoked || len(info.Stranded) > 0 {
			t.Errorf("%+v", info)
		}
		if err := w.died(bad, time.Second); err == nil {
			w.stop(bad) // its links were cut before it heard why
		} else if wire.Code(err) != wire.CodeRevoked {
			t.Errorf("%s ends with %v", bad, err)
		}
		w.until("three voters without it", 10*time.Second, func(p starling.GroupPlan) bool {
			return len(p.Voters) == 3 && !slices.Contains(p.Voters, bad) && p.Next == ""
		})
		t.Logf("%d sends", stop())
		w.start(bad)
		if err := w.died(bad, 10*time.Second); err != nil && wire.Code(err) != wire.CodeRevoked {
			t.Errorf("%s ends with %v", bad, err)
		} else if err == nil {
			for _, id := range w.running() {
				if m := w.member(id, bad); id != bad && m.RTT > 0 {
					t.Errorf("%s has a link to it: %+v", id, m)
				}
			}
		}
		w.stopAll()
	})
}

// Of a group with two votes one is revoked: whoever did it is told what that costs.
func TestRevokingTellsWhatItStrands(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRegion(t, 2)
		for _, p := range w.peers {
			w.start(p.ID)
		}
		p := w.until("two voters", 20*time.Second, func(p starling.GroupPlan) bool { return len(p.Voters) == 2 && p.Next == "" })
		bad := p.Voters[slices.IndexFunc(p.Voters, func(v string) bool { return v != p.Leader })]
		b, err := w.nodes[p.Leader].node.Operate(t.Context(), "node.revoke", "r1", bad)
		ok(t, err)
		var info starling.NodeInfo
		ok(t, json.Unmarshal(b, &info))
		if !slices.Contains(info.Stranded, 1) {
			t.Errorf("%+v", info)
		}
		w.stopAll()
	})
}

// member is what one node knows of another.
func (w *world) member(at, id string) (is starling.MemberInfo) {
	w.t.Helper()
	b, err := w.nodes[at].node.Operate(w.t.Context(), "members")
	ok(w.t, err)
	var all []starling.MemberInfo
	ok(w.t, json.Unmarshal(b, &all))
	for _, m := range all {
		if m.ID == id {
			is = m
		}
	}
	return is
}
