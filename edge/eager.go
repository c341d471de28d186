package edge

import (
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/time/rate"

	"github.com/starling-im/starling/wire"
)

// eager is a listener's connection whose writes, once a door has taken it over, never
// wait: they give the system what it takes at once, and keep the rest.
//
// It is below TLS, which must write whole records. So one goroutine can write to many
// clients, and needs another only for those who do not read. Who reads can wait before TLS
// does, whose stack is deep.
type eager struct {
	net.Conn
	raw syscall.RawConn
	now func(fd uintptr)      // both are made once: a closure for each write
	sip func(fd uintptr) bool // or wait would be garbage

	handshakes *handshakes // of the listener

	// Of the reader.
	first    [recordHeader]byte
	ahead    []byte // of first: readable read it, Read has yet to give it
	lost     error  // of readable
	glancing bool   // Read gives what is ahead, and does not wait

	mu      sync.Mutex
	turn    bool // it has one of handshakes
	begun   bool
	broken  error  // of drain: what was to be sent is lost
	waiting bool   // drain waits for the peer
	rest    []byte // not yet with the system

	// Of the write under way.
	p   []byte
	n   int
	err error
}

// eagerMost bounds what is kept of a connection, in bytes. A session has less; but a peer
// that reads nothing can have TLS answer it.
const eagerMost = 1 << 20

// recordHeader is what TLS reads of a record at first, in bytes.
const recordHeader = 5

// errNothing is that of a glance. A time-out is what TLS goes on after.
var errNothing error = &net.OpError{Op: "glance", Err: os.ErrDeadlineExceeded}

var errUnread = wire.Errorf(wire.CodeSlowReader, "the peer does not read: %d bytes wait", eagerMost)

// EagerListener makes the connections of a listener eager.
func EagerListener(l net.Listener) net.Listener {
	return eagerListener{l, &handshakes{
		turns: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		usual: rate.NewLimiter(usualHandshakes, usualHandshakes),
	}}
}

type eagerListener struct {
	net.Listener
	handshakes *handshakes
}

// handshakes are those of a listener.
type handshakes struct {
	turns chan struct{} // has those that have a turn
	usual *rate.Limiter // has tokens unless there is a crowd, be it of strangers: nothing is proved yet
}

const (
	// handshakeWait is how long a handshake may wait for its turn: with more, it is for
	// another node.
	handshakeWait = 2 * time.Second
	// usualHandshakes is how many there are in a second; those beyond are a crowd.
	usualHandshakes = 50
)

// Handshake waits for the turn of a handshake: half of the processors are for the first
// answers to clients' hellos. Each takes half a millisecond, and hundreds of them at once,
// after another node has died, would stand before every delivery. (What comes after a
// client was asked for another key share has no turn.) Crowded says that many come.
func Handshake(c net.Conn) (crowded bool, err error) {
	e, ok := c.(*eager)
	if !ok {
		return false, nil
	}
	crowded = !e.handshakes.usual.Allow()
	late := time.NewTimer(handshakeWait)
	defer late.Stop()
	select {
	case e.handshakes.turns <- struct{}{}:
	case <-late.C:
		return crowded, wire.Errorf(wire.CodeOverloaded, "a handshake had no turn for %v", handshakeWait)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.turn = true
	return crowded, nil
}

// answered ends the turn of the handshake, if it has one.
func (e *eager) answered() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.turn {
		e.turn = false
		<-e.handshakes.turns
	}
}

func (l eagerListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	e := &eager{Conn: c, handshakes: l.handshakes}
	if s, ok := c.(syscall.Conn); ok {
		e.raw, _ = s.SyscallConn()
	}
	e.now = func(fd uintptr) { e.n, e.err = writeNow(fd, e.p) }
	e.sip = e.takeFirst
	return e, nil
}

// Close implements net.Conn.
func (e *eager) Close() error {
	e.answered()
	return e.Conn.Close()
}

// NetConn returns the connection below.
func (e *eager) NetConn() net.Conn { return e.Conn }

// begin has writes not wait any more.
func (e *eager) begin() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.begun = true
}

// glance reads of c, which is TLS over e, what TLS has already; errNothing = not a byte.
func (e *eager) glance(c net.Conn, p []byte) (int, error) {
	e.glancing = e.raw != nil
	defer func() { e.glancing = false }()
	return c.Read(p)
}

// readable waits until the next Read need not.
func (e *eager) readable() error {
	if err := e.raw.Read(e.sip); err != nil {
		return err
	}
	return e.lost
}

// takeFirst reads a little, and returns false if that is to be tried again.
func (e *eager) takeFirst(fd uintptr) bool {
	n, err := readNow(fd, e.first[:])
	if err == syscall.EAGAIN {
		return false
	}
	e.ahead, e.lost = e.first[:max(n, 0)], err
	return true
}

// Read implements net.Conn.
func (e *eager) Read(p []byte) (int, error) {
	switch {
	case len(e.ahead) > 0:
		n := copy(p, e.ahead)
		e.ahead = e.ahead[n:]
		return n, nil
	case e.glancing:
		return 0, errNothing
	}
	return e.Conn.Read(p)
}

// Write implements net.Conn.
func (e *eager) Write(p []byte) (int, error) {
	e.mu.Lock()
	if !e.begun {
		e.mu.Unlock()
		e.answered()
		return e.Conn.Write(p)
	}
	defer e.mu.Unlock()
	if e.broken != nil {
		return 0, e.broken
	}
	if e.raw != nil && len(e.rest) == 0 && !e.waiting {
		e.p, e.n, e.err = p, 0, nil
		err := e.raw.Control(e.now) // as Write, but heedless of what is left of a drain's deadline
		e.p = nil
		if err == nil {
			err = e.err
		}
		if err != nil || e.n == len(p) {
			return e.n, err
		}
	} else {
		e.n = 0
	}
	if len(e.rest)+len(p) > eagerMost {
		e.broken = errUnread
		return 0, e.broken
	}
	e.rest = append(e.rest, p[e.n:]...)
	return len(p), nil
}

// empty reports whether all that was written is with the system.
func (e *eager) empty() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.rest) == 0 && !e.waiting
}

// drain waits until it is. Before each wait it calls bound, which sets the deadline.
func (e *eager) drain(bound func() error) error {
	for {
		e.mu.Lock()
		rest := e.rest
		e.rest, e.waiting = nil, len(rest) > 0
		e.mu.Unlock()
		if len(rest) == 0 {
			return nil
		}
		err := bound()
		if err == nil {
			_, err = e.Conn.Write(rest)
		}
		if err != nil {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.broken = err
			return err
		}
	}
}
