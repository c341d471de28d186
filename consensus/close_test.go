package consensus

import (
	"testing"

	"github.com/starling-im/starling/wire"
)

var alone = Group{ID: 1, Voters: []string{"a"}}

// TestReadWhileClosing closes a Host under a read: the read goes on, Close
// waits for it, and later reads are refused.
func TestReadWhileClosing(t *testing.T) {
	c := newCluster(t, nil, "a")
	c.startAll(alone)
	c.leader(1)
	c.mustPropose("a", 1, 1, "m")
	h := c.host("a")
	closed := make(chan struct{})
	err := h.Read(1, func(r Reader) {
		go func() {
			defer close(closed)
			c.stop("a")
		}()
		view := &h.group(1).fsm.view
		eventually(t, "Close waits for the read", func() bool {
			if !view.TryRLock() {
				return true
			}
			view.RUnlock()
			return false
		})
		if _, ok := r.Get([]byte("n")); !ok {
			t.Error("the view is gone while it is used")
		}
	})
	if err != nil {
		t.Error(err)
	}
	<-closed
	if err := h.Read(1, func(Reader) { t.Error("read after Close") }); wire.Code(err) != wire.CodeShuttingDown {
		t.Errorf("read after Close: %v", err)
	}
}

func TestStartAgain(t *testing.T) {
	c := newCluster(t, nil, "a")
	c.startAll(alone)
	defer c.stopAll()
	c.leader(1)
	h := c.host("a")
	before := h.group(1)
	if err := h.Start(alone); err != nil {
		t.Error(err)
	}
	if h.group(1) != before {
		t.Error("the group was replaced")
	}
	c.mustPropose("a", 1, 1, "m")
}
