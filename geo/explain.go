package geo

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// String says what a way is, such as "hkg-1 in hkg, which goes on to fra-1: 190.0 ms (measured), 0.02 per GB".
func (w Way) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s in %s", w.To.Node, w.To.Region)
	switch w.Role {
	case NoRole:
		return "nobody"
	case NearReplica, FarReplica:
		text.WriteString(", a replica")
	case RegionRelay:
		text.WriteString(", the relay of the region")
	case Detour:
		fmt.Fprintf(&text, ", which goes on to %s", w.Then.Node)
	}
	fmt.Fprintf(&text, ": %s (%s)", ms(w.RTT), w.By)
	if w.Price > 0 {
		text.WriteString(", " + money(w.Price) + " per GB")
	}
	return text.String()
}

func money(price float64) string { return strconv.FormatFloat(price, 'g', 4, 64) }

// Why says why a way was not taken where another one was.
func (w Way) Why(taken Way) string {
	longer, dearer := w.RTT-taken.RTT, w.Price-taken.Price
	var reasons []string
	switch {
	case longer > 0:
		reasons = append(reasons, ms(longer)+" longer")
	case longer < 0:
		reasons = append(reasons, ms(-longer)+" shorter")
	}
	switch {
	case dearer > 0:
		reasons = append(reasons, fmt.Sprintf("%s per GB dearer, which counts as %s", money(dearer), ms(worth(0, dearer))))
	case dearer < 0:
		reasons = append(reasons, fmt.Sprintf("%s per GB cheaper, which counts as %s", money(-dearer), ms(worth(0, -dearer))))
	}
	if w.worth() <= taken.worth() {
		reasons = append(reasons, fmt.Sprintf("not better by %.0f %% and %s", 100*marginShare, ms(marginLeast)))
	}
	if len(reasons) == 0 {
		return "as good"
	}
	return strings.Join(reasons, ", ")
}

// Explain says in sentences what was decided and why, the decision first.
func (d Decision) Explain() []string {
	if d.Role == NoRole {
		return []string{"follows nobody: " + d.why}
	}
	text := []string{"follows " + d.Way.String()}
	if d.why != "" {
		text[0] += "; " + d.why
	}
	for _, w := range d.Others {
		text = append(text, fmt.Sprintf("not %v; %s", w, w.Why(d.Way)))
	}
	if !d.Since.IsZero() {
		text = append(text, fmt.Sprintf("%s is better; it is taken if it still is at %s", d.Better.To.Node, d.Review().UTC().Format(time.TimeOnly)))
	}
	return text
}
