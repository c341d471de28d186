package relay

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// moody is a feed that has one event of room "good", thinks for a while before
// it says that this is all, and can never read room "bad".
type moody struct{ store }

func (m *moody) Run(ctx context.Context, _ room.ID, _ Duty, _ func() (uint64, bool)) { <-ctx.Done() }

func (m *moody) Read(_ context.Context, id room.ID, after uint64, _ int) ([][]byte, error) {
	switch {
	case id.Room == "bad":
		return nil, wire.Errorf(wire.CodeUnavailable, "no").After(time.Millisecond)
	case after == 0:
		return [][]byte{event(1, 10)}, nil
	}
	time.Sleep(readAgain * 3 / 2) // by then the other cursor is tried again
	return nil, nil
}

// What was gathered is written, also if the cursors after it have nothing.
func TestGatheredEventsAreWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := NewHub(HubConfig{Feed: new(moody), TailBytes: 64 << 10})
		defer hub.Close()
		p := start(t, SessionConfig{Peer: Peer{App: "demo", User: "u"}, Hub: hub, Backend: new(backend)})
		for i, name := range []string{"bad", "good"} {
			p.say(&wire.Frame{Id: uint64(i + 1), Body: &wire.Frame_Follow{Follow: &wire.Follow{Room: name}}})
			p.hear()
		}
		late := time.AfterFunc(time.Minute, func() { _ = p.conn.Close() })
		defer late.Stop()
		if f := p.hear(); len(f.GetEvents().GetEvents()) != 1 {
			t.Errorf("heard %v, not the event", f)
		}
	})
}

// A room that has very many jobs to do holds up one that has one by a part, not by all.
func TestRoomsTakeTurns(t *testing.T) {
	hot, quiet := newTopic(HubConfig{}), newTopic(HubConfig{})
	p := hot.hub.pump
	p.workers = 0
	for range 20 {
		p.wake(hot, make([]*cursor, 10*pumpPart))
		for range 2 * pumpPart {
			p.write(&Session{room: hot})
		}
	}
	first, _, _ := p.take()
	p.wake(quiet, make([]*cursor, 1))
	p.write(&Session{room: quiet})
	order := []*topic{first.topic}
	sessions := 0
	for j := first; ; {
		p.done(j)
		next, cursors, writes := p.take()
		if j = next; j == nil {
			break
		}
		if sessions += len(writes); len(cursors)+len(writes) > pumpPart {
			t.Fatalf("a part has %d cursors and %d sessions", len(cursors), len(writes))
		}
		order = append(order, j.topic)
	}
	if order[2] != quiet || order[4] != quiet || len(order) != 1+20*10+20*2+2-1 || sessions != 20*2*pumpPart+1 {
		t.Errorf("%d parts, %d sessions; the quiet room had the third: %v, the fifth: %v", len(order), sessions, order[2] == quiet, order[4] == quiet)
	}
	if len(hot.turn.jobs)+len(quiet.turn.jobs)+len(p.turns) > 0 || len(p.spare) == 0 || len(p.spare) > spareJobs {
		t.Errorf("left: %d and %d jobs, %d turns, %d spare", len(hot.turn.jobs), len(quiet.turn.jobs), len(p.turns), len(p.spare))
	}
}

// TestAppendsWhileThePumpWorks has events come while a worker ends its parts of jobs: the
// two lock the topic and the pump, and must not wait for each other.
func TestAppendsWhileThePumpWorks(t *testing.T) {
	topic := newTopic(HubConfig{TailBytes: 64 << 20})
	topic.begin(0, 0)
	p := topic.hub.pump
	p.workers = 0 // this test is the worker
	const events = 20_000
	var appender sync.WaitGroup
	appender.Go(func() {
		for seq := range uint64(events) {
			for !anyWaits(topic) { // so that each event makes a job
				runtime.Gosched()
			}
			topic.append(seq+1, event(seq+1, 10))
		}
	})
	all := make([]cursor, 4)
	read := func(c *cursor) {
		for waits := false; !waits; {
			_, waits, _, _ = topic.read(c, chunkBytes)
		}
	}
	for i := range all {
		all[i].topic = topic
		read(&all[i])
	}
	for all[0].after < events {
		p.mu.Lock()
		p.busy = 1
		p.mu.Unlock()
		j, cursors, _ := p.take()
		if j == nil {
			runtime.Gosched()
			continue
		}
		for _, c := range cursors {
			read(c)
		}
		p.done(j)
	}
	appender.Wait()
}

func anyWaits(t *topic) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.waiting) > 0
}
