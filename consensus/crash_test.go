package consensus

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func quickSnapshots(cfg *Config) {
	cfg.SnapshotEvery, cfg.TrailingLogs, cfg.SnapshotInterval = 20, 10, 50*time.Millisecond
}

// TestCrashes lets all disks forget what was not synced, at 50 moments, or 500
// in the long form; the group goes on by itself each time.
func TestCrashes(t *testing.T) {
	worlds := uint64(1)
	if os.Getenv("STARLING_LONG") != "" {
		worlds = 10
	}
	for seed := range worlds {
		if lost := crashes(t, seed, quickSnapshots); len(lost) > 0 {
			t.Errorf("seed %d: %s", seed, some(lost))
		}
	}
}

// TestCrashesNoSync is the control: without syncs the same test must fail.
func TestCrashesNoSync(t *testing.T) {
	lost := crashes(t, 0, func(cfg *Config) { quickSnapshots(cfg); cfg.NoSync = true })
	if len(lost) == 0 {
		t.Error("nothing is lost without syncs: the test proves nothing")
	}
	t.Logf("without syncs: %s", some(lost))
}

func crashes(t *testing.T, seed uint64, config func(*Config)) (lost []string) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 2+seed))
		c := newCluster(t, config, "a", "b", "c")
		acked := map[string]uint64{}
		for crash := range 50 {
			c.startAll(one)
			l := c.leader(1)
			if lost = missing(t, c, l, acked); len(lost) > 0 {
				break // without syncs the three logs agree on nothing any more
			}
			stop := load(c, l, crash, acked)
			time.Sleep(time.Duration(rng.IntN(100)) * time.Millisecond)
			// First the network goes, so that what a disk does after its copy
			// was taken reaches nobody.
			for _, name := range c.names {
				c.isolate(name, true)
			}
			acked = stop.acked()
			next := newCluster(t, config, "a", "b", "c")
			for _, name := range c.names {
				cfg := vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(2) * rng.IntN(100), RNG: rng}
				next.nodes[name].fs = c.nodes[name].fs.(*vfs.MemFS).CrashClone(cfg)
			}
			c.stopAll()
			stop.end()
			c = next
		}
		c.stopAll()
	})
	return lost
}

// missing lists acknowledged commands that are not where they were said to be,
// and replicas that differ.
func missing(t *testing.T, c *cluster, l string, acked map[string]uint64) (lost []string) {
	eventually(t, "barrier", func() bool { return c.host(l).Barrier(context.Background(), 1) == nil })
	all := history(t, c.host(l), 1)
	for _, name := range c.names {
		eventually(t, name+" catches up", func() bool { return len(history(t, c.host(name), 1)) >= len(all) })
		for i, cmd := range history(t, c.host(name), 1)[:len(all)] {
			if cmd != all[i] {
				lost = append(lost, fmt.Sprintf("%s has %s as number %d, %s has %s", name, cmd, i+1, l, all[i]))
			}
		}
	}
	for cmd, seq := range acked {
		if at := slices.Index(all, cmd) + 1; uint64(at) != seq {
			lost = append(lost, fmt.Sprintf("%s was acked as number %d and is number %d of %d", cmd, seq, at, len(all)))
		}
	}
	return lost
}

// some is the first of many losses.
func some(lost []string) string {
	return fmt.Sprintf("%d are lost or differ: %s", len(lost), strings.Join(lost[:min(len(lost), 5)], "; "))
}

// loader proposes until it is told to end.
type loader struct {
	mu   sync.Mutex
	got  map[string]uint64
	quit atomic.Bool
	wg   sync.WaitGroup
}

func load(c *cluster, l string, round int, acked map[string]uint64) *loader {
	o := &loader{got: acked}
	for w := range 4 {
		o.wg.Go(func() {
			for i := 0; !o.quit.Load(); i++ {
				h := c.host(l)
				if h == nil {
					return
				}
				cmd := fmt.Sprintf("%d/%d/%d", round, w, i)
				done := make(chan struct{})
				h.Propose(1, []byte(cmd), func(r any, err error) {
					if err == nil {
						o.mu.Lock()
						o.got[cmd] = r.(uint64)
						o.mu.Unlock()
					}
					close(done)
				})
				<-done
				time.Sleep(8 * time.Millisecond)
			}
		})
	}
	return o
}

func (o *loader) acked() map[string]uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	m := map[string]uint64{}
	for k, v := range o.got {
		m[k] = v
	}
	return m
}

func (o *loader) end() {
	o.quit.Store(true)
	o.wg.Wait()
}
