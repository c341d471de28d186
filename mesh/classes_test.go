package mesh

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling/internal/simnet"
)

// The link that is measured: 200 Mbit/s, 40 ms there and back, and a queue of as much
// as is under way.
const (
	narrowRate  = 200e6 / 8
	narrowRTT   = 40 * time.Millisecond
	narrowQueue = narrowRate * 40 / 1000
)

// flood is how bulk is sent while events are measured: in its class, with its urgency
// but at any rate, or as if it were events.
type flood struct {
	name              string
	snapshot, history byte // kinds of streams
	urgency           int8 // of both, if it is not that of their class; 0 = it is
}

var (
	asBulk    = flood{name: "bulk", snapshot: StreamSnapshot, history: StreamHistory}
	byUrgency = flood{name: "urgency", snapshot: StreamRelay, history: StreamRelay, urgency: int8(Bulk)}
	asEvents  = flood{name: "events", snapshot: StreamRelay, history: StreamRelay}
)

// narrow is two nodes with such a link; all that is measured goes from a to b.
type narrow struct {
	t    *testing.T
	a, b *node
	rand *rand.Rand

	mu     sync.Mutex
	events []time.Duration // how long events took, since they were last asked for
	beats  []time.Duration // the same of heartbeats
	bulk   int64           // bytes that came of snapshots and pages
}

func newNarrow(t *testing.T) *narrow {
	w := newWorld(t, simnet.Options{
		Latency: func(netip.Addr, netip.Addr) time.Duration { return narrowRTT / 2 },
		Line:    func(netip.Addr, netip.Addr) simnet.Line { return simnet.Line{Rate: narrowRate, Queue: narrowQueue} },
	})
	n := &narrow{t: t, rand: rand.New(rand.NewPCG(1, 2))}
	n.a = start(t, w.config("a", "10.0.0.1:1"), func(m *Mesh) { m.Handle(StreamRelay, pages); m.Handle(StreamHistory, pages) })
	n.b = start(t, w.config("b", "10.0.0.2:1", "10.0.0.1:1"), func(m *Mesh) {
		m.Handle(StreamRelay, n.receive(&n.events))
		m.Handle(StreamRaft, n.receive(&n.beats))
		m.Handle(StreamSnapshot, n.receive(nil))
	})
	n.a.wait(10*time.Second, "a link", linked("b"))
	n.b.wait(10*time.Second, "a link", linked("a"))
	return n
}

const (
	eventSize = 300
	pageSize  = 64 << 10
)

// receive reads messages that begin with their size and with when they were sent,
// or, with a time of 0, bulk until the end.
func (n *narrow) receive(to *[]time.Duration) Handler {
	return func(_ context.Context, _ string, s *Stream) {
		message := make([]byte, 12)
		for {
			if _, err := io.ReadFull(s, message[:12]); err != nil {
				return
			}
			sent := int64(binary.BigEndian.Uint64(message[4:12]))
			if sent == 0 || to == nil {
				n.swallow(s)
				return
			}
			if _, err := io.CopyN(io.Discard, s, int64(binary.BigEndian.Uint32(message))-12); err != nil {
				return
			}
			n.mu.Lock()
			*to = append(*to, time.Since(time.Unix(0, sent)))
			n.mu.Unlock()
		}
	}
}

// swallow counts bulk.
func (n *narrow) swallow(s *Stream) {
	buf := make([]byte, 32<<10)
	for {
		k, err := s.Read(buf)
		n.mu.Lock()
		n.bulk += int64(k)
		n.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// pages answers each byte with a page.
func pages(_ context.Context, _ string, s *Stream) {
	page := make([]byte, pageSize)
	for {
		urgency := make([]byte, 1)
		if _, err := io.ReadFull(s, urgency); err != nil {
			return
		}
		if urgency[0] != 0 {
			s.s.SetPriority(int8(urgency[0]), true)
		}
		if _, err := s.Write(page); err != nil {
			return
		}
	}
}

// live sends messages of a kind, every so often on average, until ctx ends.
func (n *narrow) live(ctx context.Context, kind byte, size int, every time.Duration) {
	s, err := n.a.Open(ctx, "b", kind)
	if err != nil {
		n.t.Error(err)
		return
	}
	defer s.Close()
	message := make([]byte, size)
	binary.BigEndian.PutUint32(message, uint32(size))
	for ctx.Err() == nil {
		n.mu.Lock()
		pause := every/2 + time.Duration(n.rand.Int64N(int64(every)))
		n.mu.Unlock()
		time.Sleep(pause)
		binary.BigEndian.PutUint64(message[4:], uint64(time.Now().UnixNano()))
		if _, err := s.Write(message); err != nil {
			n.t.Error(err)
			return
		}
	}
}

// send sends a snapshot of so many bytes. It reports whether it came to its end.
func (n *narrow) send(ctx context.Context, f flood, size int64) bool {
	s, err := n.a.Open(ctx, "b", f.snapshot)
	if err != nil {
		n.t.Error(err)
		return false
	}
	defer s.Close()
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	if f.urgency != 0 {
		s.s.SetPriority(f.urgency, true)
	}
	buf := make([]byte, 32<<10)
	for size > 0 {
		k, err := s.Write(buf[:min(int64(len(buf)), size)])
		if err != nil {
			return false
		}
		size -= int64(k)
	}
	return true
}

// read asks for one page after another.
func (n *narrow) read(ctx context.Context, f flood) {
	s, err := n.b.Open(ctx, "a", f.history)
	if err != nil {
		n.t.Error(err)
		return
	}
	defer s.Close()
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	buf := make([]byte, pageSize)
	for ctx.Err() == nil {
		if _, err := s.Write([]byte{byte(f.urgency)}); err != nil {
			return
		}
		k, err := io.ReadFull(s, buf)
		if err != nil {
			return
		}
		n.mu.Lock()
		n.bulk += int64(k)
		n.mu.Unlock()
	}
}

// figures are those of one phase.
type figures struct {
	events, beats spread
	rate          float64 // of bulk, bytes per second
}

type spread struct{ p50, p99, most time.Duration }

func spreadOf(d []time.Duration) spread {
	if len(d) == 0 {
		return spread{}
	}
	slices.Sort(d)
	return spread{d[len(d)/2], d[len(d)*99/100], d[len(d)-1]}
}

const snapshotSize = 1 << 30

// phase measures live traffic for a while: alone, or beside a snapshot that does not
// come to its end meanwhile and eight readers of history.
func (n *narrow) phase(lasts time.Duration, f *flood) figures {
	n.t.Helper()
	time.Sleep(2 * time.Second) // what is left of the last one
	n.mu.Lock()
	n.events, n.beats, n.bulk = nil, nil, 0
	n.mu.Unlock()
	ctx, cancel := context.WithTimeout(n.t.Context(), lasts)
	defer cancel()
	var parts sync.WaitGroup
	parts.Go(func() { n.live(ctx, StreamRelay, eventSize, 5*time.Millisecond) })
	parts.Go(func() { n.live(ctx, StreamRaft, 100, 100*time.Millisecond) })
	if f != nil {
		parts.Go(func() {
			if n.send(ctx, *f, snapshotSize) {
				n.t.Errorf("the snapshot was over within %v", lasts)
			}
		})
		for range 8 {
			parts.Go(func() { n.read(ctx, *f) })
		}
	}
	parts.Wait()
	n.mu.Lock()
	rate := float64(n.bulk) / lasts.Seconds()
	n.mu.Unlock()
	time.Sleep(time.Second) // what is under way
	n.mu.Lock()
	defer n.mu.Unlock()
	return figures{spreadOf(n.events), spreadOf(n.beats), rate}
}

func (x figures) String() string {
	ms := func(d time.Duration) float64 { return float64(d) / 1e6 }
	return fmt.Sprintf("events p50 %.1f p99 %.1f most %.1f ms, heartbeats p99 %.1f ms, bulk %.0f Mbit/s",
		ms(x.events.p50), ms(x.events.p99), ms(x.events.most), ms(x.beats.p99), x.rate*8/1e6)
}

// rounds measures live traffic alone and beside bulk, in turn, and returns the ratios
// of the p99 of events, sorted, and the slowest flood.
func (n *narrow) rounds(count int, lasts time.Duration, f flood) (ratios []float64, slowest float64) {
	n.t.Helper()
	for i := range count {
		alone := n.phase(lasts, nil)
		beside := n.phase(lasts, &f)
		ratio := float64(beside.events.p99) / float64(alone.events.p99)
		n.t.Logf("round %d, A: %v", i+1, alone)
		n.t.Logf("round %d, B: %v; p99(B)/p99(A) %.3f", i+1, beside, ratio)
		if ratios = append(ratios, ratio); i == 0 || beside.rate < slowest {
			slowest = beside.rate
		}
	}
	slices.Sort(ratios)
	n.t.Logf("p99(B)/p99(A): median %.3f, from %.3f to %.3f", ratios[count/2], ratios[0], ratios[count-1])
	return ratios, slowest
}

// TestBulkGivesWay measures, in virtual time, what a snapshot of 1 GiB and eight readers
// of history cost the events on their link: rounds of events alone (A) and beside both
// (B), in turn. Its long form is make measure-links.
func TestBulkGivesWay(t *testing.T) {
	// The beginning, when the rate climbs until packets wait, weighs more in a short round.
	count, lasts, whole, most := 1, 3*time.Second, int64(64<<20), 1.5
	if os.Getenv("STARLING_LONG") != "" {
		count, lasts, whole, most = 9, 10*time.Second, snapshotSize, 1.25
	}
	for _, f := range []flood{asBulk, byUrgency, asEvents} {
		t.Run(f.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ratios, slowest := newNarrow(t).rounds(count, lasts, f)
				median := ratios[len(ratios)/2]
				if f == asBulk && (median > most || slowest < narrowRate/3) {
					t.Errorf("p99 of events %.3f times as long as alone, or bulk of %.0f B/s", median, slowest)
				}
				if f != asBulk && median < 1.5 {
					t.Errorf("the link of this test is too good to show anything: %.3f", median)
				}
			})
		})
	}
	t.Run("alone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n, began := newNarrow(t), time.Now()
			n.send(t.Context(), asBulk, whole)
			took := time.Since(began)
			t.Logf("a snapshot of %d MiB alone: %.1f s, %.0f Mbit/s", whole>>20, took.Seconds(), float64(whole)*8/1e6/took.Seconds())
			if float64(whole)/took.Seconds() < narrowRate/2 {
				t.Errorf("took %v", took)
			}
		})
	})
}
