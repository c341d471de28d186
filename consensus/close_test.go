package consensus

import (
	"errors"
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

// picky is a machine that stops at a command.
type picky struct {
	*counter
	stop error
}

func (p picky) Apply(tx Tx, now int64, commands [][]byte) []any {
	for _, cmd := range commands {
		if string(cmd) == "stop" {
			panic(p.stop)
		}
	}
	return p.counter.Apply(tx, now, commands)
}

func TestMachineStops(t *testing.T) {
	reason := errors.New("cannot read this")
	c := newCluster(t, func(cfg *Config) {
		cfg.Machine = func(uint32) Machine { return picky{&counter{}, reason} }
	}, "a")
	c.startAll(alone)
	defer c.stopAll()
	c.leader(1)
	c.mustPropose("a", 1, 1, "m")
	if r, err := c.propose("a", 1, "stop"); err == nil {
		t.Errorf("acknowledged with %v", r)
	}
	n := c.nodes["a"]
	eventually(t, "the host ends with the reason", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return errors.Is(n.fatal, reason)
	})
	if err := c.host("a").Read(1, func(Reader) {}); wire.Code(err) != wire.CodeUnavailable {
		t.Errorf("read after the end: %v", err)
	}
}

// TestGuardLeavesBugs shows that only an error that somebody chose to panic
// with ends the host quietly.
func TestGuardLeavesBugs(t *testing.T) {
	c := newCluster(t, nil, "a")
	c.startAll(alone)
	defer c.stopAll()
	v := newView(c.host("a").s, nil, 1)
	var none []int
	for name, bug := range map[string]func(){
		"index":  func() { none[0]++ },
		"string": func() { panic("bug") },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			_ = v.guard(bug)
		}()
	}
	if err := v.s.err(); err != nil {
		t.Error(err)
	}
}
