package relay

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// TestUnfollowWhileHistoryWaits ends a follow of history while its peer takes nothing: the
// next follow gets its history all the same.
func TestUnfollowWhileHistoryWaits(t *testing.T) {
	for _, when := range []string{"it is read", "it waits to be sent"} {
		t.Run(when, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &slowStore{}
				s.hub = NewHub(HubConfig{Feed: s})
				defer s.hub.Close()
				for range 500 {
					s.apply(theRoom, 200)
				}
				p := start(t, SessionConfig{Peer: Peer{App: "demo", User: "u"}, Hub: s.hub, Backend: new(backend)})
				p.say(follow(1, 0))
				p.hear()
				if when == "it waits to be sent" {
					time.Sleep(2 * slowRead)
				}
				p.say(&wire.Frame{Id: 9, Body: &wire.Frame_Unfollow{Unfollow: &wire.Unfollow{Follow: 1}}})
				synctest.Wait()
				p.say(follow(2, 0))
				next := uint64(1)
				for next <= 500 {
					f := p.hear()
					if f.GetEvents().GetFollow() != 2 {
						continue
					}
					for _, e := range f.GetEvents().GetEvents() {
						if e.Seq != next {
							t.Fatalf("seq %d where %d belongs", e.Seq, next)
						}
						next++
					}
				}
				_ = p.conn.Close()
				<-p.end
			})
		})
	}
}

// slowStore takes a while to read.
type slowStore struct{ store }

const slowRead = 50 * time.Millisecond

func (s *slowStore) Read(ctx context.Context, id room.ID, after uint64, max int) ([][]byte, error) {
	time.Sleep(slowRead)
	return s.store.Read(ctx, id, after, max)
}

// TestPositionsThatCannotBe are refused, and cost nothing.
func TestPositionsThatCannotBe(t *testing.T) {
	_, hub := newStore()
	defer hub.Close()
	p := start(t, SessionConfig{Peer: Peer{App: "demo", User: "u"}, Hub: hub, Backend: new(backend)})
	for _, after := range []uint64{1 << 53, 1<<64 - 1} {
		p.say(follow(1, after))
		if e := p.hear().GetError(); e.GetCode() != wire.CodeBadRequest {
			t.Errorf("after %d: %v", after, e)
		}
	}
}
