package edge

import (
	"testing"
	"time"

	"github.com/starling-im/starling/wire"
)

// What a write waits for its turn does not count against its time: whoever wrote before had a
// peer that read.
func TestWriteWaitsForItsTurn(t *testing.T) {
	conn := secure(t)
	s := &webSocket{conn: conn}
	if !s.tryTake() {
		t.Fatal("nobody writes, and there is no turn")
	}
	const turn = 200 * time.Millisecond
	if err := s.SetWriteDeadline(time.Now().Add(turn)); err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	go func() {
		_, err := s.Write(wire.AppendMessage(nil, &wire.Frame{Id: 1}))
		wrote <- err
	}()
	time.AfterFunc(2*turn, s.release)
	if err := <-wrote; err != nil {
		t.Error(err)
	}
}
