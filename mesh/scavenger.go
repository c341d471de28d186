package mesh

import "time"

// scavenger decides how fast bulk may be written to a link, so that it uses what
// others leave and gives way to them: the idea of RFC 6817 (LEDBAT). A round trip
// that takes longer than the shortest one means that packets wait in a queue on the
// way, which events would have to wait in too. So the rate grows while packets hardly
// wait, and falls by a part when they do. It is a function of what it is told; rates
// are in bytes per second.
type scavenger struct {
	rate   float64
	before float64 // the rate of the last round
	full   float64 // the rate at which packets last began to wait; 0 = not found yet
	calm   int     // rounds since they did
	crowd  bool    // they still do

	least  [scavengePieces]time.Duration // the shortest round trips of the last pieces of time; 0 = none
	piece  time.Time                     // when the newest piece began
	recent [scavengeRecent]time.Duration // the last round trips, each the shortest of a moment
	moment time.Time                     // when the newest moment began
	count  int                           // of moments, all in all

	began  time.Time // of this round
	used   int       // bytes written in it
	first  glance    // what the link said when it began
	deaf   time.Time // until when a cut cannot have shown in the round trips
	active time.Time // when something was last written
}

// glance is what a link says of its way at one moment.
type glance struct {
	rtt        time.Duration // the last one
	sent, lost int64         // packets since it began; what was taken for lost may still come
	window     int           // the bytes that may be under way
}

// burst is what may be written at once after a pause, in bytes: not so much that an
// event would wait for the window.
func (g glance) burst() int { return min(scavengeBurst, g.window/2) }

const (
	// scavengeDelay is how long packets may wait on the way before bulk is held back;
	// on far ways it is scavengePart of the round trip.
	scavengeDelay = 2 * time.Millisecond
	scavengePart  = 1. / 32
	// scavengeLoss is the part of lost packets that means the same.
	scavengeLoss = 0.02
	// scavengeFloor is the rate that bulk always has, so that it ends some time.
	scavengeFloor = 256 << 10
	// scavengeBurst bounds what may be written at once after a pause, in bytes; it is
	// also what the first round may have.
	scavengeBurst = 64 << 10
	// scavengeLeast and scavengeMost bound what is written at once otherwise, in bytes;
	// scavengePackets are a few packets.
	scavengeLeast   = 1200
	scavengeMost    = 8 << 10
	scavengePackets = 4 * 1280
	// scavengeRound is the shortest round.
	scavengeRound = 5 * time.Millisecond
	// scavengeUp is the part by which a round's rate grows where it is not known how
	// much the way carries, and scavengeNear the same near to what it carried before.
	scavengeUp   = 1. / 8
	scavengeNear = 1. / 100
	// scavengeDown is the least part by which it falls.
	scavengeDown = 0.15
	// scavengeCalm is after how many rounds without waiting more is thought possible.
	scavengeCalm = 25
	// scavengePieces pieces of scavengePiece are remembered of the shortest round
	// trips: a way that has become longer is noticed when the last of them is forgotten.
	scavengePieces = 4
	scavengePiece  = 30 * time.Second
	// scavengeRecent moments of scavengeMoment must all have seen packets wait: one
	// that was late by itself means nothing.
	scavengeRecent = 4
	scavengeMoment = time.Millisecond
	// scavengeIdle is the pause after which what is known of the way is too old.
	scavengeIdle = time.Second
)

// saw takes what the link says of its way now.
func (s *scavenger) saw(now time.Time, g glance) {
	base, waits := s.note(now, g.rtt)
	if now.Sub(s.active) > scavengeIdle {
		s.rate = max(scavengeFloor, float64(g.burst())/max(base, scavengeRound).Seconds())
		s.before, s.full, s.calm, s.crowd = s.rate, 0, 0, false
		s.recent, s.deaf = [scavengeRecent]time.Duration{}, now.Add(2*g.rtt)
		s.begin(now, g)
		return
	}
	target := s.target(base)
	losses := float64(g.lost-s.first.lost) > max(1, scavengeLoss*float64(g.sent-s.first.sent))
	s.crowd = s.crowd && waits > target
	switch elapsed := now.Sub(s.began); {
	case (waits > target || losses) && now.After(s.deaf):
		s.cut(waits.Seconds() / g.rtt.Seconds())
		s.deaf = now.Add(g.rtt * 3 / 2)
		s.begin(now, g)
	case elapsed >= max(g.rtt, scavengeRound):
		s.before = s.rate
		if waits <= target && float64(s.used) > 0.75*s.rate*elapsed.Seconds() {
			s.rate *= 1 + s.growth()*(1-waits.Seconds()/target.Seconds())
		}
		if s.calm++; s.calm > scavengeCalm {
			s.full = 0
		}
		s.begin(now, g)
	}
}

// target is how long packets may wait: not even the few that are sent at once do, and
// while the rate climbs steeply much less is a sign.
func (s *scavenger) target(base time.Duration) time.Duration {
	few := time.Duration(scavengePackets / s.rate * float64(time.Second))
	target := max(scavengeDelay, time.Duration(float64(base)*scavengePart))
	if s.full == 0 {
		target /= 4
	}
	return max(target, few)
}

// chunk is how much is written at once, in bytes: what is in the hands of QUIC cannot
// be held back any more.
func (s *scavenger) chunk() int { return min(max(scavengeLeast, int(s.rate/1000)), scavengeMost) }

// cut lowers the rate, by at least the part of a round trip for which packets wait.
func (s *scavenger) cut(waits float64) {
	if !s.crowd {
		s.full = s.before
	}
	s.rate = max(scavengeFloor, min(s.rate, s.full)*(1-min(max(scavengeDown, waits), 0.5)))
	s.before, s.calm, s.crowd = s.rate, 0, true
}

// growth is the part by which the rate may grow now.
func (s *scavenger) growth() float64 {
	near := s.full * 0.95
	switch {
	case s.full == 0:
		return scavengeUp
	case s.rate*(1+scavengeNear) < near:
		return min(scavengeUp, near/s.rate-1)
	}
	return scavengeNear
}

// begin begins a round.
func (s *scavenger) begin(now time.Time, g glance) { s.began, s.used, s.first = now, 0, g }

// note remembers a round trip. It returns the shortest of the way, and how long
// packets have waited beyond that in each of the last moments.
func (s *scavenger) note(now time.Time, rtt time.Duration) (base, waits time.Duration) {
	if now.Sub(s.piece) >= scavengePiece {
		copy(s.least[1:], s.least[:])
		s.piece, s.least[0] = now, rtt
	}
	s.least[0] = min(s.least[0], rtt)
	base = rtt
	for _, d := range s.least {
		if d > 0 {
			base = min(base, d)
		}
	}
	if now.Sub(s.moment) >= scavengeMoment || s.count == 0 {
		s.count++
		s.moment, s.recent[s.count%scavengeRecent] = now, rtt
	}
	newest := &s.recent[s.count%scavengeRecent]
	*newest = min(*newest, rtt)
	waits = rtt
	for _, d := range s.recent {
		waits = min(waits, d)
	}
	return base, max(0, waits-base)
}

// wrote takes that bytes are written.
func (s *scavenger) wrote(now time.Time, bytes int) {
	s.used += bytes
	s.active = now
}
