package starling

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Those who wait under one name get no more turns than one who waits under another; who
// gives up leaves his turn to the next.
func TestSlotsGoRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(1)
		var mu sync.Mutex
		var got []string
		note := func(what string) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, what)
		}
		work := func(name string, patience time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if s.take(ctx, name) != nil {
				note(name + " gives up")
				return
			}
			time.Sleep(time.Second)
			note(name)
			s.give()
		}
		for _, x := range []struct {
			name     string
			patience time.Duration
		}{{"many", time.Hour}, {"many", time.Hour}, {"many", time.Hour}, {"many", 1500 * time.Millisecond}, {"one", time.Hour}, {"hasty", 500 * time.Millisecond}} {
			go work(x.name, x.patience)
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if want := []string{"hasty gives up", "many", "many gives up", "many", "one", "many"}; !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		if s.free != 1 || len(s.waiting) > 0 || len(s.order) > 0 {
			t.Error(fmt.Sprint("left behind: ", s))
		}
	})
}
