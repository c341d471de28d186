package talk

import (
	"bufio"
	"net"
	"sync"
)

// readBuffer is how much a connection reads at once, in bytes: what a TLS
// record of a busy server brings would not fit into less than 16 KiB, but that
// much for a thousand connections is for caches to forget.
const readBuffer = 4 << 10

// A line is a connection over TCP, with a buffer for either direction.
type line struct {
	net.Conn
	in *bufio.Reader

	mu  sync.Mutex
	out []byte
}

func newLine(c net.Conn) *line { return &line{Conn: c, in: bufio.NewReaderSize(c, readBuffer)} }

// put adds to what the next flush writes, which it does not wait for if that is much.
func (l *line) put(add func([]byte) []byte) error {
	l.mu.Lock()
	l.out = add(l.out)
	full := len(l.out) >= readBuffer
	l.mu.Unlock()
	if full {
		return l.Flush()
	}
	return nil
}

// Flush writes what was put.
func (l *line) Flush() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.out) == 0 {
		return nil
	}
	_, err := l.Write(l.out)
	l.out = l.out[:0]
	return err
}

// say writes at once.
func (l *line) say(add func([]byte) []byte) error {
	if err := l.put(add); err != nil {
		return err
	}
	return l.Flush()
}

// Close ends the connection.
func (l *line) Close() { _ = l.Conn.Close() }

// A scratch is memory for one message at a time.
type scratch []byte

func (s *scratch) of(n int) []byte {
	if cap(*s) < n {
		*s = make([]byte, n)
	}
	return (*s)[:n]
}
