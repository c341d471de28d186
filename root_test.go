package starling_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/internal/simdisk"
)

// The directory's own group has voters in three regions and a copy in each other
// one. A node of it is lost for good: another takes its place, and when it comes
// back without its disk it follows the directory like any other.
func TestDirectoryMovesToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFourRegions(t)
		p := w.planAt("fra-2", 0, func(p starling.GroupPlan) bool { return len(p.Voters) == 3 && len(p.Learners) == 1 })
		if !slices.Contains(p.Voters, p.Leader) || p.UnderReplicated != "" {
			t.Errorf("at first: %+v", p)
		}
		lost := p.Voters[slices.IndexFunc(p.Voters, func(v string) bool { return v != p.Leader && v[:3] != "fra" })]
		w.kill(lost, 0)
		w.disks[lost] = simdisk.New(0)
		gone := func(p starling.GroupPlan) bool { return len(p.Voters) == 3 && !slices.Contains(p.Voters, lost) }
		if q := w.planAt("fra-2", 0, gone); !slices.Contains(q.Voters, p.Learners[0]) {
			t.Errorf("another node than the learner took the place: %+v", q)
		}
		var done struct{}
		ok(t, w.ask("fra-3", "groups.reconcile", &done, "p1", "pause"))
		ok(t, w.ask("fra-3", "groups.reconcile", &done, "p2", "resume"))
		w.start(lost)
		w.planAt("fra-2", 0, func(p starling.GroupPlan) bool { return gone(p) && slices.Equal(p.Learners, []string{lost}) })
		time.Sleep(5 * time.Second)
		for _, q := range w.peers {
			dir := w.nodes[q.ID].node.Directory()
			if r := dir.Root(); slices.Contains(r.Voters, lost) || !slices.Equal(r.Learners, []string{lost}) {
				t.Errorf("%s looks for the directory at %+v", q.ID, r)
			}
			if first := w.nodes["fra-1"].node.Directory(); dir.Version() != first.Version() {
				t.Errorf("%s knows version %d, fra-1 %d", q.ID, dir.Version(), first.Version())
			}
		}
		w.stopAll()
	})
}
