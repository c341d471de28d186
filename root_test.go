package starling_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/geo"
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

// The directory's own group has moved away from nodes that were its first voters.
// They start again, all at once even, and know the directory from those who have
// it: none founds it anew.
func TestDirectoryThatMovedIsNotFoundedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "fra", "fra", "fra", "iad", "sin")
		w.sync, w.survive = true, geo.SurviveNode
		for _, p := range w.peers {
			w.start(p.ID)
		}
		moved := func(p starling.GroupPlan) bool {
			return slices.Contains(p.Voters, "iad-1") && slices.Contains(p.Voters, "sin-1")
		}
		p := w.planAt("iad-1", 0, moved)
		time.Sleep(5 * time.Second) // replicas that are not needed any more are dropped
		var left []string
		for _, q := range w.peers {
			if !slices.Contains(p.Voters, q.ID) {
				left = append(left, q.ID)
			}
		}
		if len(left) != 2 {
			t.Fatalf("the first voters were to be replaced: %+v", p)
		}
		again := func(away string, nodes ...string) {
			t.Helper()
			for _, id := range append(nodes, away) {
				w.stop(id)
			}
			for _, id := range nodes {
				w.start(id)
			}
			time.Sleep(time.Second)
			var done struct{}
			ok(t, w.ask("iad-1", "groups.reconcile", &done, away+"-pause", "pause"))
			ok(t, w.ask("iad-1", "groups.reconcile", &done, away+"-resume", "resume"))
			time.Sleep(5 * time.Second)
			now := w.nodes["iad-1"].node.Directory().Version()
			for _, id := range nodes {
				if v := w.nodes[id].node.Directory().Version(); v != now {
					t.Errorf("%s has version %d of the directory, iad-1 %d", id, v, now)
				}
			}
			w.start(away)
			time.Sleep(5 * time.Second)
			var groups []starling.GroupInfo
			ok(t, w.ask("iad-1", "groups", &groups))
			for _, g := range groups {
				for _, r := range g.Replicas {
					if g.ID == 0 && slices.Contains(left, r.Node) {
						t.Errorf("%s has a replica of the directory: %+v", r.Node, g)
					}
				}
			}
		}
		third := p.Voters[slices.IndexFunc(p.Voters, func(v string) bool { return v[:3] == "fra" })]
		again(third, left...)
		// One has lost its disk too, and knows nothing of the directory.
		w.stop(left[0])
		w.disks[left[0]] = simdisk.New(0)
		ok(t, os.RemoveAll(filepath.Join(w.path(left[0]), "directory.json")))
		w.start(left[0])
		again(left[1])
		time.Sleep(10 * time.Second)
		if a, b := w.nodes[left[0]].node.Directory().Version(), w.nodes["iad-1"].node.Directory().Version(); a != b {
			t.Errorf("without its disk %s has version %d of the directory, iad-1 %d", left[0], a, b)
		}
		w.stopAll()
	})
}
