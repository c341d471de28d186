package starling_test

import (
	"fmt"
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
	t.Parallel()
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

// The directory's own group has moved away from all of its first voters. They start
// again, all at once, one even without its disk, and know the directory from those
// who have it: nobody founds it anew.
func TestDirectoryThatMovedIsNotFoundedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "fra", "fra", "fra", "fra", "iad", "sin")
		w.sync, w.survive = true, geo.SurviveNode
		for _, p := range w.peers {
			w.start(p.ID)
		}
		p := w.planAt("iad-1", 0, func(p starling.GroupPlan) bool {
			return slices.Contains(p.Voters, "iad-1") && slices.Contains(p.Voters, "sin-1")
		})
		first := w.nodes["iad-1"].node.FirstRoot()
		old := p.Voters[slices.IndexFunc(p.Voters, func(v string) bool { return slices.Contains(first, v) })]
		fourth := w.peers[slices.IndexFunc(w.peers, func(q starling.Peer) bool { return q.Region == "fra" && !slices.Contains(first, q.ID) })].ID
		ok(t, w.ask("iad-1", "groups.replace", &p, "0", old, fourth))
		w.planAt("iad-1", 0, func(p starling.GroupPlan) bool {
			return slices.Contains(p.Voters, fourth) && !slices.Contains(p.Voters, old)
		})
		w.nobodyHasRoot(first)
		again := func() {
			t.Helper()
			for _, id := range first {
				w.start(id)
			}
			time.Sleep(time.Second)
			var done struct{}
			id := fmt.Sprint(time.Now().UnixNano())
			ok(t, w.ask("iad-1", "groups.reconcile", &done, id+"-pause", "pause"))
			ok(t, w.ask("iad-1", "groups.reconcile", &done, id+"-resume", "resume"))
			w.nobodyHasRoot(first)
			now := w.nodes["iad-1"].node.Directory().Version()
			for _, id := range first {
				if v := w.nodes[id].node.Directory().Version(); v != now {
					t.Errorf("%s has version %d of the directory, iad-1 %d", id, v, now)
				}
			}
			for _, id := range first {
				w.stop(id)
			}
		}
		for _, id := range first {
			w.stop(id)
		}
		again()
		w.disks[first[0]] = simdisk.New(0)
		ok(t, os.Remove(filepath.Join(w.path(first[0]), "directory.json")))
		again()
		w.stopAll()
	})
}

// nobodyHasRoot waits until none of some nodes has a replica of the directory.
func (w *world) nobodyHasRoot(nodes []string) {
	w.t.Helper()
	var groups []starling.GroupInfo
	for range 30 {
		ok(w.t, w.ask("iad-1", "groups", &groups))
		if !slices.ContainsFunc(groups[0].Replicas, func(r starling.ReplicaInfo) bool { return slices.Contains(nodes, r.Node) }) {
			return
		}
		time.Sleep(time.Second)
	}
	w.t.Errorf("the directory is at %+v", groups[0].Replicas)
}
