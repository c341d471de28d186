package edge

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/starling-im/starling/wire"
)

func prefix(n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 32)
}

// A crowd comes in as fast as it may, and each who has to wait comes in at the time
// that it was told; somebody from elsewhere does not wait for them.
func TestEntrance(t *testing.T) {
	e := &entrance{perSecond: 100, perSecondFrom: 50, from: map[netip.Prefix]*pace{}}
	now := time.Now()
	came := func(at time.Time, from, n int) (in int, waits []time.Duration) {
		for range n {
			var told *wire.Error
			switch err := e.pass(prefix(from), at); {
			case err == nil:
				in++
			case errors.As(err, &told) && told.Code == wire.CodeOverloaded && told.Retryable:
				waits = append(waits, time.Duration(told.RetryAfterMs)*time.Millisecond)
			default:
				t.Fatal(err)
			}
		}
		return in, waits
	}
	in, waits := came(now, 1, 120)
	if in != 50 || waits[0] != 20*time.Millisecond || waits[69] != 70*20*time.Millisecond {
		t.Errorf("%d of one address came in, the others wait %v", in, waits)
	}
	for i, d := range waits {
		if in, _ := came(now.Add(d), 1, 1); in != 1 {
			t.Errorf("the %dth did not come in when it was told", i)
		}
	}
	now = now.Add(time.Minute)
	for from := range 2 {
		came(now, from, 50)
	}
	if in, _ := came(now, 3, 50); in != seldom {
		t.Errorf("%d came in from elsewhere when the node had enough, want %d", in, seldom)
	}
	total := 0
	for from := range 10 * entranceAddresses {
		in, _ := came(now, 100+from, 1)
		total += in
	}
	if total > 100 || len(e.from) > entranceAddresses+1 {
		t.Errorf("%d came in from everywhere, %d addresses are remembered", total, len(e.from))
	}
	if _, waits := came(now, 1, 10_000); waits[len(waits)-1] > longestTurn+time.Second {
		t.Errorf("somebody is to wait %v", waits[len(waits)-1])
	}
	now = now.Add(time.Minute)
	if in, _ := came(now, 7, 1); in != 1 || len(e.from) > 2 {
		t.Errorf("a minute later %d came in, %d addresses are remembered", in, len(e.from))
	}
}
