package simnet

import (
	"net"
	"net/netip"
	"slices"
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
		for range 30 {
			send(t, a, addrB, "x")
		}
		synctest.Wait()
		if lost := n.Lost(); lost < 3 || lost > 20 {
			t.Errorf("%d of 30 lost", lost)
		}
	})
}

func TestFlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(t, Options{})
		a, b := n.Conn(addrA), n.Conn(addrB)
		n.Flap([]string{"10.0.0.1"}, []string{"10.0.0.2"}, 2*time.Second)
		var came []string
		for i := range 6 {
			send(t, a, addrB, string(rune('0'+i)))
			if x := got(t, b); x != "" {
				came = append(came, x)
				time.Sleep(time.Second - time.Millisecond)
			}
		}
		if len(came) != 2 || came[0] != "2" || came[1] != "3" {
			t.Errorf("%q came", came)
		}
		n.Heal()
		send(t, a, addrB, "healed")
		if x := got(t, b); x != "healed" {
			t.Errorf("healed: got %q", x)
		}
	})
}

func TestNoise(t *testing.T) {
	for _, x := range []struct {
		noise  Noise
		sent   int
		holds  func(came []string) bool
		expect string
	}{
		{Noise{Replay: 1}, 10, func(came []string) bool { return len(came) == 20 }, "each twice"},
		{Noise{Corrupt: 1}, 10, func(came []string) bool {
			return len(came) == 10 && !slices.ContainsFunc(came, func(s string) bool { return len(s) != 2 || s == "a0" })
		}, "all with one bit turned"},
		{Noise{Jitter: time.Second}, 10, func(came []string) bool { return len(came) == 10 && !slices.IsSorted(came) }, "all in another order"},
		{Noise{}, 10, func(came []string) bool { return len(came) == 10 && slices.IsSorted(came) }, "all in order"},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := New(t, Options{Seed: 1})
			a, b := n.Conn(addrA), n.Conn(addrB)
			n.Make(x.noise)
			var want, came []string
			for i := range x.sent {
				text := "a" + string(rune('0'+i))
				if x.noise.Corrupt > 0 {
					text = "a0"
				}
				want = append(want, text)
				send(t, a, addrB, text)
			}
			for m := got(t, b); m != ""; m = got(t, b) {
				came = append(came, m)
			}
			if !x.holds(came) {
				t.Errorf("%+v: sent %q, came %q; want %s", x.noise, want, came, x.expect)
			}
		})
	}
}
