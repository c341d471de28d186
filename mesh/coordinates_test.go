package mesh

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/starling-im/starling/internal/simnet"
)

// Nodes that probe each other find out where they are: a estimates the way to c, and
// also that between b and c, which it has never measured.
func TestCoordinates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, simnet.Options{Latency: func(from, to netip.Addr) time.Duration {
			if from.As4()[3] == 3 || to.As4()[3] == 3 {
				return 60 * time.Millisecond
			}
			return 10 * time.Millisecond
		}})
		a, b, _ := w.three()
		near := func(got, want time.Duration) bool { return (got - want).Abs() < want/4 }
		a.wait(3*time.Minute, "coordinates", func(v *View) bool {
			own, _ := v.Member("a")
			mb, _ := v.Member("b")
			mc, _ := v.Member("c")
			return near(own.Coordinate.RTT(mc.Coordinate), 120*time.Millisecond) && near(own.Coordinate.RTT(mb.Coordinate), 20*time.Millisecond) &&
				near(mb.Coordinate.RTT(mc.Coordinate), 120*time.Millisecond) && mc.MinRTT > 0 && mc.MinRTT <= mc.RTT
		})
		// Nonsense moves nobody.
		before := b.gossip.locator.Coordinate()
		for _, payload := range [][]byte{nil, []byte("elsewhere"), make([]byte, 45)} {
			b.gossip.NotifyPingComplete(&memberlist.Node{Name: "a"}, time.Second, payload)
		}
		if after := b.gossip.locator.Coordinate(); after != before {
			t.Errorf("nonsense moved b from %v to %v", before, after)
		}
	})
}
