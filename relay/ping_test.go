package relay

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/starling-im/starling/wire"
)

// waits answers no question.
type waits struct{ backend }

func (b *waits) Query(ctx context.Context, _ Peer, _ *wire.Query) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// A Ping is answered at once, also while as many requests wait as may; it spends of the
// session's rate as they do.
func TestPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, hub := newStore()
		limits := Limits{Asks: 4, AsksPerSecond: 1, AsksBurst: 5}
		p := start(t, SessionConfig{Peer: Peer{App: "demo", User: "u"}, Hub: hub, Backend: new(waits), Limits: limits})
		var all []byte
		for id := range limits.Asks {
			all = wire.AppendMessage(all, &wire.Frame{Id: uint64(id + 1), Body: &wire.Frame_Query{Query: &wire.Query{}}})
		}
		for id := range 2 {
			all = wire.AppendMessage(all, &wire.Frame{Id: uint64(100 + id), Body: &wire.Frame_Ping{Ping: &wire.Ping{Padding: make([]byte, 24)}}})
		}
		if _, err := p.conn.Write(all); err != nil {
			t.Fatal(err)
		}
		if f := p.hear(); f.Id != 100 || f.GetPong() == nil {
			t.Errorf("answered with %v", f)
		}
		if f := p.hear(); f.Id != 101 || f.GetError().GetCode() != wire.CodeRateLimited {
			t.Errorf("the second is answered with %v", f)
		}
		_ = p.conn.Close()
		<-p.end
		hub.Close()
	})
}
