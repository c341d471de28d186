package consensus

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// BenchmarkCommands measures commands of 128 bytes, 256 in flight in all, on
// three hosts in this process, with fsync on a real disk.
func BenchmarkCommands(b *testing.B) {
	for _, groups := range []int{1, 4, 12} {
		b.Run(fmt.Sprintf("groups=%d", groups), func(b *testing.B) { benchCommands(b, groups, 256) })
	}
	b.Run("groups=1/inflight=4096", func(b *testing.B) { benchCommands(b, 1, 4096) })
}

// plain stores each command under its number, and nothing else.
type plain struct{ n uint64 }

func (p *plain) Apply(tx Tx, _ int64, commands [][]byte) []any {
	results := make([]any, len(commands))
	for i, c := range commands {
		p.n++
		tx.Set(fmt.Appendf(nil, "%020d", p.n), c)
		results[i] = p.n
	}
	return results
}
func (*plain) Committed() {}
func (*plain) Restored()  {}

func benchCommands(b *testing.B, groups, inflight int) {
	names := []string{"a", "b", "c"}
	c := newCluster(b, func(cfg *Config) {
		cfg.FS = vfs.Default
		cfg.Machine = func(uint32) Machine { return &plain{} }
	}, names...)
	var all []Group
	for i := range groups {
		all = append(all, Group{ID: uint32(i), Voters: []string{names[i%3], names[(i+1)%3], names[(i+2)%3]}})
	}
	for _, name := range names {
		c.nodes[name].dir = b.TempDir()
		c.start(name, all...)
	}
	defer c.stopAll()
	leaders := make([]*Host, groups)
	for i := range leaders {
		leaders[i] = c.host(c.leader(uint32(i)))
	}
	cmd := make([]byte, 128)
	slots := make(chan struct{}, inflight)
	var failed atomic.Int64
	var took atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for i := range b.N {
		slots <- struct{}{}
		wg.Add(1)
		start := time.Now()
		g := i % groups
		leaders[g].Propose(uint32(g), cmd, func(_ any, err error) {
			if err != nil {
				failed.Add(1)
			}
			took.Add(int64(time.Since(start)))
			<-slots
			wg.Done()
		})
	}
	wg.Wait()
	b.StopTimer()
	if failed.Load() > 0 {
		b.Errorf("%d failed", failed.Load())
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commands/s")
	b.ReportMetric(float64(took.Load())/float64(b.N)/1e6, "mean-ms")
	b.ReportMetric(0, "ns/op")
}
