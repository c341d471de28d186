package consensus

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// counter is a machine that numbers its commands and remembers each.
type counter struct {
	mu       sync.Mutex
	pending  []string
	seen     []string // committed on this replica since it started
	restored int
}

func (c *counter) Apply(tx Tx, now int64, commands [][]byte) []any {
	results := make([]any, len(commands))
	n := uint64(0)
	if v, ok := tx.Get([]byte("n")); ok {
		n = binary.BigEndian.Uint64(v)
	}
	for i, cmd := range commands {
		if v, ok := tx.Get(append([]byte("id/"), cmd...)); ok {
			results[i] = binary.BigEndian.Uint64(v)
			continue
		}
		n++
		k := binary.BigEndian.AppendUint64(nil, n)
		tx.Set(append([]byte("id/"), cmd...), k)
		tx.Set(append([]byte("seq/"), k...), cmd)
		c.pending = append(c.pending, string(cmd))
		results[i] = n
	}
	tx.Set([]byte("n"), binary.BigEndian.AppendUint64(nil, n))
	return results
}

func (c *counter) Committed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = append(c.seen, c.pending...)
	c.pending = nil
}

func (c *counter) Restored() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.restored++
	c.pending = nil
}

// history reads all commands of a replica in order.
func history(t testing.TB, h *Host, group uint32) []string {
	t.Helper()
	var all []string
	if err := h.Read(group, func(r Reader) {
		r.Scan([]byte("seq/"), []byte("seq0"), func(k, v []byte) bool {
			if n := binary.BigEndian.Uint64(k[4:]); n != uint64(len(all)+1) {
				t.Fatalf("history has %d after %d", n, len(all))
			}
			all = append(all, string(v))
			return true
		})
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// cluster is a few hosts on memory disks, connected by pipes.
type cluster struct {
	t      testing.TB
	names  []string
	nodes  map[string]*node
	config func(*Config)

	mu  sync.Mutex
	cut map[[2]string]bool
}

type node struct {
	name     string
	fs       vfs.FS
	dir      string
	host     atomic.Pointer[Host]
	mu       sync.Mutex
	machines map[uint32]*counter
	fatal    error
	pipes    map[*pipe]bool
}

// pipe is one end of a stream that can be broken from outside.
type pipe struct{ net.Conn }

func newCluster(t testing.TB, config func(*Config), names ...string) *cluster {
	c := &cluster{t: t, names: names, nodes: map[string]*node{}, config: config, cut: map[[2]string]bool{}}
	for _, name := range names {
		c.nodes[name] = &node{name: name, fs: vfs.NewCrashableMem(), dir: "data", pipes: map[*pipe]bool{}}
	}
	return c
}

func (c *cluster) open(name string) (*Host, error) {
	n := c.nodes[name]
	n.machines = map[uint32]*counter{}
	cfg := Config{
		Node: name, Dir: n.dir, FS: n.fs,
		Machine: func(group uint32) Machine {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.machines[group] = &counter{}
			return n.machines[group]
		},
		Dial: func(ctx context.Context, to string, snapshot bool) (Stream, error) { return c.dial(name, to, snapshot) },
		Fatal: func(err error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.fatal = err
		},
	}
	if os.Getenv("RAFT_LOG") != "" {
		cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", name)
	}
	if c.config != nil {
		c.config(&cfg)
	}
	return Open(cfg)
}

// start opens a host with its groups; the first voter of a group is its home.
func (c *cluster) start(name string, groups ...Group) {
	c.t.Helper()
	h, err := c.open(name)
	if err != nil {
		c.t.Fatal(err)
	}
	c.nodes[name].host.Store(h)
	for _, g := range groups {
		g.Preferred = len(g.Voters) > 0 && g.Voters[0] == name
		if err := h.Start(g); err != nil {
			c.t.Fatal(err)
		}
	}
}

func (c *cluster) launch(groups ...Group) {
	c.t.Helper()
	for _, name := range c.names {
		c.start(name, groups...)
	}
}

// startAll returns when those that begin without state have found each other:
// until then one that a test cuts off would count as having lost its disk.
func (c *cluster) startAll(groups ...Group) {
	c.t.Helper()
	c.launch(groups...)
	for _, def := range groups {
		for _, voter := range def.Voters {
			if g := c.host(voter).group(def.ID); g.doubt() == fresh {
				eventually(c.t, voter+" has begun", func() bool { return g.doubt() == sure })
			}
		}
	}
}

func (c *cluster) stop(name string) {
	n := c.nodes[name]
	h := n.host.Swap(nil)
	if h == nil {
		return
	}
	start := time.Now()
	if err := h.Close(); err != nil && n.fatal == nil {
		c.t.Errorf("close %s: %v", name, err)
	}
	if d := time.Since(start); d > time.Second {
		c.t.Errorf("close %s took %v", name, d)
	}
}

func (c *cluster) stopAll() {
	var wg sync.WaitGroup
	for _, name := range c.names {
		wg.Go(func() { c.stop(name) })
	}
	wg.Wait()
}

var errCut = errors.New("no way there")

func (c *cluster) dial(from, to string, snapshot bool) (Stream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.nodes[to]
	if n == nil || c.cut[[2]string{from, to}] || c.cut[[2]string{to, from}] {
		return nil, errCut
	}
	h := n.host.Load()
	if h == nil {
		return nil, errCut
	}
	a, b := net.Pipe()
	pa, pb := &pipe{a}, &pipe{b}
	c.nodes[from].pipes[pa], n.pipes[pb] = true, true
	go func() {
		if snapshot {
			_ = h.ServeSnapshot(from, pb)
		} else {
			_ = h.Serve(from, pb)
		}
		_ = a.Close()
		c.mu.Lock()
		delete(c.nodes[from].pipes, pa)
		delete(n.pipes, pb)
		c.mu.Unlock()
	}()
	return pa, nil
}

// isolate cuts or heals all ways of a node.
func (c *cluster) isolate(name string, cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, other := range c.names {
		if other != name {
			c.cut[[2]string{name, other}] = cut
		}
	}
	if cut {
		for p := range c.nodes[name].pipes {
			_ = p.Close()
		}
	}
}

func (c *cluster) host(name string) *Host { return c.nodes[name].host.Load() }

// leads makes a node the leader of group 1: who wins the first election is up to chance,
// though the preferred one mostly does.
func (c *cluster) leads(name string) {
	c.t.Helper()
	eventually(c.t, name+" leads", func() bool {
		l := c.leader(1)
		if l != name {
			_, _ = c.host(l).Transfer(context.Background(), 1, name)
		}
		return l == name
	})
}

// leader waits for a node that leads and is not in the list of exceptions.
func (c *cluster) leader(group uint32, except ...string) string {
	c.t.Helper()
	for range 3000 {
		for _, name := range c.names {
			h := c.host(name)
			if h == nil || contains(except, name) {
				continue
			}
			if g := h.group(group); g != nil && g.status().State == "leader" {
				return name
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, name := range c.names {
		if h := c.host(name); h != nil && h.group(group) != nil {
			c.t.Logf("%s: %+v", name, h.group(group).status())
		}
	}
	c.t.Fatalf("no leader of group %d", group)
	return ""
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// propose sends one command to a node and waits for its end.
func (c *cluster) propose(name string, group uint32, cmd string) (any, error) {
	type end struct {
		r   any
		err error
	}
	ch := make(chan end, 1)
	c.host(name).Propose(group, []byte(cmd), func(r any, err error) { ch <- end{r, err} })
	e := <-ch
	return e.r, e.err
}

func (c *cluster) mustPropose(name string, group uint32, n int, prefix string) {
	c.t.Helper()
	var wg sync.WaitGroup
	for i := range n {
		wg.Add(1)
		c.host(name).Propose(group, fmt.Appendf(nil, "%s%d", prefix, i), func(_ any, err error) {
			if err != nil {
				c.t.Errorf("%s%d: %v", prefix, i, err)
			}
			wg.Done()
		})
	}
	wg.Wait()
}

// eventually waits until ok, for half a minute at most.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for range 3000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}
