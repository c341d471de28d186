package edge

import (
	"bytes"
	"io"
	"strings"
	"time"

	"github.com/gobwas/ws"

	"github.com/starling-im/starling/wire"
)

// Write writes whole frames as a message, and waits until they are on their way.
func (s *webSocket) Write(p []byte) (int, error) {
	if err := s.write(ws.OpBinary, p, false); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (s *webSocket) write(op ws.OpCode, p []byte, own bool) error {
	began := time.Now()
	for !s.take(own) {
	}
	defer s.release()
	s.prolong(time.Since(began))
	if err := s.put(op, append(make([]byte, wire.Headroom, wire.Headroom+len(p)), p...)); err != nil {
		return err
	}
	return s.drain()
}

// Send writes buf[wire.Headroom:], whole frames, as a message without waiting for the peer;
// it uses the room before and keeps nothing. Done is false if not all is on its way
// yet: sent is called once it is, or cannot be, and until then there is to be no other
// Send. Writes take their turn.
func (s *webSocket) Send(buf []byte, sent func(error)) (done bool, err error) {
	if s.tcp == nil || !s.tryTake() {
		p := bytes.Clone(buf[wire.Headroom:])
		go func() { sent(s.write(ws.OpBinary, p, true)) }()
		return false, nil
	}
	if err := s.put(ws.OpBinary, buf); err != nil || s.tcp.empty() {
		s.release()
		return true, err
	}
	go func() {
		err := s.drain()
		s.release()
		sent(err)
	}()
	return false, nil
}

// put writes buf[wire.Headroom:] with its header. It waits only where there is no eager.
func (s *webSocket) put(op ws.OpCode, buf []byte) error {
	n := len(buf) - wire.Headroom
	at := wire.Headroom
	switch {
	case n < 126:
		at -= 2
		buf[at+1] = byte(n)
	case n < 1<<16:
		at -= 4
		buf[at+1], buf[at+2], buf[at+3] = 126, byte(n>>8), byte(n)
	default:
		at -= 10
		buf[at+1] = 127
		for i := range 8 {
			buf[at+2+i] = byte(uint64(n) >> (56 - 8*i))
		}
	}
	buf[at] = 0x80 | byte(op)
	if s.tcp == nil {
		s.mu.Lock()
		err := s.conn.SetWriteDeadline(s.deadline())
		s.mu.Unlock()
		if err != nil {
			return err
		}
	}
	_, err := s.conn.Write(buf[at:])
	return err
}

// drain waits until all that was put is on its way.
func (s *webSocket) drain() error {
	if s.tcp == nil {
		return nil
	}
	return s.tcp.drain(func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.tcp.SetWriteDeadline(s.deadline())
	})
}

// deadline is that of the next wait; s is locked.
func (s *webSocket) deadline() time.Time {
	stall := time.Now().Add(wire.WriteStall)
	switch {
	case s.cut:
		return past
	case s.own || s.writes.IsZero() || stall.Before(s.writes):
		return stall
	}
	return s.writes
}

// tryTake takes the right to write, if nobody has it.
func (s *webSocket) tryTake() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy {
		return false
	}
	s.busy, s.own = true, true
	return true
}

// take waits for the right to write, or for a change of who has it.
func (s *webSocket) take(own bool) bool {
	s.mu.Lock()
	if !s.busy {
		s.busy, s.own = true, own
		s.mu.Unlock()
		return true
	}
	if s.idle == nil {
		s.idle = make(chan struct{})
	}
	idle := s.idle
	s.mu.Unlock()
	<-idle
	return false
}

func (s *webSocket) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = false
	if s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
}

// SetWriteDeadline bounds the waits of Writes, also the one that is under way. One that is
// past ends those of Sends too.
func (s *webSocket) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes, s.cut = t, !t.IsZero() && !t.After(time.Now())
	if !s.busy || s.own && !s.cut {
		return nil
	}
	return s.conn.NetConn().SetWriteDeadline(s.deadline())
}

// prolong gives a Write the time that it has waited for its turn: the peer has read meanwhile.
func (s *webSocket) prolong(waited time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.own && !s.cut && !s.writes.IsZero() {
		s.writes = s.writes.Add(waited)
	}
}

// interrupt ends reads and writes.
func (s *webSocket) interrupt() {
	_ = s.SetReadDeadline(past)
	_ = s.SetWriteDeadline(past)
}

var past = time.Unix(1, 0)

// Close does nothing: hangUp says the goodbye.
func (s *webSocket) Close() error { return nil }

// hangUp closes the connection, with a word of why if e is not nil.
func (s *webSocket) hangUp(code uint64, e *wire.Error) {
	tcp := s.conn.NetConn()
	defer tcp.Close()
	why := ""
	if e != nil {
		why = e.Error()
	}
	if most := ws.MaxControlFramePayloadSize - 2; len(why) > most {
		why = strings.ToValidUTF8(why[:most], "")
	}
	_ = s.SetWriteDeadline(time.Now().Add(lastWords))
	if err := s.write(ws.OpClose, ws.NewCloseFrameBody(ws.StatusCode(code), why), false); err != nil {
		return
	}
	if s.tcp != nil { // else it might wait
		_ = s.conn.CloseWrite()
	}
	// Bytes of the peer that nobody has read would have the system reset the connection,
	// and the peer miss the words.
	_ = tcp.SetReadDeadline(time.Now().Add(lastWords))
	_, _ = io.Copy(io.Discard, tcp)
}
