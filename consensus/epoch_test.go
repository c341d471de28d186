package consensus

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/starling-im/starling/wire"
)

// begun is the first command of an epoch.
func begun(epoch uint64) []byte { return fmt.Appendf(nil, "epoch %d", epoch) }

func (c *cluster) epochOf(name string) uint64 {
	for _, s := range c.host(name).Status() {
		return s.Epoch
	}
	return 0
}

// leftAlone leaves a with 20 commands and without b and c, and recovers it.
func leftAlone(t *testing.T) (c *cluster, epoch uint64) {
	c = newCluster(t, joining, "a", "b", "c")
	c.startAll(one)
	c.mustPropose(c.leader(1), 1, 20, "m")
	if _, err := c.host(c.leader(1)).Recover(1, begun); wire.Code(err) != wire.CodeConflict {
		t.Errorf("recover of a group that has a quorum: %v", err)
	}
	eventually(t, "a has all", func() bool { return len(history(t, c.host("a"), 1)) == 20 })
	c.stop("b")
	c.stop("c")
	eventually(t, "no leader", c.noLeader("a"))
	stays(t, "no leader", 20*time.Second, c.noLeader("a"))
	epoch, err := c.host("a").Recover(1, begun)
	if err != nil || epoch == 0 {
		t.Fatalf("recover: epoch %d, %v", epoch, err)
	}
	c.mustPropose(c.leader(1), 1, 5, "after")
	return c, epoch
}

// TestRecoverAlone recovers a group of which one voter is left. The others come
// back with their disks: they neither vote nor lead, and are made anew where the
// group wants them.
func TestRecoverAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, epoch := leftAlone(t)
		defer c.stopAll()
		if got := history(t, c.host("a"), 1); len(got) != 26 || got[20] != string(begun(epoch)) {
			t.Errorf("a has %v", got)
		}
		c.start("b", one)
		c.start("c", one)
		stays(t, "b and c do not lead", 30*time.Second, func() bool {
			return c.host("b").Leader(1) == "" && c.host("c").Leader(1) == "" && c.leader(1) == "a"
		})
		if err := c.host("b").Read(1, func(Reader) {}); wire.Code(err) != wire.CodeNotLeader {
			t.Errorf("b serves what is over: %v", err)
		}
		c.stop("b")
		c.start("b", one) // it remembers
		c.mustPropose("a", 1, 5, "more")
		c.addVoter("b")
		c.addVoter("c")
		want := history(t, c.host("a"), 1)
		for _, name := range []string{"b", "c"} {
			eventually(t, name+" has all", func() bool { return slices.Equal(history(t, c.host(name), 1), want) })
			if e := c.epochOf(name); e != epoch {
				t.Errorf("%s is of epoch %d, not %d", name, e, epoch)
			}
		}
		c.mustPropose("a", 1, 1, "all know of all")
		time.Sleep(5 * time.Second)
		c.stop("a")
		c.mustPropose(c.leader(1), 1, 5, "without a")
	})
}

// TestRecoverTwice lets the others lead each other while nobody who knows can be
// reached. As soon as one can, theirs is over.
func TestRecoverTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, first := leftAlone(t)
		defer c.stopAll()
		c.isolate("a", true)
		c.start("b", one)
		c.start("c", one)
		l := c.leader(1, "a")
		c.mustPropose(l, 1, 3, "second history")
		c.isolate("a", false)
		eventually(t, "b and c are out", func() bool { return c.host("b").group(1) == nil && c.host("c").group(1) == nil })
		if _, err := c.propose(l, 1, "lost"); err == nil {
			t.Error("who is out acknowledges")
		}
		c.mustPropose("a", 1, 1, "still")
		c.addVoter("b")
		want := history(t, c.host("a"), 1)
		eventually(t, "b has all", func() bool { return slices.Equal(history(t, c.host("b"), 1), want) })
		if len(want) != 27 {
			t.Errorf("a has %v", want)
		}
		c.stop("b")
		eventually(t, "no leader", c.noLeader("a"))
		if second, err := c.host("a").Recover(1, begun); err != nil || second <= first {
			t.Errorf("again: epoch %d after %d, %v", second, first, err)
		}
		c.mustPropose(c.leader(1), 1, 1, "twice")
	})
}

// TestVotesWaitForEpochs shows that two of three that come back do not elect one
// of them before the third has told.
func TestVotesWaitForEpochs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := leftAlone(t)
		defer c.stopAll()
		c.far(400 * time.Millisecond)
		c.start("b", one)
		c.start("c", one)
		for range 2000 {
			for _, name := range []string{"b", "c"} {
				if g := c.host(name).group(1); g != nil && g.status().State == "leader" {
					t.Fatalf("%s leads", name)
				}
			}
			time.Sleep(10 * time.Millisecond)
		}
		if c.host("b").group(1) != nil || c.host("c").group(1) != nil {
			t.Error("b and c have not heard of it")
		}
	})
}

// TestRecoverCrashes ends the process somewhere in the middle of a recovery. The
// group then goes on in its new epoch, or as if nobody had asked.
func TestRecoverCrashes(t *testing.T) {
	rounds := 10
	if os.Getenv("STARLING_LONG") != "" {
		rounds = 300
	}
	for seed := range uint64(rounds) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 9))
			c := newCluster(t, joining, "a", "b", "c")
			c.startAll(one)
			defer c.stopAll()
			c.mustPropose(c.leader(1), 1, 20, "m")
			eventually(t, "a has all", func() bool { return len(history(t, c.host("a"), 1)) == 20 })
			c.stop("b")
			c.stop("c")
			time.Sleep(5 * time.Second)
			h := c.host("a")
			done := make(chan struct{})
			go func() { defer close(done); _, _ = h.Recover(1, begun) }()
			for range rng.IntN(30) {
				synctest.Wait()
			}
			after := c.nodes["a"].fs.(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
			<-done
			c.stop("a")
			c.nodes["a"].fs = after
			c.start("a", one)
			time.Sleep(5 * time.Second)
			if c.epochOf("a") == 0 {
				if _, err := c.host("a").Recover(1, begun); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
			c.mustPropose(c.leader(1), 1, 1, "after")
			if err := c.host("a").Barrier(context.Background(), 1); err != nil {
				t.Error(err)
			}
			if got := history(t, c.host("a"), 1); len(got) != 22 || got[20][:5] != "epoch" {
				t.Errorf("seed %d: %v", seed, got)
			}
		})
	}
}
