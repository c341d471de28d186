package starling

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A change is waited for in the epoch in which it was made: what an earlier one had
// under its number, a refusal too, says nothing of it.
func TestChangesOfAnotherEpoch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &changes{}
		refusal := errors.New("refused")
		for seq := uint64(1); seq <= 9; seq++ {
			c.folded(seq, 0, map[bool]error{true: refusal}[seq == 7])
		}
		if err := c.wait(t.Context(), 7); !errors.Is(err, refusal) {
			t.Errorf("the seventh change: %v", err)
		}
		c.forget()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.wait(ctx, 7); ctx.Err() == nil {
			t.Errorf("another seventh change, before it was folded: %v", err)
		}
		c.folded(9, 0, nil)
		if err := c.wait(t.Context(), 7); err != nil {
			t.Errorf("another seventh change: %v", err)
		}
	})
}
