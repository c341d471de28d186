package starling_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/starling-im/starling/internal/simdisk"
)

// The disk of the leader fails. Its process ends and says why; the others go
// on; once the disk is whole the node is back with all that was acked.
func TestFault03DiskFails(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		fault simdisk.Fault
		want  error
	}{
		"sync":        {simdisk.FailSync{}, syscall.EIO},
		"sync of log": {simdisk.FailSync{Files: "*.log"}, syscall.EIO},
		"full":        {simdisk.Full{}, syscall.ENOSPC},
		"short write": {simdisk.Full{After: 10_001}, syscall.ENOSPC},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range rounds(1, 30) {
				var broken time.Time
				h := holds(t, scenario{seed: seed, acts: []act{
					untilAcked, chat(2 * time.Second), mark("victim", leader), now(&broken), disk(marked("victim"), x.fault),
					dies("victim", x.want, 30*time.Second), chat(7 * time.Second), heal(), restart, chat(time.Second),
				}})
				within(t, h, broken, heals)
			}
		})
	}
}

// A disk that cannot be read ends its node as soon as it must be.
func TestFault03DiskCannotBeRead(t *testing.T) {
	t.Parallel()
	for seed := range rounds(1, 30) {
		holds(t, scenario{seed: seed, acts: []act{
			untilAcked, chat(2 * time.Second), mark("victim", follower), kill(marked("victim"), 0),
			disk(marked("victim"), simdisk.FailRead{}), chat(time.Second), restart,
			dies("victim", syscall.EIO, 30*time.Second), chat(2 * time.Second), heal(), restart, chat(2 * time.Second),
		}})
	}
}

// The end of a node's log is damaged while it does not run, or its disk is
// replaced by an older copy or an empty one. It has forgotten what it
// acknowledged, and must neither vote nor serve before it has caught up. With
// another node cut off at the same time, its vote would decide. An old copy is
// of an earlier life: of the same one it is known only ten minutes later.
func TestFault04DiskForgets(t *testing.T) {
	t.Parallel()
	for name, forget := range map[string]act{
		"truncated":   damage(simdisk.Truncate{Files: "*.log", By: 3000}),
		"torn":        damage(simdisk.Tear{Files: "*.log"}),
		"bit flipped": damage(simdisk.Flip{Files: "*.log", At: -700, Bytes: 8}),
		"old copy":    putBack,
		"empty":       func(s *story) { s.disks[s.named["victim"][0]] = simdisk.New(99) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range rounds(1, 30) {
				holds(t, scenario{seed: seed, acts: []act{
					untilAcked, chat(2 * time.Second), mark("victim", follower), copyDisk, kill(marked("victim"), 0), restart, chat(3 * time.Second),
					// The victim's ack is needed for what comes now.
					mark("away", others(either(leader, marked("victim")))), cut(marked("away")), chat(3 * time.Second),
					kill(either(leader, marked("victim")), 0), forget, mend,
					func(s *story) { s.start(s.named["victim"][0]) }, chat(5 * time.Second),
					restart, chat(2 * time.Second),
				}})
			}
		})
	}
}

// either names the nodes of both.
func either(a, b who) who { return func(s *story) []string { return append(a(s), b(s)...) } }

func damage(f simdisk.Fault) act { return func(s *story) { disk(marked("victim"), f)(s) } }

// copyDisk keeps a copy of the victim's disk, and putBack puts it back.
func copyDisk(s *story) {
	for _, id := range s.named["victim"] {
		s.copies[id] = s.disks[id].Copy()
	}
}

func putBack(s *story) {
	for _, id := range s.named["victim"] {
		s.disks[id] = s.copies[id]
	}
}

// mend heals the network alone.
func mend(s *story) { s.net.Heal() }

// The leader's disk stalls, for a while or for good: it gives up leadership,
// clients see latency and then another leader, and nothing is lost.
func TestFault05DiskStalls(t *testing.T) {
	t.Parallel()
	for _, stall := range []time.Duration{time.Second, 10 * time.Second, 0} {
		t.Run(stall.String(), func(t *testing.T) {
			t.Parallel()
			for seed := range rounds(1, 30) {
				var stalled time.Time
				h := holds(t, scenario{seed: seed, calm: true, acts: []act{
					untilAcked, chat(2 * time.Second), mark("victim", leader), now(&stalled),
					disk(marked("victim"), simdisk.Stall{For: stall}), chat(15 * time.Second), heal(), chat(2 * time.Second),
				}})
				// 2 s until it is noticed, an election, and the client's way there.
				within(t, h, stalled, 3*time.Second+heals)
			}
		})
	}
}

// Disks that take their time cost time and nothing else.
func TestFault05DisksAreSlow(t *testing.T) {
	t.Parallel()
	for seed := range rounds(1, 30) {
		holds(t, scenario{seed: seed, calm: true, acts: []act{
			untilAcked, disk(leader, simdisk.Slow{Sync: 300 * time.Millisecond}), chat(5 * time.Second),
			disk(follower, simdisk.Slow{Sync: 700 * time.Millisecond}), chat(5 * time.Second), heal(), chat(time.Second),
		}})
	}
}
