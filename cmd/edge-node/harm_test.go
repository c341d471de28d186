package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/wire"
)

// Those who stall, and what they do not read.
const (
	whoStall    = 40
	whoDoNot    = 10
	unread      = 128 // messages
	unreadBytes = 32_000
	// mostMemory is by how much the node may grow: less than three quarters of what waits
	// for those who stall, if each had all of its own. Of that a busy machine leaves much to
	// the collector. The race detector takes memory for all of it.
	mostMemory = whoStall * unread * unreadBytes / 4 * 3 * underRace
)

// Of the followers of a room some stop to read: over WebSocket, over QUIC, and over QUIC
// with a window of 1 GiB and not even acknowledging packets. The others get everything
// meanwhile, what waits is bounded, and later the slow ones get everything too.
func TestStalledReadersHarmNobody(t *testing.T) {
	t.Parallel()
	j := judgedMesh(t, "--regions", "fra")
	for _, c := range []struct {
		name string
		quic bool
		deaf bool
		take int
	}{{"websocket", false, false, 4 << 10}, {"quic", true, false, 16 << 10}, {"deaf", true, true, 1 << 30}} {
		t.Run(c.name, func(t *testing.T) {
			s := &stall{judged: j, room: "stall-" + c.name, quic: c.quic, takes: c.take, gate: make(chan struct{})}
			if c.deaf {
				s.deaf = s.held
			}
			s.run(t)
		})
	}
}

// stall is readers, some of which are held up.
type stall struct {
	*judged
	room  string
	quic  bool
	takes int
	deaf  func()

	stalls atomic.Bool
	gate   chan struct{}
}

func (s *stall) held() {
	if s.stalls.Load() {
		<-s.gate
	}
}

func (s *stall) run(t *testing.T) {
	node := s.Nodes[0]
	s.publish(t, 1)
	config := func(i int) rawConfig {
		c := rawConfig{node: node.QUIC, user: fmt.Sprintf("%s-%d", s.room, i), quic: s.quic}
		if i < whoStall {
			c.takes, c.deaf = s.takes, s.deaf
		}
		return c
	}
	all := s.rawClients(whoStall+whoDoNot, config)
	var first, others, slow sync.WaitGroup
	for i, r := range all {
		if err := r.follow(s.room, 0); err != nil {
			t.Fatal(err)
		}
		first.Add(1)
		if i < whoStall {
			slow.Go(func() { s.everything(t, config(i), r, first.Done, s.held) })
			continue
		}
		others.Go(func() { s.everything(t, config(i), r, first.Done, func() {}) })
	}
	first.Wait()
	before := residentBytes(s.pid(node.ID))
	s.stalls.Store(true)
	s.publish(t, unread)
	others.Wait()
	if most := s.healthOf(t, node.QUIC).MaxUnsentBytes; most > wire.SessionUnsent {
		t.Errorf("%d bytes waited for one client", most)
	}
	grown := residentBytes(s.pid(node.ID)) - before
	t.Logf("the node has grown by %d MiB", grown>>20)
	if grown > mostMemory {
		t.Errorf("the node has grown by %d MiB, more than %d", grown>>20, mostMemory>>20)
	}
	s.stalls.Store(false)
	close(s.gate)
	slow.Wait()
}

// publish says n messages, all at once.
func (s *stall) publish(t *testing.T, n int) {
	t.Helper()
	content := strings.Repeat("x", unreadBytes)
	errs := make(chan error, n)
	for range n {
		s.judged.clients[0].Send(t.Context(), client.Message{Room: s.room, Content: content}, func(_ client.Ack, err error) { errs <- err })
	}
	for range n {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
}

// everything reads all messages in order, over another connection where the node ends
// one of who was slow. Before each it calls held.
func (s *stall) everything(t *testing.T, c rawConfig, r *raw, first, held func()) {
	last := uint64(0)
	var begun sync.Once
	defer begun.Do(first)
	for tries := 0; ; tries++ {
		err := r.read(func(seq uint64) bool {
			if seq != last+1 {
				t.Errorf("%s gets %d after %d", c.user, seq, last)
				return true
			}
			last = seq
			begun.Do(first)
			held()
			return last == 1+unread
		})
		if err == nil {
			return
		}
		if tries == 3 || t.Context().Err() != nil {
			t.Errorf("%s has %d messages: %v", c.user, last, err)
			return
		}
		again, err := s.rawClient(c)
		if err == nil {
			defer again.close()
			err = again.follow(s.room, last)
		}
		if err != nil {
			t.Errorf("%s is not back: %v", c.user, err)
			return
		}
		r = again
	}
}

// residentBytes is the memory of a process, 0 where nobody tells.
func residentBytes(pid int) int {
	if runtime.GOOS != "linux" {
		return 0
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	var size, resident int
	if err == nil {
		_, err = fmt.Sscan(string(b), &size, &resident)
	}
	if err != nil {
		return 0
	}
	return resident * os.Getpagesize()
}

// A session sends as fast as it can, without waiting. It gets what it may have, and is
// told when to come again; what others send meanwhile is taken.
func TestFloodIsRefused(t *testing.T) {
	t.Parallel()
	j := judgedMesh(t, "--regions", "fra", "--limits", "production")
	const floods = 1000
	flood := j.rawClients(1, func(int) rawConfig { return rawConfig{node: j.Nodes[0].QUIC, user: "flood"} })[0]
	ended := make(chan floodEnd, 1)
	go func() { ended <- flood.flood("square", floods) }()
	for i := range 50 {
		if _, err := j.clients[0].Publish(t.Context(), client.Message{Room: "square", Content: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	v := <-ended
	t.Logf("%+v", v)
	// A burst of 100 is let in, and 20/s.
	if v.err != nil || v.taken == 0 || v.refused[wire.CodeRateLimited] == 0 || v.taken > 100+20*int(v.took/time.Second+1) {
		t.Errorf("%+v", v)
	}
	if v.hasty > 0 {
		t.Errorf("%d refusals do not say when to come again", v.hasty)
	}
}

// Very many publish to one room, each no more than it may: the room has a limit of its
// own, and one beside it goes on. Who follows the room gets just what was acknowledged.
func TestHotRoomHasALimit(t *testing.T) {
	t.Parallel()
	j := judgedMesh(t, "--regions", "fra", "--limits", "production")
	const publishers, each = 60, 100 // more than a room's burst of 2,000
	all := j.rawClients(publishers, func(i int) rawConfig { return rawConfig{node: j.Nodes[0].QUIC, user: fmt.Sprint("hot-", i)} })
	ended := make(chan floodEnd, publishers)
	began := time.Now()
	for _, r := range all {
		go func() { ended <- r.flood("hot", each) }()
	}
	for range 20 {
		if _, err := j.clients[0].Publish(t.Context(), client.Message{Room: "quiet", Content: "hush"}); err != nil {
			t.Fatal(err)
		}
	}
	taken, limited := 0, 0
	for range publishers {
		v := <-ended
		if v.err != nil || v.hasty > 0 {
			t.Errorf("%+v", v)
		}
		taken += v.taken
		limited += v.refused[wire.CodeRateLimited]
	}
	if most := 2000 + 500*(1+int(time.Since(began)/time.Second)); taken == 0 || taken > most || limited == 0 {
		t.Errorf("%d taken of at most %d, %d refused", taken, most, limited)
	}
	reader := j.rawClients(1, func(int) rawConfig { return rawConfig{node: j.Nodes[0].QUIC, user: "reader"} })[0]
	t.Logf("%d taken, %d refused", taken, limited)
	if err := reader.follow("hot", 0); err != nil {
		t.Fatal(err)
	}
	last := uint64(0)
	if err := reader.read(func(seq uint64) bool {
		if seq != last+1 {
			t.Errorf("%d after %d", seq, last)
		}
		last = seq
		return last == uint64(taken)
	}); err != nil {
		t.Errorf("%d of %d events: %v", last, taken, err)
	}
}

// floodEnd is what became of a flood.
type floodEnd struct {
	taken   int
	refused map[string]int
	hasty   int // refusals that do not say when to come again
	took    time.Duration
	err     error
}

// floodWindow is how many messages are unanswered: fewer than a session may have.
const floodWindow = 32

// flood sends n messages as fast as they are answered, whatever the answers are.
func (r *raw) flood(room string, n int) floodEnd {
	v, began := floodEnd{refused: map[string]int{}}, time.Now()
	places, failed := make(chan struct{}, floodWindow), make(chan error, 1)
	go func() {
		for i := range n {
			places <- struct{}{}
			p := &wire.Publish{Room: room, ClientMsgId: fmt.Sprint("m", i), Kind: wire.Kind_KIND_MESSAGE, Type: "text", Content: "!", Attempt: uint32(i)}
			if err := r.send(&wire.Frame{Id: uint64(10 + i), Body: &wire.Frame_Publish{Publish: p}}); err != nil {
				failed <- err
				return
			}
		}
		failed <- nil
	}()
	for range n {
		a, err := r.answers.Frame()
		if err != nil {
			v.err = err
			return v
		}
		<-places
		e := a.GetError()
		if e == nil {
			v.taken++
			continue
		}
		v.refused[e.Code]++
		if e.RetryAfterMs == 0 {
			v.hasty++
		}
	}
	v.err, v.took = <-failed, time.Since(began)
	return v
}

// One of three nodes is killed, with all its clients. They are back on the others, after
// what they had, and get everything once; who was on the others stays.
func TestCrowdOfADeadNodeIsBack(t *testing.T) {
	t.Parallel()
	j := judgedMesh(t, "--regions", "fra", "--nodes", "3", "--restart-after", "1h")
	const clients, sent = 60, 100
	died := 2
	node := func(i int) int { return []int{died, died, i % 2}[i%3] } // two of three are on the node that dies
	config := func(i, node int) rawConfig { return rawConfig{node: j.Nodes[node].QUIC, user: fmt.Sprint("crowd-", i)} }
	all := j.rawClients(clients, func(i int) rawConfig { return config(i, node(i)) })
	const room = "square"
	say := func(n int) {
		for i := range n {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			_, err := j.clients[0].Publish(ctx, client.Message{Room: room, Content: fmt.Sprint(i)})
			cancel()
			if err != nil {
				t.Error(err)
				return
			}
		}
	}
	say(1)
	var first, back sync.WaitGroup
	for i, r := range all {
		if err := r.follow(room, 0); err != nil {
			t.Fatal(err)
		}
		first.Add(1)
		back.Go(func() { j.backAfter(r, i, node(i) == died, sent, first.Done, config) })
	}
	first.Wait()
	say(sent / 2)
	j.strike(t, os.Kill, j.Nodes[died].ID)
	say(sent - sent/2 - 1)
	back.Wait()
}

// backAfter reads messages up to one, at another node once its own is dead.
func (j *judged) backAfter(r *raw, i int, dies bool, sent uint64, first func(), config func(i, node int) rawConfig) {
	last, moves := uint64(0), 0
	var begun sync.Once
	defer begun.Do(first)
	for {
		err := r.read(func(seq uint64) bool {
			if seq != last+1 {
				j.t.Errorf("client %d gets %d after %d", i, seq, last)
			}
			last = seq
			begun.Do(first)
			return last >= sent
		})
		if err == nil {
			return
		}
		if !dies || moves > 0 {
			j.t.Errorf("client %d loses its connection: %v", i, err)
			return
		}
		moves++
		again, err := j.rawClient(config(i, i%2))
		if err == nil {
			defer again.close()
			err = again.follow("square", last)
		}
		if err != nil {
			j.t.Errorf("client %d is not back: %v", i, err)
			return
		}
		r = again
	}
}
