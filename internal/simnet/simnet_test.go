package simnet

import (
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

const addrA, addrB = "10.0.0.1:1", "10.0.0.2:1"

// got reads a packet from c within a second; "" if none comes.
func got(t *testing.T, c *Conn) string {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	buf := make([]byte, 100)
	n, _, err := c.ReadFrom(buf)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}

func send(t *testing.T, c *Conn, to, text string) {
	t.Helper()
	if _, err := c.WriteTo([]byte(text), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to))); err != nil {
		t.Fatal(err)
	}
}

func TestLatencyAndCuts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, Options{Latency: func(from, _ netip.Addr) time.Duration {
			return time.Duration(from.As4()[3]) * 10 * time.Millisecond
		}})
		a, b := n.Conn(addrA), n.Conn(addrB)
		began := time.Now()
		send(t, a, addrB, "1")
		send(t, a, addrB, "2")
		if x, y := got(t, b), got(t, b); x != "1" || y != "2" || time.Since(began) != 10*time.Millisecond {
			t.Errorf("got %q and %q after %v", x, y, time.Since(began))
		}
		n.CutOneWay([]string{"10.0.0.1"}, []string{"10.0.0.2"})
		send(t, a, addrB, "lost")
		send(t, b, addrA, "back")
		if x, y := got(t, b), got(t, a); x != "" || y != "back" {
			t.Errorf("one way: got %q and %q", x, y)
		}
		n.Cut([]string{"10.0.0.1"}, []string{"10.0.0.2"})
		send(t, b, addrA, "lost")
		if x := got(t, a); x != "" || n.Lost() != 2 {
			t.Errorf("cut: got %q, %d lost", x, n.Lost())
		}
		n.Heal()
		send(t, b, addrA, "healed")
		if x := got(t, a); x != "healed" {
			t.Errorf("healed: got %q", x)
		}
	})
}

func TestSocketReopened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, Options{})
		a, b := n.Conn(addrA), n.Conn(addrB)
		_ = b.Close()
		send(t, a, addrB, "lost")
		synctest.Wait()
		b = n.Conn(addrB)
		send(t, a, addrB, "new")
		if x := got(t, b); x != "new" || n.Lost() != 1 {
			t.Errorf("got %q, %d lost", x, n.Lost())
		}
	})
}

func TestLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, Options{Loss: 0.3, Seed: 1})
		a := n.Conn(addrA)
		n.Conn(addrB)
		for range 30 { // a socket holds 32
			send(t, a, addrB, "x")
		}
		synctest.Wait()
		if lost := n.Lost(); lost < 3 || lost > 20 {
			t.Errorf("%d of 30 lost", lost)
		}
	})
}
