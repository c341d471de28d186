package relay

import (
	"context"
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
