package starling_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/mesh"
	"github.com/starling-im/starling/wire"
)

// freight is what went over each way between two regions of frames of events, and what of it
// had to.
type freight struct {
	mu    sync.Mutex
	bytes map[[2]string]int // frames of events, as they were written, and what waited before them
	least map[[2]string]int // of the events, by regions
	count map[[2]string]int // the events
	// frames are those in which they came.
	frames map[[2]string]int
}

// fed notes a frame of events: they had to go, once, compressed as a whole where that is
// done, without the frame around them.
func (f *freight) fed(from, to string, events [][]byte) {
	way := [2]string{regionName(from), regionName(to)}
	plain := 0
	for _, e := range events {
		plain += len(e)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count[way] += len(events)
	f.frames[way]++
	f.least[way] += min(plain, compressed(events))
}

// compressed is the size of events in a frame of a link, without its head and those of the
// protocol around its content.
func compressed(events [][]byte) int {
	const head = 6 // version, flags, length
	return len(wire.AppendCompressedRun(nil, 0, wire.Run(events), wire.Shared(wire.Dictionaries()))) - head
}

func (f *freight) written(from, to string, bytes int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bytes[[2]string{regionName(from), regionName(to)}] += bytes
}

func regionName(node string) string {
	region, _, _ := strings.Cut(node, "-")
	return region
}

// metered are the bytes of events that nodes sent to other regions.
func (w *world) metered() map[[2]string]int {
	sum := map[[2]string]int{}
	for id, r := range w.nodes {
		for _, t := range r.node.Traffic() {
			if way := [2]string{regionName(id), regionName(t.Peer)}; t.Class == mesh.Events && t.Peer != "" && way[0] != way[1] {
				sum[way] += int(t.Sent.Bytes)
			}
		}
	}
	return sum
}

// pace is how fast logs are said. Beyond is how many bytes there may be for each that had to
// be: heads are a tenth of a single message.
type pace struct {
	name   string
	gap    time.Duration // 0: as the logs have it
	one    bool          // all in one room
	beyond float64
}

// TestBytes shows that links between regions carry little more of a room than one compressed
// copy of its events for each far region.
func TestBytes(t *testing.T) {
	t.Parallel()
	logs := theLogs(t, 100, 2*time.Second)
	regions := []string{"fra", "fra", "fra", "iad", "iad", "sin", "sin"}
	paces := []pace{{"busy", 250 * time.Microsecond, true, 1.1}, {"calm", 0, false, 1.15}}
	if os.Getenv("STARLING_LONG") != "" {
		logs = theLogs(t, 300, 10*time.Second)
		regions = append([]string{"fra", "fra", "iad"}, twelve...)
		paces = append(paces, pace{"brisk", time.Millisecond, true, 1.1})
	}
	for _, p := range paces {
		t.Run(p.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { carried(t, logs, regions, p) })
		})
	}
}

// carried plays logs, all from one node of the home, to followers on all nodes.
func carried(t *testing.T, logs []line, regions []string, p pace) {
	f := &freight{bytes: map[[2]string]int{}, least: map[[2]string]int{}, count: map[[2]string]int{}, frames: map[[2]string]int{}}
	x := newFarCrowd(t, func(n *starling.Node) {
		n.OnFed(func(from string, events [][]byte) { f.fed(from, n.ID(), events) })
		n.OnWritten(func(to string, bytes int) { f.written(n.ID(), to, bytes) })
	}, regions...)
	x.actAs = "*"
	rooms := map[string]string{}
	for _, l := range logs {
		if rooms[l.room] = x.room; !p.one {
			rooms[l.room] = "~fra/" + strings.NewReplacer("#", "", "/", "-").Replace(l.room)
		}
	}
	clients := x.watchAll(slices.Compact(slices.Sorted(maps.Values(rooms))))
	time.Sleep(30 * time.Second)
	f.clear()
	before := x.metered()
	x.speak(logs, rooms, p.gap)
	time.Sleep(5 * time.Second)
	f.judge(t, less(x.metered(), before), len(logs), p)
	for _, c := range clients {
		ok(t, c.Close())
	}
	x.stop()
}

// less is what was added since.
func less(now, before map[[2]string]int) map[[2]string]int {
	for way := range now {
		now[way] -= before[way]
	}
	return now
}

// watchAll has a client on each node follow all rooms.
func (x *farCrowd) watchAll(rooms []string) (clients []*client.Client) {
	for i := range x.peers {
		c := x.dial(fmt.Sprint("user-", i), i)
		clients = append(clients, c)
		for _, room := range rooms {
			follow, err := c.FollowFromHead(x.ctx, room)
			ok(x.t, err)
			x.all.Go(func() {
				for {
					if _, err := follow.Next(x.ctx); err != nil {
						return
					}
				}
			})
		}
	}
	return clients
}

// speak says logs, one message each gap, and waits until all are acknowledged.
func (x *farCrowd) speak(logs []line, rooms map[string]string, gap time.Duration) {
	speaker := x.dial("bot", 0)
	began := time.Now()
	var talk sync.WaitGroup
	for k, l := range logs {
		at := l.at
		if gap > 0 {
			at = time.Duration(k) * gap
		}
		time.Sleep(time.Until(began.Add(at)))
		talk.Add(1)
		speaker.Send(x.ctx, client.Message{Room: rooms[l.room], ID: fmt.Sprint("m", k), Content: l.text, ActAs: l.from}, func(_ client.Ack, err error) {
			defer talk.Done()
			if err != nil {
				x.t.Error(err)
			}
		})
	}
	talk.Wait()
	ok(x.t, speaker.Close())
}

func (f *freight) clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.bytes)
	clear(f.least)
	clear(f.count)
	clear(f.frames)
}

// judge compares what ways carried with what they had to. All is what they carried with all
// else that sessions of nodes say.
func (f *freight) judge(t *testing.T, all map[[2]string]int, said int, p pace) {
	f.mu.Lock()
	defer f.mu.Unlock()
	worst, whole, bytes, least, frames, events := 0.0, 0.0, 0.0, 0.0, 0, 0
	into := map[string]int{}
	for way := range f.least {
		if way[0] == way[1] {
			continue
		}
		net := float64(min(f.bytes[way], all[way])) // both are at least what events took
		worst = max(worst, net/float64(f.least[way]))
		whole = max(whole, float64(all[way])/float64(f.least[way]))
		bytes, least = bytes+net, least+float64(f.least[way])
		frames, events = frames+f.frames[way], events+f.count[way]
		into[way[1]] += f.count[way]
	}
	t.Logf("%s, %d messages into %d regions: %.1f events a frame; %.3f bytes for each that had to go, %.3f on the worst link; with all else that sessions of nodes say %.3f",
		p.name, said, len(into), float64(events)/float64(frames), bytes/least, worst, whole)
	for region, events := range into {
		if events != said {
			t.Errorf("%d copies of %d events came into %s", events, said, region)
		}
	}
	if worst == 0 || worst > p.beyond {
		t.Errorf("%s: %.3f times the bytes of one compressed copy, more than %.2f", p.name, worst, p.beyond)
	}
}
