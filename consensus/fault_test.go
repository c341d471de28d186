package consensus

import (
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/starling-im/starling/wire"
)

// TestDiskFails breaks the disk of the leader, in two ways: its process would
// end with the reason, and the others go on without losing anything.
func TestDiskFails(t *testing.T) {
	for name, fault := range map[string]struct {
		op  errorfs.OpKind
		err error
	}{
		"sync fails": {errorfs.OpFileSyncData, syscall.EIO},
		"disk full":  {errorfs.OpFileWrite, syscall.ENOSPC},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, nil, "a", "b", "c")
			var broken atomic.Bool
			c.nodes["a"].fs = errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
				if broken.Load() && (op.Kind == fault.op || op.Kind == errorfs.OpFileSync && fault.op == errorfs.OpFileSyncData) && strings.HasSuffix(op.Path, ".log") {
					return fault.err
				}
				return nil
			}))
			c.startAll(one)
			defer c.stopAll()
			if l := c.leader(1); l != "a" {
				t.Fatalf("%s leads", l)
			}
			c.mustPropose("a", 1, 100, "m")
			broken.Store(true)
			if _, err := c.propose("a", 1, "x"); err == nil {
				t.Error("acknowledged on a broken disk")
			}
			eventually(t, "the process would end", func() bool {
				n := c.nodes["a"]
				n.mu.Lock()
				defer n.mu.Unlock()
				return errors.Is(n.fatal, fault.err)
			})
			if _, err := c.propose("a", 1, "y"); wire.Code(err) == "" || err == nil {
				t.Errorf("after the fault: %v", err)
			}
			l := c.leader(1, "a")
			c.mustPropose(l, 1, 10, "n")
			if got := history(t, c.host(l), 1); len(got) < 110 || got[99] != "m99" {
				t.Errorf("%d commands", len(got))
			}
		})
	}
}
