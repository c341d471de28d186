package client

import (
	"context"
	"net"
	"testing"

	"github.com/starling-im/starling/wire"
)

// TestSendAllocates bounds what a send costs besides its frame: nothing must be
// made for the errors that did not happen.
func TestSendAllocates(t *testing.T) {
	near, far := net.Pipe()
	t.Cleanup(func() { near.Close(); far.Close() })
	session := NewSession(SessionConfig{Commands: near})
	o := &outbox{lanes: make(map[string]*lane), silent: func(*Session) {}}
	o.up(session)
	t.Cleanup(func() { o.close(ErrClosed) })
	frame := &wire.Frame{Body: &wire.Frame_Publish{Publish: &wire.Publish{Room: "r", ClientMsgId: "m"}}}
	ack := &wire.Frame{Body: &wire.Frame_Ack{Ack: &wire.Ack{Seq: 1}}}
	base := testing.AllocsPerRun(200, func() {
		f := &wire.Frame{Body: frame.Body}
		if err := session.call(f, func(*wire.Frame, error) {}); err != nil {
			t.Fatal(err)
		}
		session.take(f.Id)
	})
	got := testing.AllocsPerRun(200, func() {
		s := &send{id: "m", frame: func(uint32) *wire.Frame { return &wire.Frame{Body: frame.Body} }, done: func(Ack, error) {}}
		o.add(context.Background(), "r", s)
		session.take(session.last)(ack, nil)
	})
	// The send, its lane, the lane's list and the answer's callback, and one to spare.
	if own := got - base; own > 5 {
		t.Errorf("%v allocations a send besides the %v of its session", own, base)
	}
}
