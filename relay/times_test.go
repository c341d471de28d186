package relay

import (
	"math"
	"testing"
	"time"
)

// Each duration is counted in the bucket whose bounds it is between.
func TestTimes(t *testing.T) {
	for _, d := range []time.Duration{
		-1, 0, 1, 953, 954, time.Microsecond, 10 * time.Microsecond, 3 * time.Millisecond, 125 * time.Millisecond,
		time.Second, time.Second + 1, 2 * time.Second, 63 * time.Second, time.Hour,
	} {
		var x times
		x.add(d)
		now := x.now()
		if now.Sum != d || now.Brief+uint64(len(now.Buckets)) != 1 || (now.Brief == 1) != (d.Seconds() <= TimesBrief) {
			t.Errorf("%v: %+v", d, now)
		}
		for i, n := range now.Buckets {
			above, most := math.Exp2(float64(i-1)/timesParts), math.Exp2(float64(i)/timesParts)
			s := min(d.Seconds(), TimesBrief*(1<<timesLong))
			if n != 1 || s <= above || s > most {
				t.Errorf("%v is counted as one of %v to %v s", d, above, most)
			}
		}
	}
}

func TestTimesMakeNoGarbage(t *testing.T) {
	var s stats
	if n := testing.AllocsPerRun(1000, func() { s.turn(3*time.Millisecond, 40*time.Microsecond) }); n != 0 {
		t.Errorf("%v allocations a turn", n)
	}
}

func BenchmarkTurn(b *testing.B) {
	var s stats
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		s.turn(time.Duration(i), 40*time.Microsecond)
	}
}
