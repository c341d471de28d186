package simnet

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// TestOrdered loses a packet, and all that it is sent again, with another behind it that is
// not lost; then one that nothing follows.
func TestOrdered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const trip, later = 100 * time.Millisecond, 10 * time.Millisecond
		n := New(t, Options{
			Latency: func(netip.Addr, netip.Addr) time.Duration { return trip },
			Ordered: func(netip.Addr, netip.Addr) bool { return true },
		})
		a, b := n.Conn(addrA), n.Conn(addrB)
		again := time.Duration(0)
		for i := range mostAgain {
			again += (2*trip + leastRTO) << i
		}
		arrives := func(want string, began time.Time, after time.Duration) {
			t.Helper()
			_ = b.SetReadDeadline(time.Now().Add(time.Minute))
			buf := make([]byte, 100)
			m, _, err := b.ReadFrom(buf)
			if took := time.Since(began); err != nil || string(buf[:m]) != want || took != after {
				t.Errorf("%q came after %v, want %q after %v; %v", buf[:m], took, want, after, err)
			}
		}
		began := time.Now()
		n.Make(Noise{Loss: 1})
		send(t, a, addrB, "lost")
		synctest.Wait()
		n.Make(Noise{})
		time.Sleep(later)
		send(t, a, addrB, "behind")
		at := later + 3*trip + trip/2 + again
		arrives("lost", began, at)
		arrives("behind", began, at)

		began = time.Now()
		n.Make(Noise{Loss: 1})
		send(t, a, addrB, "last")
		arrives("last", began, 5*trip+again)
		n.Make(Noise{})
		began = time.Now()
		send(t, a, addrB, "well")
		arrives("well", began, trip)
		if n.Lost() != 2 {
			t.Errorf("%d lost", n.Lost())
		}
	})
}
