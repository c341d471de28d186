package edge

import (
	"bytes"
	"io"
	"net"
	"runtime"
	"testing"
	"testing/synctest"
)

// TestEagerKeepsOrder writes more than a socket takes, and then a little when it takes
// something again, as TLS may while nobody drains yet: the little comes behind the rest.
func TestEagerKeepsOrder(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far, err := EagerListener(l).Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	e := far.(*eager)
	_ = e.Conn.(*net.TCPConn).SetWriteBuffer(64 << 10)
	e.begin()
	wrote, piece := 0, bytes.Repeat([]byte{'a'}, 64<<10)
	for e.empty() {
		if _, err := e.Write(piece); err != nil {
			t.Fatal(err)
		}
		wrote += len(piece)
	}
	got := make([]byte, wrote+1)
	read := wrote - len(piece)
	if _, err := io.ReadFull(near, got[:read]); err != nil { // now it takes more
		t.Fatal(err)
	}
	if _, err := e.Write([]byte{'z'}); err != nil {
		t.Fatal(err)
	}
	drained := make(chan error, 1)
	go func() { drained <- e.drain(func() error { return nil }) }()
	if _, err := io.ReadFull(near, got[read:]); err != nil {
		t.Fatal(err)
	}
	if err := <-drained; err != nil {
		t.Fatal(err)
	}
	if i := bytes.IndexByte(got, 'z'); i != wrote {
		t.Errorf("the last byte came as number %d of %d", i, len(got))
	}
}

// TestHandshakesTakeTurns has handshakes go on when those before are answered, or over.
func TestHandshakesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := pipes{make(chan net.Conn, 1), nil}
		l := EagerListener(from)
		begun, most, callers := 0, max(1, runtime.GOMAXPROCS(0)/2), 4*runtime.GOMAXPROCS(0)
		var all []net.Conn
		for range callers {
			near, far := net.Pipe()
			go func() { _, _ = near.Read(make([]byte, 1)) }()
			from.conns <- far
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, c)
			go func() { Handshake(c); begun++ }()
			synctest.Wait()
		}
		if begun != most {
			t.Errorf("%d handshakes at once, not %d", begun, most)
		}
		if _, err := all[0].Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if begun != most+1 {
			t.Errorf("%d handshakes have begun after one was answered, not %d", begun, most+1)
		}
		for _, c := range all {
			_ = c.Close()
			synctest.Wait()
		}
		if begun != callers {
			t.Errorf("%d of %d handshakes have had their turn", begun, callers)
		}
	})
}
