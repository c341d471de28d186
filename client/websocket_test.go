package client

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// bounded is a connection that knows of its write deadline alone.
type bounded struct {
	net.Conn
	until time.Time
	wrote int
}

func (b *bounded) SetWriteDeadline(t time.Time) error { b.until = t; return nil }

func (b *bounded) Write(p []byte) (int, error) {
	if b.until.Before(time.Now()) {
		return 0, os.ErrDeadlineExceeded
	}
	b.wrote += len(p)
	return len(p), nil
}

// TestPingsHaveATimeOfTheirOwn has a session's last write be long ago: its deadline is over,
// and TLS would never write again after one that was late.
func TestPingsHaveATimeOfTheirOwn(t *testing.T) {
	conn := &bounded{}
	s := &webSocket{Conn: conn}
	_ = s.SetWriteDeadline(time.Now().Add(-time.Second))
	if _, err := s.Write([]byte("late")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a session's own write after its deadline: %v", err)
	}
	if err := s.frame(ws.OpPing, nil); err != nil || conn.wrote == 0 {
		t.Errorf("a ping: %v", err)
	}
}
