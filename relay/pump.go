package relay

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/starling-im/starling/wire"
)

// A pump writes events for all sessions of a hub, with as many goroutines as there are
// processors and none while there is nothing to do.
//
// An event of a room hands the pump its waiting cursors as one job. Jobs take turns in
// parts, so that a room with many followers does not keep the others waiting. A session
// whose peer takes nothing more costs no goroutine of the pump: see Sender.
type pump struct {
	workers int
	stats   *stats
	gather  atomic.Int64 // how long events are gathered now, ns

	mu    sync.Mutex
	busy  int    // goroutines that run
	jobs  []*job // in turn
	due   []dueSession
	timer *time.Timer
}

// A job is cursors of one topic that are to be sent, or sessions that may write now.
type job struct {
	topic    *topic
	cursors  []*cursor
	sessions []*Session
	since    time.Time
	at       int // the first that no worker has taken
	open     int // parts that workers have
}

// dueSession is one that gathers until a time.
type dueSession struct {
	session *Session
	at      time.Time
}

const (
	// pumpPart is how many sessions of a job a worker serves in a turn.
	pumpPart = 32
	// pumpBytes bounds the frames of one write.
	pumpBytes = 64 << 10
	// chunkBytes bounds what one cursor adds to a write, so that busy rooms
	// take turns; with one event above it, the frame is still a client's.
	chunkBytes = 16 << 10
)

// gatherLeast and gatherMost bound how long events wait for company after a write. The
// first one after a pause leaves at once. A write of one event costs about as much CPU
// as one of thirty: so the more work waits for the pump, the longer they wait.
const (
	gatherLeast = 2 * time.Millisecond
	gatherMost  = 10 * time.Millisecond
)

func newPump(s *stats) *pump {
	p := &pump{workers: runtime.GOMAXPROCS(0), stats: s}
	p.gather.Store(int64(gatherLeast))
	return p
}

// adapt takes how long a part of a job has waited. A pump that is busy for half of the
// time that events are gathered for gathers longer.
func (p *pump) adapt(waited time.Duration) {
	g := time.Duration(p.gather.Load())
	if waited > g/2 {
		g += g / 16
	} else {
		g -= g / 64
	}
	p.gather.Store(int64(min(max(g, gatherLeast), gatherMost)))
}

// wake takes the cursors that waited in a topic. It does not block.
func (p *pump) wake(t *topic, woken []*cursor) {
	p.put(&job{topic: t, cursors: woken, since: time.Now()})
}

// write has a session write as soon as it is its turn.
func (p *pump) write(s *Session) {
	p.mu.Lock()
	if n := len(p.jobs); n > 0 {
		if last := p.jobs[n-1]; last.topic == nil && last.open == 0 && last.at == 0 && len(last.sessions) < pumpPart {
			last.sessions = append(last.sessions, s)
			p.mu.Unlock()
			return
		}
	}
	p.mu.Unlock()
	p.put(&job{sessions: []*Session{s}, since: time.Now()})
}

func (p *pump) put(j *job) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.jobs = append(p.jobs, j)
	p.help()
}

// help starts a worker if there is work for one more; p is locked.
func (p *pump) help() {
	if p.busy < p.workers && len(p.jobs) > 0 {
		p.busy++
		go p.work()
	}
}

// later has a session write at a time.
func (p *pump) later(s *Session, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.due = append(p.due, dueSession{s, at})
	if len(p.due) == 1 {
		p.arm()
	}
}

// arm sets the timer to the first session that is due; p is locked.
func (p *pump) arm() {
	wait := time.Until(p.due[0].at)
	if p.timer == nil {
		p.timer = time.AfterFunc(wait, p.ring)
		return
	}
	p.timer.Reset(wait)
}

// ring makes a job of the sessions that are due.
func (p *pump) ring() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	n := 0
	for n < len(p.due) && !p.due[n].at.After(now) {
		n++
	}
	if n > 0 {
		j := &job{sessions: make([]*Session, n), since: now}
		for i, d := range p.due[:n] {
			j.sessions[i] = d.session
		}
		p.due = append(p.due[:0], p.due[n:]...)
		p.jobs = append(p.jobs, j)
		p.help()
	}
	if len(p.due) > 0 {
		p.arm()
	}
}

// buffers are those of workers: a whole write, and what one event may have beyond it.
var buffers = sync.Pool{New: func() any {
	b := make([]byte, 0, wire.Headroom+pumpBytes+wire.ClientFrame)
	return &b
}}

// work serves parts of jobs until there are none.
func (p *pump) work() {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		j, cursors, sessions := p.take()
		if j == nil {
			return
		}
		began := time.Now()
		for _, c := range cursors {
			if c.session.woken(c) {
				c.session.write(buf)
			}
		}
		for _, s := range sessions {
			if s.begin() {
				s.write(buf)
			}
		}
		p.done(j)
		p.adapt(began.Sub(j.since))
		p.stats.turn(began.Sub(j.since), time.Since(began))
	}
}

// done ends a worker's part of a job. A topic is locked before the pump, never after.
func (p *pump) done(j *job) {
	p.mu.Lock()
	j.open--
	over := j.open == 0 && j.at >= len(j.cursors)
	p.mu.Unlock()
	if over && j.topic != nil {
		j.topic.reuse(j.cursors)
	}
}

// take gives a worker a part of the next job, nil if there is none.
func (p *pump) take() (j *job, cursors []*cursor, sessions []*Session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.jobs) == 0 {
		p.busy--
		return nil, nil, nil
	}
	j = p.jobs[0]
	from := j.at
	j.at += pumpPart
	j.open++
	if j.topic != nil {
		cursors = j.cursors[from:min(j.at, len(j.cursors))]
	} else {
		sessions = j.sessions[from:min(j.at, len(j.sessions))]
	}
	n := len(p.jobs) - 1
	copy(p.jobs, p.jobs[1:])
	if p.jobs[n] = j; j.at >= max(len(j.cursors), len(j.sessions)) {
		p.jobs[n] = nil
		p.jobs = p.jobs[:n]
	}
	p.help()
	return j, cursors, sessions
}
