//go:build unix

package relay

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/starling-im/starling/wire"
)

// BenchmarkTelling tells all listeners of a room of who types: what that costs, and how
// long the reader of a link waits meanwhile that hears of another room.
func BenchmarkTelling(b *testing.B) {
	for _, size := range []int{1000, 10_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) { benchmarkTelling(b, size, false) })
		b.Run(fmt.Sprint(size, "-heard"), func(b *testing.B) { benchmarkTelling(b, size, true) })
	}
}

func benchmarkTelling(b *testing.B, size int, heard bool) {
	x := NewSignals(SignalsConfig{Self: "fra", Parent: func(Subject) string { return "" }})
	go x.Run(b.Context())
	about := Subject{App: "demo", Room: "r"}
	frames := listening(x, about, size)
	await := func(n int64) {
		time.Sleep(wire.AggregateEvery)
		for frames.Load() < n {
			time.Sleep(2 * time.Millisecond)
		}
	}
	await(int64(size))
	var most time.Duration
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for heard {
			select {
			case <-stop:
				return
			case <-time.After(200 * time.Microsecond):
			}
			began := time.Now()
			x.HearParent("iad", &wire.Aggregate{App: "demo", Room: "other"})
			most = max(most, time.Since(began))
		}
	}()
	before := processor()
	for k := 0; b.Loop(); k++ {
		told := frames.Load()
		x.typing(about, "bob", k%2 == 0)
		await(told + int64(size))
	}
	used := processor() - before
	close(stop)
	<-stopped
	if heard {
		b.ReportMetric(float64(most.Microseconds()), "µs-waited-at-most")
	} else {
		b.ReportMetric(float64(used.Nanoseconds())/float64(b.N)/float64(size), "ns-of-processor/listener")
	}
}

// processor is what the process has used of it.
func processor() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
