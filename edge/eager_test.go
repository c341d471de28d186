package edge

import (
	"bytes"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
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

// TestHandshakesTakeTurns has handshakes go on when those before are answered, or over, and
// not wait for ever.
func TestHandshakesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := pipes{make(chan net.Conn, 1), nil}
		l := EagerListener(from)
		most, callers := int64(max(1, runtime.GOMAXPROCS(0)/2)), int64(4*runtime.GOMAXPROCS(0))
		var begun, late atomic.Int64
		var all []net.Conn
		call := func() {
			near, far := net.Pipe()
			go func() { _, _ = near.Read(make([]byte, 1)) }()
			from.conns <- far
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, c)
			go func() {
				if _, err := Handshake(c); err == nil {
					begun.Add(1)
				} else {
					late.Add(1)
				}
			}()
			synctest.Wait()
		}
		for range callers {
			call()
		}
		if n := begun.Load(); n != most {
			t.Errorf("%d handshakes at once, not %d", n, most)
		}
		if _, err := all[0].Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := begun.Load(); n != most+1 {
			t.Errorf("%d handshakes have begun after one was answered, not %d", n, most+1)
		}
		time.Sleep(handshakeWait)
		synctest.Wait()
		if n, m := begun.Load(), late.Load(); n != most+1 || m != callers-most-1 {
			t.Errorf("%d of %d handshakes have begun, and %d were late", n, callers, m)
		}
		for _, c := range all {
			_ = c.Close()
		}
		call()
		if begun.Load() != most+2 {
			t.Error("those that are over keep their turns")
		}
		_ = all[callers].Close()
	})
}

// TestCrowd tells those who come beyond what is usual in a second.
func TestCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := pipes{make(chan net.Conn, 1), nil}
		l := EagerListener(from)
		come := func(n int) (crowd int) {
			for range n {
				_, far := net.Pipe()
				from.conns <- far
				c, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				crowded, err := Handshake(c)
				if err != nil {
					t.Fatal(err)
				}
				if crowded {
					crowd++
				}
				_ = c.Close()
			}
			return crowd
		}
		if n := come(usualHandshakes); n != 0 {
			t.Errorf("%d of the usual number are a crowd", n)
		}
		if n := come(100); n != 100 {
			t.Errorf("of 100 more %d are a crowd", n)
		}
		time.Sleep(time.Second)
		if n := come(usualHandshakes); n != 0 {
			t.Errorf("%d are a crowd a second later", n)
		}
	})
}
