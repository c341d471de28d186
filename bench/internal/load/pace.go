package load

import "time"

// pace lets a sender's sends begin at its share of the rate. The senders take
// turns, so that all together begin evenly.
type pace struct {
	r     *run
	every time.Duration // between two sends of this sender; 0 = no pace
	phase time.Duration // of this sender within every
	next  time.Time     // when the next send may begin; zero = every target has yet to have one
	timer *time.Timer   // fires when it may
}

func newPace(r *run, sender int) *pace {
	p := &pace{r: r, timer: time.NewTimer(0)}
	p.timer.Stop()
	if r.cfg.Rate > 0 {
		p.every = time.Duration(float64(len(r.cfg.Senders)) / r.cfg.Rate * float64(time.Second))
		p.phase = p.every * time.Duration(sender) / time.Duration(len(r.cfg.Senders))
	}
	return p
}

// due reports whether a send may begin now, and counts it. If not, the timer
// tells when to ask again. What could not begin in time, because the window was
// full, is sent late and not left out, but no more than a second's worth of it.
func (p *pace) due() bool {
	if p.every == 0 || p.r.unmade.Load() > 0 {
		return true
	}
	now := time.Now()
	if p.next.IsZero() {
		p.next = now.Add(p.phase)
	}
	if wait := p.next.Sub(now); wait > 0 {
		p.timer.Reset(wait)
		return false
	}
	if late := now.Add(-time.Second); p.next.Before(late) {
		p.next = late
	}
	p.next = p.next.Add(p.every)
	return true
}
