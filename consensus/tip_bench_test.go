package consensus

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// BenchmarkTip measures what the tip adds to a durable write of 4 KiB, on a real
// disk: writes with and without take turns, so that both meet the same load.
func BenchmarkTip(b *testing.B) {
	for _, groups := range []int{1, 4, 12} {
		b.Run(fmt.Sprintf("groups=%d", groups), func(b *testing.B) { benchTip(b, groups) })
	}
}

func benchTip(b *testing.B, groups int) {
	s, err := openStore(Config{Dir: b.TempDir(), FS: vfs.Default}.withDefaults(), func(err error) { b.Error(err) })
	if err != nil {
		b.Fatal(err)
	}
	defer s.close()
	const turn = 20
	var took [2][]time.Duration
	var mu sync.Mutex
	value := make([]byte, 4<<10)
	for i := 0; i < b.N; i += turn * groups {
		with := i / (turn * groups) % 2
		var wg sync.WaitGroup
		for group := range groups {
			wg.Go(func() {
				for n := range turn {
					batch := s.db.NewBatch()
					_ = batch.Set(key(tableLog, uint32(group), fmt.Sprint(i, n)), value, nil)
					start := time.Now()
					if with == 1 {
						_ = s.sync(batch, uint32(group), func(*tip) {})
					} else {
						_ = s.commit(batch, s.write)
					}
					d := time.Since(start)
					mu.Lock()
					took[with] = append(took[with], d)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
	}
	for with, name := range []string{"without", "with"} {
		slices.Sort(took[with])
		if n := len(took[with]); n > 0 {
			b.ReportMetric(float64(took[with][n/2])/1e6, name+"-p50-ms")
			b.ReportMetric(float64(took[with][n*95/100])/1e6, name+"-p95-ms")
		}
	}
	b.ReportMetric(0, "ns/op")
}
