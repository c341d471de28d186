package geo

import (
	"fmt"
	"time"
)

// Source says where a round-trip time comes from.
type Source string

// The sources, the best first.
const (
	Measured  Source = "measured"  // on the link itself
	Estimated Source = "estimated" // from the coordinates of both ends
	Tabled    Source = "table"     // between their regions, as shipped
	Guessed   Source = "guessed"   // nothing is known
)

// sources are all of them, the best first.
var sources = []Source{Measured, Estimated, Tabled, Guessed}

// guess stands for a round trip of which nothing is known: longer than any on
// land, so that what is known comes first.
const guess = 500 * time.Millisecond

// Link is what is known of the way between two nodes.
type Link struct {
	RTT   time.Duration
	By    Source
	Price float64 // per GB, in whatever money; 0 = free
}

// Links returns what is known of the way between two nodes. A pair has one price and
// one time, whichever is named first.
type Links func(a, b Site) Link

// Know returns the best of what is known of a round trip; 0 = not known.
func Know(measured, estimated, tabled time.Duration) (time.Duration, Source) {
	switch {
	case measured > 0:
		return measured, Measured
	case estimated > 0:
		return estimated, Estimated
	case tabled > 0:
		return tabled, Tabled
	}
	return guess, Guessed
}

// TableLinks knows only the table of regions, and no prices.
func TableLinks(t *Table) Links {
	return func(a, b Site) Link {
		rtt, _ := t.RTT(a.Region, b.Region)
		d, by := Know(0, 0, rtt)
		if a.Region == b.Region {
			d, by = 0, Tabled
		}
		return Link{RTT: d, By: by}
	}
}

// PriceWorth is what it is worth, in round-trip time, that a GB costs one unit of
// money less: a cent is worth 10 ms.
const PriceWorth = time.Second

// worth is a round trip and a price as one number.
func worth(rtt time.Duration, price float64) time.Duration {
	return rtt + time.Duration(price*float64(PriceWorth))
}

// MaxPrice bounds a price per GB: above it worth means nothing any more.
const MaxPrice = 1000.0

const (
	// marginShare and marginLeast are by how much another way must be better than
	// the one that is taken: by this share of it, and by this time.
	marginShare = 0.10
	marginLeast = 2 * time.Millisecond
	// Hold is for how long it must have been so, without a break.
	Hold = 20 * time.Second
)

// clearlyBetter reports whether a is better than b by the margin.
func clearlyBetter(a, b time.Duration) bool {
	return b-a >= max(marginLeast, time.Duration(marginShare*float64(b)))
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond)) }
