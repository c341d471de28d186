package relay

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling/room"
)

// liar is a feed from a parent that says something else of its head than what is.
type liar struct {
	store
	lie uint64
}

func (l *liar) Run(ctx context.Context, id room.ID, _ Duty, _ func() (uint64, bool)) {
	l.hub.Begin(id, l.lie, 1)
	<-ctx.Done()
}

// TestParentLies has a parent name a head that is too high or too low, leave events out
// and repeat others: that costs time, and who follows is given every seq once.
func TestParentLies(t *testing.T) {
	for name, lie := range map[string]uint64{"too high": 1000, "too low": 3, "nothing": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &liar{lie: lie}
				l.hub = NewHub(HubConfig{Feed: l})
				defer l.hub.Close()
				for range 10 {
					l.apply(theRoom, 10)
				}
				p := start(t, SessionConfig{Peer: Peer{App: "demo", User: "u"}, Hub: l.hub, Backend: new(backend)})
				p.say(follow(1, 0))
				if f := p.hear().GetFollowed(); f == nil {
					t.Fatal("not followed")
				}
				said := make(chan struct{})
				defer func() { <-said }()
				go func() {
					defer close(said)
					for seq := uint64(11); seq <= 61; seq++ {
						e := event(seq, 10)
						l.mu.Lock()
						l.events = append(l.events, e)
						l.mu.Unlock()
						if seq%3 != 0 { // the parent leaves some out, and repeats others
							l.hub.Append(theRoom, seq, e)
						}
						if seq%5 == 0 {
							l.hub.Append(theRoom, seq-2, l.events[seq-3])
						}
						time.Sleep(50 * time.Millisecond)
					}
				}()
				began := time.Now()
				for next := uint64(1); next <= 61; {
					for _, e := range p.hear().GetEvents().GetEvents() {
						if e.Seq != next {
							t.Fatalf("seq %d where %d belongs", e.Seq, next)
						}
						next++
					}
				}
				if took := time.Since(began); took > 50*50*time.Millisecond+2*readAgain {
					t.Errorf("all there after %v", took)
				}
				_ = p.conn.Close()
				<-p.end
			})
		})
	}
}
