package consensus

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestLostAnswerIsAskedForAgain loses what one replica answers to another when a
// group begins: that one settles all the same, long before the answer is given up.
func TestLostAnswerIsAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, nil, "a", "b", "c")
		var deaf atomic.Bool
		deaf.Store(true)
		c.config = func(cfg *Config) {
			from := cfg.Node
			cfg.Dial = func(_ context.Context, to string, snapshot bool) (Stream, error) {
				if from == "a" && to == "c" && deaf.Load() {
					return nil, errCut
				}
				return c.dial(from, to, snapshot)
			}
		}
		c.launch(one)
		defer c.stopAll()
		time.Sleep(10 * time.Millisecond)
		if c.doubtOf("c") == "" {
			t.Fatal("c has its answers: the test proves nothing")
		}
		deaf.Store(false)
		start := time.Now()
		eventually(t, "c is sure", func() bool { return c.doubtOf("c") == "" })
		if took := time.Since(start); took > requestTimeout*3/4 {
			t.Errorf("c settles after %v", took)
		}
	})
}
