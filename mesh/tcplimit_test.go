package mesh

import (
	"net"
	"net/netip"
	"testing"
)

// TestTCPLimit has one address come too often: what is too much is closed, and another
// one takes its place when one goes.
func TestTCPLimit(t *testing.T) {
	m := &Mesh{}
	m.table = newTable(Member{ID: "a"}, []Member{{ID: "b", Addr: "127.0.0.2:1"}})
	m.table.all["b"].State = Alive
	m.table.publish()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	l := m.LimitTCP(inner)
	accepted := make(chan net.Conn)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	dial := func(from string) net.Conn {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		c, err := d.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	var first net.Conn
	for range tcpFrom {
		dial("127.0.0.1")
		first = <-accepted
	}
	if _, err := dial("127.0.0.1").Read(make([]byte, 1)); err == nil {
		t.Error("one address has more than its connections")
	}
	if refused := m.meter.limit.Load(); refused != 1 {
		t.Errorf("%d are counted as refused", refused)
	}
	for range tcpFrom + 1 { // a member may have more
		dial("127.0.0.2")
		<-accepted
	}
	_ = first.Close()
	_ = first.Close() // counts once
	dial("127.0.0.1")
	<-accepted
	if _, err := dial("127.0.0.1").Read(make([]byte, 1)); err == nil {
		t.Error("one address has more than its connections after one went")
	}
}

// TestTCPKept has strangers of many networks come: a share is kept for members.
func TestTCPKept(t *testing.T) {
	l := &tcpLimit{from: make(map[netip.Prefix]int)}
	stranger := func(i int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
	}
	for i := range tcpMax - tcpKept {
		if !l.begin(stranger(i), false) {
			t.Fatalf("stranger %d is refused", i)
		}
	}
	if l.begin(stranger(tcpMax), false) {
		t.Error("strangers have more than their share")
	}
	for i := range tcpKept {
		if !l.begin(stranger(0), true) {
			t.Fatalf("member %d is refused", i)
		}
	}
	if l.begin(stranger(0), true) {
		t.Error("there are more than the most")
	}
}
