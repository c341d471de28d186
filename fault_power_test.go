package starling_test

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/starling-im/starling/internal/oracle"
	"github.com/starling-im/starling/internal/simdisk"
)

// The tests of this name are the rows of the matrix of faults, by their
// numbers, as far as they can be had in virtual time.

// heals is how long a leader's loss may last for users, three election
// timeouts: of groups whose voters are far apart each is drawn between 1.5 s
// and 3 s. In it a node has to notice that nobody answers what it passed on,
// since sends keep their order.
const heals = 3 * 3 * time.Second

// Nodes are killed: acked messages stay, and another leader is there soon.
func TestFault01Kills(t *testing.T) {
	t.Parallel()
	for name, who := range map[string]who{"follower": follower, "leader": leader, "minority": nodes("sin-1", "gru-1"), "all": all} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range rounds(1, 50) {
				var killed time.Time
				sc := scenario{seed: seed, acts: []act{
					untilAcked, sometime(2 * time.Second), mark("dead", who), now(&killed), kill(marked("dead"), 0),
					chat(9 * time.Second), restart, chat(time.Second),
				}}
				if name == "minority" {
					sc.regions = []string{"fra", "iad", "sin", "gru", "syd"}
				}
				if h := holds(t, sc); name != "all" {
					within(t, h, killed, heals)
				}
			}
		})
	}
}

// now notes the time.
func now(at *time.Time) act { return func(*story) { *at = time.Now() } }

// within checks that after a moment a send to the lobby is acked soon, and
// that it was sent after it too.
func within(t *testing.T, h *oracle.History, moment time.Time, d time.Duration) {
	t.Helper()
	first := int64(0)
	for _, s := range h.Sends {
		if s.Room == "lobby" && s.Outcome == oracle.Acked && s.Call > moment.UnixNano() && (first == 0 || s.Return < first) {
			first = s.Return
		}
	}
	if took := time.Duration(first - moment.UnixNano()); first == 0 || took > d {
		t.Errorf("the first ack of a later send comes after %v, not within %v", took, d)
	} else {
		t.Logf("the first ack of a later send comes after %v", took)
	}
}

// The power of one node goes in the middle of whatever it writes, again and
// again, each time some writes later.
func TestFault02PowerGoesAtAnyWrite(t *testing.T) {
	t.Parallel()
	for seed := range rounds(2, 100) {
		var acts []act
		for round := range 4 {
			acts = append(acts, untilAcked, chat(time.Second), mark("victim", leader), func(s *story) {
				disk(marked("victim"), simdisk.PowerOff{After: s.rng.IntN(60) + 20*round})(s)
			}, dies("victim", syscall.EIO, 30*time.Second), losePower("victim"), restart, chat(2*time.Second))
		}
		holds(t, scenario{seed: seed, acts: acts})
	}
}

// dies waits for nodes that cannot go on, each because of an error.
func dies(name string, want error, within time.Duration) act {
	return func(s *story) {
		for _, id := range s.named[name] {
			if err := s.died(id, within); !errors.Is(err, want) {
				s.t.Errorf("seed %d: %s ended with %v, want %v, within %v", s.seed, id, err, want, within)
			} else if s.seed == 0 {
				s.t.Logf("%s ended with: %v", id, err)
			}
		}
	}
}

// losePower leaves of the disks of nodes that do not run what was synced.
func losePower(name string) act {
	return func(s *story) {
		for _, id := range s.named[name] {
			s.disks[id] = s.disks[id].PowerLoss(0)
		}
	}
}
