package mesh

import (
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// Class is what goes before what on a link: the lower ones first.
type Class uint8

const (
	// Gossip is small, and decides who is taken for alive.
	Gossip Class = iota
	// Raft is heartbeats and log entries.
	Raft
	// Events is what sessions between nodes say: live events, sends and their answers.
	Events
	// Tunnel is packets of links of others. They take turns with events: what is in them
	// has been put in order at its own ends.
	Tunnel
	// Bulk is history and snapshots: it also gives way to what others send on the way.
	Bulk
	classes
)

func (c Class) String() string { return [...]string{"gossip", "raft", "events", "tunnel", "bulk"}[c] }

// urgency is what QUIC goes by.
func (c Class) urgency() int8 {
	if c == Tunnel {
		c = Events
	}
	return int8(c)
}

// classOf returns the class of the streams of a kind.
func classOf(kind byte) Class {
	switch kind {
	case StreamGossip, StreamKeys:
		return Gossip
	case StreamRaft:
		return Raft
	case StreamTunnel:
		return Tunnel
	case StreamSnapshot, StreamHistory:
		return Bulk
	}
	return Events
}

// newStream makes a stream of a kind over a link. QUIC sends what there is of the
// lower urgency first; streams of one class take turns.
func newStream(l *link, kind byte, qs *quic.Stream) *Stream {
	class := classOf(kind)
	s := &Stream{s: qs}
	if l.traffic != nil {
		s.out, s.in = newTally(kind, &l.traffic[class].sent), newTally(kind, &l.traffic[class].received)
	}
	qs.SetPriority(class.urgency(), true)
	if class == Bulk {
		s.pacer = &l.pacer
		s.conn = l.conn
	}
	return s
}

// pacer spreads the writes of all bulk streams of a link over time. Its zero value is
// ready.
type pacer struct {
	mu   sync.Mutex
	s    scavenger
	next time.Time // when the next write may be
}

// reserve returns how many of so many bytes may be written next, and how long to wait
// before.
func (p *pacer) reserve(conn *quic.Conn, bytes int) (int, time.Duration) {
	stats := conn.ConnectionStats()
	way := glance{rtt: stats.LatestRTT, sent: int64(stats.PacketsSent), lost: int64(stats.PacketsLost), window: int(stats.CongestionWindow)}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.s.saw(now, way)
	bytes = min(bytes, p.s.chunk())
	p.s.wrote(now, bytes)
	if burst := now.Add(-p.takes(way.burst())); p.next.Before(burst) {
		p.next = burst
	}
	waits := p.next.Sub(now)
	p.next = p.next.Add(p.takes(bytes))
	return bytes, waits
}

// now is the rate at which bulk may be written, 0 if none was lately.
func (p *pacer) now() float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.s.active) > scavengeIdle {
		return 0
	}
	return p.s.rate
}

func (p *pacer) takes(bytes int) time.Duration {
	return time.Duration(float64(bytes) / p.s.rate * float64(time.Second))
}

// shortPause is what timers do not keep to: shorter ones are made up for later.
const shortPause = 200 * time.Microsecond

// writePaced is Write for bulk.
func (s *Stream) writePaced(b []byte) (int, error) {
	written := 0
	for written < len(b) {
		bytes, pause := s.pacer.reserve(s.conn, len(b)-written)
		if pause > shortPause {
			t := time.NewTimer(pause)
			select {
			case <-t.C:
			case <-s.s.Context().Done(): // the write says why
				t.Stop()
			}
		}
		n, err := s.s.Write(b[written : written+bytes])
		written += n
		if err != nil {
			return written, err
		}
	}
	return written, nil
}
