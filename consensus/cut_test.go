package consensus

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestLogIsCutByBytes writes a few large entries: the logs stay small, a
// follower that was away is served, and a start knows the sizes again.
func TestLogIsCutByBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, func(cfg *Config) { cfg.SnapshotBytes, cfg.TrailingBytes = 64<<10, 16<<10 }, "a", "b", "c")
		c.startAll(one)
		defer c.stopAll()
		l := c.leader(1)
		big := strings.Repeat("x", 4<<10)
		write := func(prefix string) {
			for i := range 60 {
				c.mustPropose(l, 1, 1, prefix+itoa(i)+big)
				time.Sleep(50 * time.Millisecond)
			}
			time.Sleep(2 * tendEvery)
		}
		write("m")
		for _, name := range c.names {
			logs := c.host(name).group(1).logs
			if logs.sizes.all > 80<<10 || logs.first < 30 {
				t.Errorf("%s keeps %d bytes from entry %d", name, logs.sizes.all, logs.first)
			}
		}
		c.isolate("c", true)
		write("n")
		c.isolate("c", false)
		want := history(t, c.host(l), 1)
		eventually(t, "c catches up", func() bool { return slices.Equal(history(t, c.host("c"), 1), want) })
		if c.nodes["c"].machines[1].restored == 0 {
			t.Error("c caught up without a snapshot: the log was not cut")
		}
		before := c.host("b").group(1).logs.sizes
		c.stop("b")
		c.start("b", one)
		if after := c.host("b").group(1).logs.sizes; after.all != before.all || !slices.Equal(after.each, before.each) {
			t.Errorf("%d bytes before the start, %d after", before.all, after.all)
		}
	})
}
