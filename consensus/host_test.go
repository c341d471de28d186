package consensus

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling/wire"
)

var one = Group{ID: 1, Voters: []string{"a", "b", "c"}}

func TestCommitEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil, "a", "b", "c")
		start := time.Now()
		c.launch(one)
		defer c.stopAll()
		l := c.leader(1)
		if took := time.Since(start); l != "a" || took > time.Second {
			t.Errorf("leader %s after %v, want the preferred a within 1 s", l, took)
		}
		eventually(t, "nobody is in doubt", func() bool { return c.doubtOf("b") == "" && c.doubtOf("c") == "" })
		if r, err := c.propose(l, 1, "x"); err != nil || r != uint64(1) {
			t.Fatal(r, err)
		}
		has := func(n int) func() bool {
			return func() bool { return len(history(t, c.host("b"), 1)) == n && len(history(t, c.host("c"), 1)) == n }
		}
		eventually(t, "followers have met the leader", has(1))
		for i := range 20 {
			if _, err := c.propose(l, 1, "x"+itoa(i)); err != nil {
				t.Fatal(err)
			}
			start = time.Now()
			eventually(t, "followers deliver", has(i+2))
			if took := time.Since(start); took > 20*time.Millisecond {
				t.Errorf("followers learned of commit %d after %v", i, took)
			}
		}
		c.mustPropose(l, 1, 500, "m")
		want := history(t, c.host(l), 1)
		if len(want) != 521 {
			t.Fatalf("%d commands", len(want))
		}
		for i, cmd := range want[21:] {
			if cmd != "m"+itoa(i) {
				t.Fatalf("position %d holds %s", i, cmd)
			}
		}
		for _, name := range c.names {
			eventually(t, name+" has all", func() bool { return slices.Equal(history(t, c.host(name), 1), want) })
		}
		_, err := c.propose("b", 1, "y")
		if e := wire.AsError(err); e.Code != wire.CodeNotLeader || e.Node != "a" {
			t.Errorf("follower says %v, node %q", err, e.Node)
		}
		if err := c.host("a").Barrier(context.Background(), 1); err != nil {
			t.Error(err)
		}
		if err := c.host("b").Barrier(context.Background(), 1); wire.Code(err) != wire.CodeNotLeader {
			t.Error(err)
		}
		if n := c.host("a").Copies()["b"]; n < 521 {
			t.Errorf("%d commands copied to b", n)
		}
	})
}

func itoa(i int) string {
	if i < 10 {
		return string(rune('0' + i))
	}
	return itoa(i/10) + itoa(i%10)
}
