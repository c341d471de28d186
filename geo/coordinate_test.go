package geo

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// settle lets nodes measure each other for so many rounds: in each of them every
// node measures one other. rtt returns 0 where nothing was measured.
func settle(n, rounds int, rng *rand.Rand, rtt func(a, b int) time.Duration) []Coordinate {
	locators := make([]*Locator, n)
	at := make([]Coordinate, n)
	for i := range locators {
		locators[i] = NewLocator(fmt.Sprint("node-", i))
		at[i] = locators[i].Coordinate()
	}
	for range rounds {
		for i := range locators {
			peer := rng.IntN(n)
			if d := rtt(i, peer); peer != i && d > 0 {
				at[i], _ = locators[i].Measured(fmt.Sprint("node-", peer), at[peer], d)
			}
		}
	}
	return at
}

// Nodes on a line, each beside a router that takes a millisecond: what was never
// measured is estimated within a tenth, or 6 ms.
func TestCoordinatesEstimate(t *testing.T) {
	rtt := func(a, b int) time.Duration {
		return time.Duration(2+20*max(a-b, b-a)) * time.Millisecond
	}
	hidden := func(a, b int) bool { return (a+b)%7 == 0 }
	at := settle(20, 600, rand.New(rand.NewPCG(1, 1)), func(a, b int) time.Duration {
		if hidden(a, b) {
			return 0
		}
		return rtt(a, b)
	})
	for a := range at {
		for b := range a {
			is, got := rtt(a, b), at[a].RTT(at[b])
			if wrong := (got - is).Abs(); hidden(a, b) && wrong > max(is/10, 6*time.Millisecond) {
				t.Errorf("%d to %d is %v, the estimate %v", a, b, is, got)
			}
		}
	}
	again := settle(20, 600, rand.New(rand.NewPCG(1, 1)), func(a, b int) time.Duration {
		if hidden(a, b) {
			return 0
		}
		return rtt(a, b)
	})
	for i := range at {
		if at[i] != again[i] {
			t.Fatalf("the same measurements made %v and %v", at[i], again[i])
		}
	}
}

func TestCoordinateEncoding(t *testing.T) {
	l := NewLocator("a")
	b := NewLocator("b").Coordinate()
	for range 50 {
		if _, err := l.Measured("b", b, 80*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	a := l.Coordinate()
	encoded := a.Encode()
	if len(encoded) > 100 {
		t.Errorf("%d bytes", len(encoded))
	}
	got, err := DecodeCoordinate(append(encoded, "what a later release says"...))
	if err != nil || (got.RTT(b)-a.RTT(b)).Abs() > 10*time.Microsecond || a.Error() >= 1.5 || math.Abs(got.Error()-a.Error()) > 1e-6 {
		t.Errorf("%v became %v, %v", a, got, err)
	}
	if (Coordinate{}).Known() || (Coordinate{}).RTT(a) != 0 || a.RTT(Coordinate{}) != 0 {
		t.Error("the zero coordinate is somewhere")
	}
}

// Each of these would pull others away from where they are.
func TestBadCoordinates(t *testing.T) {
	good := NewLocator("a").Coordinate()
	change := func(f func(c *Coordinate)) []byte { c := good; f(&c); return c.Encode() }
	for name, b := range map[string][]byte{
		"empty":           nil,
		"short":           good.Encode()[:coordinateBytes-1],
		"another version": append([]byte{coordinateVersion + 1}, good.Encode()[1:]...),
		"not a number":    change(func(c *Coordinate) { c.vec[3] = math.NaN() }),
		"infinite":        change(func(c *Coordinate) { c.vec[0] = math.Inf(-1) }),
		"far":             change(func(c *Coordinate) { c.vec[7] = 3 }),
		"adjusted far":    change(func(c *Coordinate) { c.adjustment = -3 }),
		"below ground":    change(func(c *Coordinate) { c.height = -0.1 }),
		"not known":       Coordinate{}.Encode(),
		"too sure":        change(func(c *Coordinate) { c.error = -1 }),
	} {
		if c, err := DecodeCoordinate(b); !errors.Is(err, ErrCoordinate) {
			t.Errorf("%s: %v, %v", name, c, err)
		}
	}
	l := NewLocator("b")
	before := l.Coordinate()
	for _, rtt := range []time.Duration{-1, 0, 3 * time.Second} {
		if after, err := l.Measured("a", good, rtt); !errors.Is(err, ErrCoordinate) || after != before {
			t.Errorf("measured %v: %v, %v", rtt, after, err)
		}
	}
	if after, err := l.Measured("a", Coordinate{}, time.Second); !errors.Is(err, ErrCoordinate) || after != before {
		t.Errorf("measured nowhere: %v, %v", after, err)
	}
}

func FuzzDecodeCoordinate(f *testing.F) {
	f.Add(NewLocator("a").Coordinate().Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeCoordinate(b)
		if err != nil {
			return
		}
		l := NewLocator("b")
		if after, err := l.Measured("a", c, time.Second); err != nil || !after.Known() || math.IsNaN(after.vec[0]) {
			t.Errorf("%v moved another to %v, %v", c, after, err)
		}
	})
}
