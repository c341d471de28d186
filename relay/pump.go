package relay

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/starling-im/starling/wire"
)

// A pump writes events for all sessions of a hub, with as many goroutines as there are
// processors and none while there is nothing to do.
//
// An event of a room hands the pump its waiting cursors as one job. Rooms take turns in
// parts of their jobs, so that one with more to send than the node can does not keep the
// others waiting, however many jobs it has. A session whose peer takes nothing more costs
// no goroutine of the pump: see Sender.
type pump struct {
	workers int
	stats   *stats
	gather  atomic.Int64 // how long events are gathered now, ns

	mu    sync.Mutex
	busy  int     // goroutines that run
	turns []*turn // of the rooms that have jobs, from first on
	first int
	spare []*job // that were done, used again
	due   []dueSession
	timer *time.Timer
}

// A turn is the jobs of one room, the first one first.
type turn struct{ jobs []*job }

// A job is cursors of one topic that are to be sent, or sessions that may write now and
// have something of it.
type job struct {
	topic    *topic
	cursors  []*cursor // nil: it is one of sessions
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
	// spareJobs bounds the jobs that are kept to be used again, and spareSessions for how
	// many sessions each has place.
	spareJobs, spareSessions = 256, 1024
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
	p.mu.Lock()
	defer p.mu.Unlock()
	p.job(t, time.Now()).cursors = woken
	p.help()
}

// write has a session write as soon as it is its turn.
func (p *pump) write(s *Session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.add(s, time.Now())
	p.help()
}

// job adds an empty one to the turn of a topic; p is locked.
func (p *pump) job(t *topic, now time.Time) *job {
	var j *job
	if n := len(p.spare); n > 0 {
		j, p.spare = p.spare[n-1], p.spare[:n-1]
	} else {
		j = new(job)
	}
	j.topic, j.since = t, now
	if len(t.turn.jobs) == 0 {
		p.turns = append(p.turns, &t.turn)
	}
	t.turn.jobs = append(t.turn.jobs, j)
	return j
}

// add has a session write in the turn of the room that it has something of; p is locked.
func (p *pump) add(s *Session, now time.Time) {
	jobs := s.room.turn.jobs
	if n := len(jobs); n > 0 {
		if last := jobs[n-1]; last.cursors == nil && last.at == 0 {
			last.sessions = append(last.sessions, s)
			return
		}
	}
	j := p.job(s.room, now)
	j.sessions = append(j.sessions, s)
}

// help starts a worker if there is work for one more; p is locked.
func (p *pump) help() {
	if p.busy < p.workers && len(p.turns) > p.first {
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

// ring has the sessions write that are due.
func (p *pump) ring() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	n := 0
	for n < len(p.due) && !p.due[n].at.After(now) {
		n++
	}
	if n > 0 {
		for _, d := range p.due[:n] {
			p.add(d.session, now)
		}
		p.due = slices.Delete(p.due, 0, n)
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
		waited := began.Sub(j.since) // the job may be another one once it is done
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
		p.adapt(waited)
		p.stats.turn(waited, time.Since(began))
	}
}

// done ends a worker's part of a job. A topic is locked before the pump, never after.
func (p *pump) done(j *job) {
	p.mu.Lock()
	if j.open--; j.open > 0 || !j.taken() {
		p.mu.Unlock()
		return
	}
	t, woken := j.topic, j.cursors
	clear(j.sessions)
	*j = job{sessions: j.sessions[:0]}
	if len(p.spare) < spareJobs && cap(j.sessions) <= spareSessions {
		p.spare = append(p.spare, j)
	}
	p.mu.Unlock()
	if woken != nil {
		t.reuse(woken)
	}
}

// take gives a worker a part of the next job, nil if there is none.
func (p *pump) take() (j *job, cursors []*cursor, sessions []*Session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.turns) == p.first {
		p.busy--
		return nil, nil, nil
	}
	now := p.turns[p.first]
	j = now.jobs[0]
	from := j.at
	j.at += pumpPart
	j.open++
	if j.cursors != nil {
		cursors = j.cursors[from:min(j.at, len(j.cursors))]
	} else {
		sessions = j.sessions[from:min(j.at, len(j.sessions))]
	}
	if j.taken() {
		now.jobs = pop(now.jobs)
	}
	p.turns[p.first] = nil
	p.first++
	if len(now.jobs) > 0 {
		p.turns = append(p.turns, now)
	}
	if p.first > len(p.turns)/2 {
		p.turns = slices.Delete(p.turns, 0, p.first)
		p.first = 0
	}
	p.help()
	return j, cursors, sessions
}

// pop removes the first of a short list.
func pop[T any](all []*T) []*T {
	n := copy(all, all[1:])
	all[n] = nil
	return all[:n]
}

// taken reports whether workers have all of the job.
func (j *job) taken() bool { return j.at >= max(len(j.cursors), len(j.sessions)) }
