package edge

import (
	"bytes"
	"io"
	"net"
	"testing"
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
