package consensus

import (
	"slices"
	"time"
)

const (
	// mostLanes bounds the entries of a group under way. It is what the
	// pipeline to a peer holds without an answer.
	mostLanes = pipelined
	// farTrip is the round trip from which on a group has more than
	// Config.Depth lanes. Below it the time of a commit is the disk's and the
	// processor's, which more and smaller entries would only make worse.
	farTrip = 10 * time.Millisecond
	// tripFor is how long a round trip is taken for known.
	tripFor = time.Second
)

// trip is the round trip that a commit cannot do without: to the nearest voters
// that are a quorum together with this node. It is the network's and not what a
// commit took, which rises where processor or disk have too much to do.
type trip struct {
	time  time.Duration
	asked time.Time
}

// trip is called with mu held.
func (l *lanes) trip() time.Duration {
	if h := l.g.h; h.cfg.RTT != nil && time.Since(l.far.asked) >= tripFor {
		l.far = trip{quorumTrip(l.g.voters(), h.cfg.Node, h.cfg.RTT), time.Now()}
	}
	return l.far.time
}

// quorumTrip returns how far the farthest of the nearest quorum is.
func quorumTrip(voters []string, self string, rtt func(node string) time.Duration) time.Duration {
	if len(voters) < 2 {
		return 0
	}
	trips := make([]time.Duration, 0, len(voters))
	for _, v := range voters {
		if v != self {
			trips = append(trips, rtt(v))
		}
	}
	slices.Sort(trips)
	return trips[len(voters)/2-1]
}

// another returns how a further lane runs, nil if there is to be none. It is
// called with mu held.
func (l *lanes) another() func() {
	switch {
	case l.held:
		return nil
	case l.running < l.g.h.cfg.Depth:
		return l.run
	case l.pacing || l.newest == nil || l.running >= mostLanes || l.trip() < farTrip:
		return nil
	}
	l.pacing = true
	// Entries leave evenly spread over the trip, so that a command waits for
	// a mostLanes-th of it at most.
	pause := l.trip()/mostLanes - time.Since(l.newest.start)
	return func() {
		wait := time.NewTimer(pause)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-l.g.h.ctx.Done():
		}
		l.mu.Lock()
		l.pacing = false
		l.mu.Unlock()
		l.run()
	}
}
