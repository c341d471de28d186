package starling_test

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/client"
)

// A node comes back with an older copy of its disk while too few others are there to
// say what it lacks: who looks at it from elsewhere sees its doubt, and later its end.
func TestNodeWithAnOldDiskIsShown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "fra", "iad", "sin")
		for _, p := range w.peers {
			w.start(p.ID)
		}
		c := w.dial("alice", 0)
		say := func(n int) {
			for range n {
				_, err := c.Publish(t.Context(), client.Message{Room: "lobby", Content: "hello"})
				ok(t, err)
			}
		}
		say(3)
		if h := w.here("fra-1", "iad-1"); h == nil || len(h.Doubts) > 0 || h.Out.Stage != starling.StageServing || time.UnixMilli(h.CertificateUntil).Before(time.Now()) {
			t.Errorf("a node that is well: %+v", h)
		}
		old := w.disks["iad-1"].Copy()
		w.kill("iad-1", 0)
		w.start("iad-1") // another life, which the others see
		say(10)
		time.Sleep(5 * time.Second)
		_ = c.Close()
		w.kill("iad-1", 0)
		w.stop("sin-1")
		if h := w.here("fra-1", "iad-1"); h != nil {
			t.Errorf("a node that is not there says %+v", h)
		}
		w.disks["iad-1"] = old
		w.start("iad-1")
		doubted := func(want bool) {
			t.Helper()
			var h *starling.NodeHere
			for late := time.Now().Add(30 * time.Second); time.Now().Before(late); time.Sleep(100 * time.Millisecond) {
				if h = w.here("fra-1", "iad-1"); h != nil && len(h.Doubts) > 0 == want {
					return
				}
			}
			t.Errorf("in doubt is to be %v: %+v", want, h)
		}
		doubted(true)
		time.Sleep(20 * time.Second)
		doubted(true)
		w.start("sin-1")
		doubted(false)
		w.stopAll()
	})
}

// here is what a node says of itself to one that is asked about it.
func (w *world) here(at, node string) *starling.NodeHere {
	w.t.Helper()
	b, err := w.nodes[at].node.Operate(w.t.Context(), "node.show", node)
	ok(w.t, err)
	var info starling.NodeInfo
	ok(w.t, json.Unmarshal(b, &info))
	return info.Here
}
