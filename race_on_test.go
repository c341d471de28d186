//go:build race

package starling_test

import (
	"flag"
	"os"
	"testing"
)

// underRace: the race detector makes all ten times slower. It finds what is not ordered
// in whatever round that happens, so that it needs fewer of them, and less load.
const underRace = true

// TestMain has one mesh go on at a time: the race detector ends a process with more than
// 8,128 goroutines, and one with too many events.
func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "1")
	os.Exit(m.Run())
}
