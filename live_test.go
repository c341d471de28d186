package starling_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/relay"
	"github.com/starling-im/starling/wire"
)

// listener hears what is said live in a room.
type listener struct {
	mu      sync.Mutex
	heard   map[string]int // lines, by what they say; each is said once
	last    map[string]int // the last one of a user
	from    map[string]int // lines, by the node where they were said
	leftOut int
	most    int // bytes told at a time
	bad     []string
}

func (w *world) listen(c *client.Client, room string, each func()) *listener {
	l := &listener{heard: map[string]int{}, last: map[string]int{}, from: map[string]int{}}
	_, err := c.Follow(w.t.Context(), room, 0, client.WithLive(func(is client.Live) {
		each()
		l.hear(is)
	}))
	ok(w.t, err)
	return l
}

func (l *listener) hear(is client.Live) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leftOut += is.LeftOut
	bytes := 0
	for _, line := range is.Lines {
		var number int
		var node string
		if _, err := fmt.Sscanf(line.Content, "line %d from %s", &number, &node); err != nil {
			l.bad = append(l.bad, err.Error())
		}
		if number <= l.last[line.User] {
			l.bad = append(l.bad, fmt.Sprintf("%s: %q after line %d", line.User, line.Content, l.last[line.User]))
		}
		l.heard[line.User+": "+line.Content]++
		l.last[line.User] = number
		l.from[node]++
		bytes += len(line.User) + len(line.Content)
	}
	l.most = max(l.most, bytes)
	if len(is.Lines) > 32 {
		l.bad = append(l.bad, fmt.Sprintf("%d lines at a time", len(is.Lines)))
	}
}

// counts are the lines that were told, and those with the ones that were left out.
func (l *listener) counts() (told, all int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.heard), len(l.heard) + l.leftOut
}

// A stream is a room in which much is said live, on all nodes of a mesh.
type stream struct {
	*crowd
	listeners []*listener
	lines     map[string]int // said by each user
	said      int
}

func newStream(t *testing.T, regions ...string) *stream {
	s := &stream{crowd: newCrowd(t, regions...), lines: map[string]int{}}
	for i, c := range s.clients {
		s.listeners = append(s.listeners, s.listen(c, "lobby", func() { s.edges.note(fmt.Sprint("live to ", i), wire.AggregateEvery) }))
	}
	s.see(0, 2*len(s.clients), 5*time.Second, nothing)
	time.Sleep(10 * time.Second)
	return s
}

// say has a user say the next line at a node.
func (s *stream) say(user string, at int) {
	s.t.Helper()
	s.lines[user]++
	ok(s.t, s.clients[at].SayLiveAs(user, "lobby", fmt.Sprintf("line %d from %s", s.lines[user], s.peers[at].ID)))
	s.said++
}

// A thousand users say two lines a second in one room, on all nodes of a mesh. No group has
// an entry more and nothing goes over an edge twice within 250 ms; what each follower is told
// is bounded, comes once, of all nodes and most users, and adds up.
func TestThousandSayLive(t *testing.T) {
	const (
		users   = 1000
		seconds = 10
		every   = 500 * time.Millisecond
		step    = 10 * time.Millisecond
	)
	synctest.Test(t, func(t *testing.T) {
		s := newStream(t, "fra", "iad", "sin", "sin", "hkg", "hkg")
		synctest.Wait()
		before, sent := s.entries(), s.edges.count()
		s.say("first", 5)
		time.Sleep(time.Second)
		for i, l := range s.listeners {
			if told, all := l.counts(); told != 1 || all != 1 {
				t.Errorf("listener %d was told %d of %d lines", i, told, all)
			}
		}
		for range int(seconds * time.Second / every) {
			for k := range users {
				if k%int(users*step/every) == 0 {
					time.Sleep(step)
				}
				s.say(fmt.Sprint("user-", k), k%len(s.clients))
			}
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		for i, l := range s.listeners {
			told, all := l.counts()
			if all != s.said {
				t.Errorf("listener %d knows of %d lines, %d were said", i, all, s.said)
			}
			if least := seconds * 4 * 32 / 2; told < least || len(l.last) < users/2 || l.most > 8<<10 || len(l.bad) > 0 {
				t.Errorf("listener %d was told %d lines of %d users, at most %d bytes at a time; %s", i, told, len(l.last), l.most, strings.Join(l.bad, ", "))
			}
			for _, p := range s.peers {
				if l.from[p.ID] < told/len(s.peers)/2 {
					t.Errorf("listener %d was told %d of %d lines from %s", i, l.from[p.ID], told, p.ID)
				}
			}
			t.Logf("listener %d was told %d lines of %d users, by node %v", i, told, len(l.last), l.from)
		}
		for _, p := range s.peers {
			if is := s.nodes[p.ID].node.Signals(); is.Datagrams == 0 || is.Dropped[relay.Drop{Reason: "live", Class: "live"}] == 0 || droppedBut("live", is) > 0 {
				t.Errorf("%s: %+v", p.ID, is)
			}
		}
		if after := s.entries(); before != after {
			t.Errorf("groups have entries more: %s, %s", before, after)
		}
		t.Logf("%d lines, %d aggregates and Signals", s.said, s.edges.count()-sent)
		s.end()
	})
}

// While nodes die and others take their place as parents nobody hears a line twice, and soon
// all hear each other again.
func TestLiveWhileParentsChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStream(t, "fra", "iad", "sin", "sin", "hkg", "hkg")
		alive := []int{0, 1, 2, 3, 4, 5}
		talk := func(d time.Duration) {
			for began := time.Now(); time.Since(began) < d; time.Sleep(100 * time.Millisecond) {
				for _, i := range alive {
					_ = s.clients[i].SayLiveAs(fmt.Sprint("user-", i), "lobby", fmt.Sprintf("line %d from %s", s.said+1, s.peers[i].ID))
					s.said++
				}
			}
		}
		talk(3 * time.Second)
		for _, dead := range []int{0, 2} {
			s.kill(s.peers[dead].ID, 100)
			s.onlookers[dead] = nil
			for k, i := range alive {
				if i == dead {
					alive = append(alive[:k], alive[k+1:]...)
					break
				}
			}
			talk(20 * time.Second)
			for _, i := range alive {
				s.listeners[i].mu.Lock()
				clear(s.listeners[i].from)
				s.listeners[i].mu.Unlock()
			}
			talk(2 * time.Second)
			for _, i := range alive {
				l := s.listeners[i]
				l.mu.Lock()
				for _, k := range alive {
					if l.from[s.peers[k].ID] == 0 {
						t.Errorf("without %s %s hears nothing from %s", s.peers[dead].ID, s.peers[i].ID, s.peers[k].ID)
					}
				}
				if len(l.bad) > 0 {
					t.Errorf("%s: %s", s.peers[i].ID, strings.Join(l.bad, ", "))
				}
				l.mu.Unlock()
			}
		}
		s.end()
	})
}
