package consensus

import "time"

const (
	// mostLanes bounds the entries of a group under way. It is what the
	// pipeline to a peer holds without an answer.
	mostLanes = pipelined
	// farTrip is the commit time from which on a group has more than
	// Config.Depth lanes. Below it the time is the disk's and the processor's,
	// which more and smaller entries would only make worse.
	farTrip = 10 * time.Millisecond
)

// trip is the time of a commit without load: the least one seen of late. The
// wait for a place behind other entries is not part of it, so it does not rise
// with the load; it rises slowly when the way has become longer.
type trip time.Duration

func (t *trip) saw(d time.Duration) {
	if *t == 0 || trip(d) < *t {
		*t = trip(d)
		return
	}
	*t += *t / 64
}

// another returns how a further lane runs, nil if there is to be none. It is
// called with mu held.
func (l *lanes) another() func() {
	switch {
	case l.held:
		return nil
	case l.running < l.g.h.cfg.Depth:
		return l.run
	case l.pacing || l.running >= mostLanes || time.Duration(l.trip) < farTrip:
		return nil
	}
	l.pacing = true
	// Entries leave evenly spread over the trip, so that a command waits for
	// a mostLanes-th of it at most.
	pause := time.Duration(l.trip)/mostLanes - time.Since(l.newest.start)
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

// took notes how long a commit took.
func (l *lanes) took(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trip.saw(d)
}
