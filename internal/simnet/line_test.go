package simnet

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// TestLine sends five packets at once over a line that carries one in 10 ms: one
// is under way, two wait, and two are lost.
func TestLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = headers + 1
		n := New(t, Options{Line: func(from, _ netip.Addr) Line {
			if from.As4()[3] == 1 {
				return Line{Rate: 100 * size, Queue: 2 * size}
			}
			return Line{}
		}})
		a, b := n.Conn(addrA), n.Conn(addrB)
		began := time.Now()
		for _, text := range []string{"1", "2", "3", "4", "5"} {
			send(t, a, addrB, text)
		}
		for i, want := range []string{"1", "2", "3", ""} {
			at := time.Duration(i+1)*10*time.Millisecond + time.Millisecond
			if x := got(t, b); x != want || x != "" && time.Since(began) != at {
				t.Errorf("got %q after %v, not %q after %v", x, time.Since(began), want, at)
			}
		}
		if n.Lost() != 2 {
			t.Errorf("%d lost", n.Lost())
		}
		began = time.Now()
		send(t, b, addrA, "back")
		if x := got(t, a); x != "back" || time.Since(began) != time.Millisecond {
			t.Errorf("the way back: got %q after %v", x, time.Since(began))
		}
	})
}
