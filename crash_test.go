package starling_test

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/starling-im/starling/internal/oracle"
)

// rounds is how often a test of chance tries: more if STARLING_LONG is set, fewer under
// the race detector.
func rounds(usual, long uint64) uint64 {
	switch {
	case os.Getenv("STARLING_LONG") != "":
		return long
	case underRace:
		return (usual + 2) / 3
	}
	return usual
}

// loadPause is what those who send one message after the other wait before the next.
func loadPause(usual time.Duration) time.Duration {
	if underRace {
		return max(5*usual, 250*time.Millisecond)
	}
	return usual
}

// powerLoss is a chat during which the power of all nodes goes at one moment.
func powerLoss(seed uint64, noSync bool) scenario {
	keep := int(seed % 2 * (seed * 37 % 100)) // every second time, some of what was not synced
	if noSync {
		keep = 0
	}
	return scenario{seed: seed, noSync: noSync, rooms: []string{"lobby"}, acts: []act{
		untilAcked, sometime(2 * time.Second), kill(all, keep), restart,
	}}
}

func TestAckedSurvivesPowerLossOfAllNodes(t *testing.T) {
	t.Parallel()
	for seed := range rounds(10, 50) {
		holds(t, powerLoss(seed, false))
	}
}

// The negative control: with sync off the same scenario must lose messages.
func TestWithoutSyncAckedIsLost(t *testing.T) {
	t.Parallel()
	for seed := range uint64(5) {
		found, _ := play(t, powerLoss(seed, true))
		if slices.ContainsFunc(found, func(f oracle.Finding) bool { return f.Rule == oracle.Stored && !f.Undecided }) {
			t.Logf("seed %d, as it should: %v", seed, found[0])
			return
		}
	}
	t.Error("nothing is lost although the disks forget: the test proves nothing")
}
