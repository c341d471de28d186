package consensus

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// shortLogs has replicas keep nothing that a snapshot covers, which they make when a
// test says so.
func shortLogs(cfg *Config) {
	cfg.SnapshotEvery, cfg.SnapshotInterval, cfg.TrailingLogs, cfg.TrailingBytes, cfg.Depth = 1<<40, time.Hour, 1<<30, 1, 4
}

// snapshot has a replica make one, and cut its log.
func (c *cluster) snapshot(name string) {
	c.t.Helper()
	if err := c.host(name).group(1).instance().Snapshot().Error(); err != nil {
		c.t.Fatal(err)
	}
}

// leaveBehind starts all under a, cuts a node off, and has it need a snapshot.
func (c *cluster) leaveBehind(node string) {
	c.t.Helper()
	c.startAll(one)
	c.leads("a")
	c.mustPropose("a", 1, 10, "m")
	time.Sleep(2 * time.Second)
	c.isolate(node, true)
	for i := range 10 {
		c.mustPropose("a", 1, 1, "n"+itoa(i)+"-")
	}
	c.snapshot("a")
}

// sends proposes without waiting for an end, each command in an entry of its own.
func (c *cluster) sends(name string, commands ...string) {
	for _, m := range commands {
		c.host(name).Propose(1, []byte(m), func(any, error) {})
		time.Sleep(20 * time.Millisecond)
	}
}

// cutPair cuts two nodes off from each other, or not any more.
func (c *cluster) cutPair(a, b string, cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut[[2]string{a, b}], c.cut[[2]string{b, a}] = cut, cut
	if cut {
		for _, n := range []string{a, b} {
			for p := range c.nodes[n].pipes {
				_ = p.Close()
			}
		}
	}
}

// A snapshot that ends at the index at which the follower's own log ends, which conflicts
// with it: the follower goes on with what comes behind. Where it does not, its leader asks
// without a pause, and the test without an end.
func TestSnapshotOverConflictingLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, shortLogs, "a", "b", "c")
		c.startAll(one)
		defer c.stopAll()
		c.leads("a")
		c.mustPropose("a", 1, 10, "m")
		time.Sleep(2 * time.Second)
		end := c.host("a").group(1).instance().LastIndex() + 3
		c.isolate("a", true)
		c.sends("a", "x1", "x2", "x3")
		l := c.leader(1, "a")
		eventually(t, "the first entry of the term", func() bool { return c.host(l).Barrier(context.Background(), 1) == nil })
		g := c.host(l).group(1)
		for i := 0; g.instance().LastIndex() < end; i++ {
			c.mustPropose(l, 1, 1, "n"+itoa(i)+"-")
		}
		if at := c.host("a").group(1).instance().LastIndex(); at != end || g.instance().LastIndex() != end {
			t.Fatalf("a ends at %d, %s at %d, not at %d", at, l, g.instance().LastIndex(), end)
		}
		c.snapshot(l)
		c.isolate("a", false)
		time.Sleep(5 * time.Second)
		c.mustPropose(l, 1, 5, "after")
		if lost := missing(t, c, l, nil); len(lost) > 0 {
			t.Error(some(lost))
		}
	})
}

// answeredStream calls each time that something was read of it.
type answeredStream struct {
	Stream
	call func()
}

func (s answeredStream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	s.call()
	return n, err
}

// A replica whose data is newer than its log, as it is right after an install, begins an
// epoch: the first command takes effect.
func TestRecoverAfterInstall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c *cluster
		var once sync.Once
		c = newCluster(t, func(cfg *Config) {
			shortLogs(cfg)
			dial := cfg.Dial
			cfg.Dial = func(ctx context.Context, to string, snapshot bool) (Stream, error) {
				s, err := dial(ctx, to, snapshot)
				if err == nil && snapshot {
					s = answeredStream{s, func() { once.Do(func() { c.isolate("c", true) }) }}
				}
				return s, err
			}
		}, "a", "b", "c")
		c.leaveBehind("c")
		defer c.stopAll()
		for i := range 10 {
			c.mustPropose("a", 1, 1, "o"+itoa(i)+"-")
		}
		c.isolate("c", false)
		eventually(t, "c has the snapshot", func() bool { return len(history(t, c.host("c"), 1)) > 10 })
		time.Sleep(time.Second)
		c.stop("a")
		c.stop("b")
		g := c.host("c").group(1)
		if applied, last := g.fsm.position().index, g.instance().LastIndex(); applied <= last {
			t.Fatalf("the data is not newer than the log: %d, %d", applied, last)
		}
		if _, err := c.host("c").Recover(1, func(uint64) []byte { return []byte("the epoch begins") }); err != nil {
			t.Fatal(err)
		}
		c.leader(1)
		if _, err := c.propose("c", 1, "after"); err != nil {
			t.Errorf("the first command after the recovery: %v", err)
		}
		if !contains(history(t, c.host("c"), 1), "the epoch begins") {
			t.Error("the first command of the epoch has no effect")
		}
	})
}

// heldStream keeps what is written to it; nothing comes back.
type heldStream struct {
	mu   sync.Mutex
	data bytes.Buffer
	net.Conn
}

func (s *heldStream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.data.Write(p)
}

func (s *heldStream) Read([]byte) (int, error)         { return 0, errors.New("the connection was lost") }
func (s *heldStream) Close() error                     { return nil }
func (s *heldStream) SetReadDeadline(time.Time) error  { return nil }
func (s *heldStream) SetWriteDeadline(time.Time) error { return nil }

// A snapshot whose sender has given it up arrives when the follower has long gone on, and
// has cut its own log: nothing that it has acknowledged is rolled back.
func TestSnapshotComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := &heldStream{}
		var used atomic.Bool
		c := newCluster(t, func(cfg *Config) {
			shortLogs(cfg)
			dial := cfg.Dial
			cfg.Dial = func(ctx context.Context, to string, snapshot bool) (Stream, error) {
				if snapshot && used.CompareAndSwap(false, true) {
					return late, nil
				}
				return dial(ctx, to, snapshot)
			}
		}, "a", "b", "c")
		c.leaveBehind("c")
		defer c.stopAll()
		time.Sleep(2 * time.Second)
		c.isolate("c", false)
		eventually(t, "the first is under way", used.Load)
		c.mustPropose("a", 1, 10, "o")
		c.snapshot("a") // a newer one follows
		eventually(t, "c catches up", func() bool { return len(history(t, c.host("c"), 1)) == 30 })
		for i := range 10 {
			c.mustPropose("a", 1, 1, "p"+itoa(i)+"-")
		}
		time.Sleep(2 * time.Second)
		c.snapshot("c") // and cuts its own log
		c.isolate("b", true)
		acked := map[string]uint64{}
		for i := range 10 {
			r, err := c.propose("a", 1, "q"+itoa(i))
			if err != nil {
				t.Fatal(err)
			}
			acked["q"+itoa(i)] = r.(uint64)
		}
		time.Sleep(2 * time.Second)
		c.isolate("a", true)
		near, far := net.Pipe()
		go func() { _, _ = near.Write(late.data.Bytes()); _, _ = io.Copy(io.Discard, near) }()
		_ = c.host("c").ServeSnapshot("a", far)
		_ = near.Close()
		c.isolate("b", false)
		c.isolate("a", true)
		l := c.leader(1, "a")
		c.mustPropose(l, 1, 3, "z")
		c.isolate("a", false)
		if lost := missing(t, c, l, acked); len(lost) > 0 {
			t.Error(some(lost))
		}
	})
}
