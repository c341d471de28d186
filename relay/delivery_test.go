package relay

import (
	"context"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/starling-im/starling/wire"
)

// sink is the connection of a client that takes everything at once.
type sink struct {
	frames  io.Reader
	bytes   atomic.Int64
	crowd   *crowdOfSinks
	stopped chan struct{}
}

func (s *sink) Write(p []byte) (int, error)      { return len(p), nil }
func (s *sink) SetReadDeadline(time.Time) error  { close(s.stopped); return nil }
func (s *sink) SetWriteDeadline(time.Time) error { return nil }
func (s *sink) Send(buf []byte, _ func(error)) (bool, error) {
	s.bytes.Add(int64(len(buf) - wire.Headroom))
	s.crowd.writes.Add(1)
	return true, nil
}

// Read gives the Follow, and then nothing until the session ends.
func (s *sink) Read(p []byte) (int, error) {
	if n, err := s.frames.Read(p); err == nil {
		return n, nil
	}
	<-s.stopped
	return 0, io.EOF
}

// crowdOfSinks are many clients that follow one room.
type crowdOfSinks struct {
	store  *store
	hub    *Hub
	writes atomic.Int64
	traced atomic.Int64 // writes of traced events that were told of
	size   int
}

// newCrowdOfSinks has so many clients follow theRoom.
func newCrowdOfSinks(t testing.TB, size int) *crowdOfSinks {
	s, hub := newStore()
	c := &crowdOfSinks{store: s, hub: hub, size: size}
	hub.cfg.Traced = func([]byte, Peer, time.Time) { c.traced.Add(1) }
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{}, size)
	for range size {
		follow := wire.AppendMessage(nil, follow(1, 0))
		to := &sink{frames: io.LimitReader(&repeated{follow}, int64(len(follow))), crowd: c, stopped: make(chan struct{})}
		go func() {
			_ = NewSession(SessionConfig{
				Peer: Peer{App: "demo", User: "u"}, Frames: wire.NewReader(to, wire.ClientFrame), Replies: to,
				Hub: hub, Backend: new(backend), Admission: NewAdmission(AdmissionConfig{}),
			}).Run(ctx)
			ended <- struct{}{}
		}()
	}
	t.Cleanup(func() {
		cancel()
		for range size {
			<-ended
		}
		hub.Close()
	})
	for c.waiting() < size {
		c.pause()
	}
	return c
}

// repeated is a reader of the same bytes again and again.
type repeated struct{ b []byte }

func (r *repeated) Read(p []byte) (int, error) { return copy(p, r.b), nil }

// waiting is how many cursors wait for an event.
func (c *crowdOfSinks) waiting() int {
	c.hub.mu.Lock()
	t := c.hub.topics[theRoom]
	c.hub.mu.Unlock()
	if t == nil {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.waiting)
}

// pause passes a moment: nothing tells when a cursor waits.
func (c *crowdOfSinks) pause() { time.Sleep(100 * time.Microsecond) }

// deliver appends an event and waits until all have it.
func (c *crowdOfSinks) deliver(e []byte) {
	before := c.writes.Load()
	c.hub.Append(theRoom, wire.EventSeq(e), e)
	for c.writes.Load() < before+int64(c.size) || c.waiting() < c.size {
		c.pause()
	}
}

// TestDeliveriesAllocateNothing has a thousand clients follow one room: what an event
// costs in garbage does not depend on how many follow, nor on whether it is traced.
func TestDeliveriesAllocateNothing(t *testing.T) {
	if underRace {
		t.Log("the race detector allocates")
		return
	}
	for name, trace := range map[string]string{"untraced": "", "traced": "0123456789abcdef"} {
		t.Run(name, func(t *testing.T) { deliveriesAllocateNothing(t, trace) })
	}
}

func deliveriesAllocateNothing(t *testing.T, trace string) {
	const followers, events = 1000, 200
	c := newCrowdOfSinks(t, followers)
	encoded := eventsOf(events+50, 100, trace)
	next := 0
	deliver := func() {
		c.deliver(encoded[next])
		next++
	}
	for range 40 { // lists and buffers grow to their size
		deliver()
	}
	per := testing.AllocsPerRun(events, deliver)
	t.Logf("%.1f allocations per event for %d followers", per, followers)
	if per > followers/50 {
		t.Errorf("%.1f allocations per event for %d followers", per, followers)
	}
	if want := int64(followers * next); trace != "" && c.traced.Load() < want-followers { // the last may yet be told of
		t.Errorf("%d writes of traced events were told of, want %d", c.traced.Load(), want)
	}
}

// eventsOf makes the first n of a room, of so many bytes each.
func eventsOf(n, size int, trace string) (encoded [][]byte) {
	for seq := range uint64(n) {
		encoded = append(encoded, wire.EncodeEvent(&wire.Event{Seq: seq + 1, Content: string(make([]byte, size)), Trace: []byte(trace)}))
	}
	return encoded
}

// BenchmarkDelivery measures what the relay itself takes per delivery, without a
// connection: no cipher, no system call.
func BenchmarkDelivery(b *testing.B) {
	b.Run("100 B", func(b *testing.B) { benchmarkDelivery(b, 100, "") })
	b.Run("32 KiB", func(b *testing.B) { benchmarkDelivery(b, wire.Content, "") })
	b.Run("32 KiB traced", func(b *testing.B) { benchmarkDelivery(b, wire.Content, "0123456789abcdef") })
}

func benchmarkDelivery(b *testing.B, size int, trace string) {
	c := newCrowdOfSinks(b, 1000)
	encoded := eventsOf(b.N, size, trace)
	b.ReportAllocs()
	b.ResetTimer()
	for _, e := range encoded {
		c.deliver(e)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*c.size), "ns/delivery")
}
