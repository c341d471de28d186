package starling

import (
	"testing"

	"github.com/starling-im/starling/wire"
)

// When a group's leader changes, what the old one has not answered ends with an
// unknown outcome, what comes next is refused once, and a late answer is not
// told: so senders start again with the first.
func TestFlightsNeverOvertake(t *testing.T) {
	var f flights
	var told []string
	depart := func(name string, group uint32, leader string) func(*wire.Ack, error) {
		done, err := f.depart(group, leader, func(_ *wire.Ack, err error) { told = append(told, name+" "+wire.Code(err)) })
		if err != nil {
			told = append(told, name+" refused "+wire.Code(err))
		}
		return done
	}
	a := depart("a", 1, "old")
	other := depart("other group", 2, "old")
	depart("b", 1, "new")
	a(nil, nil) // too late
	a2 := depart("a again", 1, "new")
	a2(nil, nil)
	depart("c", 1, "old") // nothing is open: a change is no matter
	other(nil, nil)
	want := []string{"a unavailable", "b refused not_leader", "a again ", "other group "}
	if len(told) != len(want) {
		t.Fatalf("told %q, want %q", told, want)
	}
	for i := range want {
		if told[i] != want[i] {
			t.Errorf("told %q, want %q", told, want)
		}
	}
}
