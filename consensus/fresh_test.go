package consensus

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
)

// A replica knows how old what it has may be: hardly at all on the leader, the
// time between two words of it on a follower, and more and more on one that is cut
// off, whatever it heard before. Entries that never reach the data do not matter.
func TestFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil, "a", "b", "c")
		c.launch(one)
		defer c.stopAll()
		age := func(name string) time.Duration {
			at := c.host(name).Fresh(1)
			if at.IsZero() {
				return time.Hour
			}
			return time.Since(at)
		}
		idle := 2*c.host("a").cfg.CommitTimeout + 100*time.Millisecond
		within := func(when string) {
			t.Helper()
			for range 30 {
				time.Sleep(100 * time.Millisecond)
				for _, name := range c.names {
					if d := age(name); d > idle {
						t.Fatalf("%s: %s is %v old", when, name, d)
					}
				}
			}
		}
		if d := age("a"); d != time.Hour {
			t.Errorf("before anything was heard a replica is %v old", d)
		}
		l := c.leader(1)
		time.Sleep(3 * time.Second)
		within("nothing was ever proposed")
		c.mustPropose(l, 1, 100, "m")
		within("after commands")
		if d := age(l); d != 0 {
			t.Errorf("the leader is %v old", d)
		}

		follower := c.names[0]
		if follower == l {
			follower = c.names[1]
		}
		c.isolate(follower, true)
		time.Sleep(time.Second)
		before := c.host(follower).Fresh(1)
		c.mustPropose(l, 1, 10, "n")
		time.Sleep(time.Minute)
		if after := c.host(follower).Fresh(1); after != before {
			t.Errorf("cut off at %v, and fresh as of %v", before, after)
		}
		c.isolate(follower, false)
		eventually(t, "the follower has all", func() bool { return len(history(t, c.host(follower), 1)) == 110 })
		time.Sleep(3 * time.Second)
		within("after a cut")

		c.isolate(l, true) // another leads, and writes nothing but Raft's own entry
		cut := time.Now()
		next := c.leader(1, l)
		time.Sleep(5 * time.Second)
		c.isolate(l, false)
		if c.host(l).Fresh(1).After(cut.Add(16 * c.host(l).cfg.Heartbeat / 10)) {
			t.Errorf("%s led on without a quorum, and was fresh %v after it lost it", l, c.host(l).Fresh(1).Sub(cut))
		}
		eventually(t, "the old leader follows", func() bool { return c.host(l).group(1).status().Leader == next })
		time.Sleep(3 * time.Second)
		within("after an election")
	})
}

// A replica is as of no moment before whose end it misses something acknowledged,
// also when it has lost its disk and is told of committed entries only.
func TestFreshMissesNothing(t *testing.T) {
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprintf("lost=%t", lost), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, nil, "a", "b", "c")
				c.startAll(one)
				defer c.stopAll()
				l := c.leader(1)
				if lost {
					c.stop("c")
					c.replace("c", vfs.NewCrashableMem())
					c.start("c", one)
				}
				acked := map[int]time.Time{}
				for i := range 300 {
					c.mustPropose(l, 1, 1, fmt.Sprintf("m%d/", i))
					acked[i] = time.Now()
					time.Sleep(time.Duration(i%7) * time.Millisecond)
					for _, name := range c.names {
						if d := c.host(name).group(1).doubt(); d.lost() && d != fresh {
							continue // it refuses reads
						}
						as := c.host(name).Fresh(1)
						if n := len(history(t, c.host(name), 1)); n <= i && acked[n].Before(as) {
							t.Fatalf("%s has %d commands, one more was acknowledged %v before it claims to be whole", name, n, as.Sub(acked[n]))
						}
					}
				}
			})
		})
	}
}

// A new leader does not know at first what the one before has acknowledged.
func TestNewLeaderMakesNobodyFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil, "a", "b", "c")
		c.startAll(one)
		defer c.stopAll()
		c.mustPropose(c.leader(1), 1, 10, "m")
		time.Sleep(time.Second)
		for _, name := range c.names {
			g, soon := c.host(name).group(1), time.Now().Add(time.Hour)
			g.told(&raft.AppendEntriesRequest{Term: g.instance().CurrentTerm() + 1, LeaderCommitIndex: g.instance().CommitIndex()}, soon)
			if g.h.Fresh(1).Equal(soon) {
				t.Errorf("%s is fresh by the word of a leader that has committed nothing yet", name)
			}
		}
	})
}
