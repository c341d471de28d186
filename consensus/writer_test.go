package consensus

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/starling-im/starling/wire"
)

// writer proposes to whoever leads, again and again until a command is acked,
// as clients do. Any end but those that say "ask another" is a failure.
type writer struct {
	c     *cluster
	quit  atomic.Bool
	wg    sync.WaitGroup
	mu    sync.Mutex
	acked []string
	// forgiving lets outcomes be unknown: a leader dies.
	forgiving bool
	every     time.Duration
}

func write(c *cluster, forgiving bool) *writer {
	w := &writer{c: c, forgiving: forgiving, every: 3 * time.Millisecond}
	if forgiving {
		w.every = 25 * time.Millisecond // it takes long
	}
	for n := range 4 {
		w.wg.Go(func() {
			for i := 0; !w.quit.Load(); i++ {
				w.one(fmt.Sprintf("w%d/%d", n, i))
				time.Sleep(w.every)
			}
		})
	}
	return w
}

func (w *writer) one(cmd string) {
	to := w.c.names[0]
	for !w.quit.Load() {
		if w.c.host(to) == nil {
			to = w.next(to)
		}
		_, err := w.c.propose(to, 1, cmd)
		if err == nil {
			w.mu.Lock()
			w.acked = append(w.acked, cmd)
			w.mu.Unlock()
			return
		}
		e := wire.AsError(err)
		if e.Code != wire.CodeNotLeader && !w.forgiving {
			w.c.t.Errorf("%s: %v", cmd, err)
		}
		if to = e.Node; to == "" || w.c.host(to) == nil {
			to = w.next(to)
		}
		time.Sleep(w.every)
	}
}

// next is any other node that runs.
func (w *writer) next(than string) string {
	i := slices.Index(w.c.names, than)
	for range w.c.names {
		i = (i + 1) % len(w.c.names)
		if w.c.host(w.c.names[i]) != nil {
			return w.c.names[i]
		}
	}
	return than
}

// end stops writing, and checks that every acked command is on every voter.
func (w *writer) end(voters ...string) {
	w.c.t.Helper()
	w.quit.Store(true)
	w.wg.Wait()
	all := history(w.c.t, w.c.host(w.c.leader(1)), 1)
	has := map[string]bool{}
	for _, cmd := range all {
		has[cmd] = true
	}
	for _, cmd := range w.acked {
		if !has[cmd] {
			w.c.t.Errorf("%s was acked and is lost", cmd)
		}
	}
	if len(w.acked) < 100 {
		w.c.t.Errorf("only %d commands were acked", len(w.acked))
	}
	for _, name := range voters {
		eventually(w.c.t, name+" has all", func() bool { return slices.Equal(history(w.c.t, w.c.host(name), 1), all) })
	}
}
