package starling

import (
	"slices"
	"testing"
	"time"

	"github.com/starling-im/starling/wire"
)

// flightLog sends commands to group 1 and writes down what their senders are told.
type flightLog struct {
	flights
	told []string
}

func (l *flightLog) send(name string, way *link, err error) *flight {
	return l.sendAt(l.clock.Load(), name, way, err)
}

func (l *flightLog) sendAt(moment uint64, name string, way *link, err error) *flight {
	x := &flight{group: 1, moment: moment, done: func(_ *wire.Ack, err error) { l.told = append(l.told, name+" "+wire.Code(err)) }}
	l.depart(x, way, err)
	return x
}

func (l *flightLog) fail(x *flight, code string) { l.land(x, nil, wire.Errorf(code, "no")) }

func (l *flightLog) check(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(l.told, want) {
		t.Errorf("told %q, want %q", l.told, want)
	}
	l.told = nil
}

// When the way to a group's leader changes, what is unanswered on the old one
// ends with an unknown outcome, what comes next is refused once, and a late
// answer is not told: so senders start again with the first.
func TestFlightsNeverOvertake(t *testing.T) {
	var l flightLog
	before, after := &link{}, &link{}
	a := l.send("a", before, nil)
	l.send("b", after, nil)
	l.check(t, "a unavailable", "b not_leader")
	l.land(a, nil, nil) // too late
	l.land(l.send("a again", after, nil), nil, nil)
	l.land(l.send("c", before, nil), nil, nil) // nothing is open: a change is no matter
	l.check(t, "a again ", "c ")
}

// What a leader that has fallen silent does not answer ends when another has been
// known for two looks, though nobody sends meanwhile.
func TestFlightsToSilentLeader(t *testing.T) {
	var l flightLog
	before, after := &link{}, &link{}
	a := l.send("a", before, nil)
	for _, x := range []struct {
		way  *link
		err  error
		told []string
	}{
		{before, nil, nil}, {nil, wire.Errorf(wire.CodeNotLeader, "nobody leads"), nil},
		{after, nil, nil}, {before, nil, nil}, {after, nil, nil}, {after, nil, []string{"a unavailable"}},
	} {
		if abroad, silent := l.look(time.Now(), func(uint32) (*link, error) { return x.way, x.err }); !abroad || len(silent) > 0 {
			t.Error("nothing is under way, or nothing was heard for long:", silent)
		}
		l.check(t, x.told...)
	}
	l.land(a, nil, nil) // too late
	l.land(l.send("a again", after, nil), nil, nil)
	toBefore := func(uint32) (*link, error) { return before, nil }
	if abroad, _ := l.look(time.Now(), toBefore); abroad {
		t.Error("something is under way")
	}
	l.send("b", before, nil)
	for later, want := range map[time.Duration]int{seekAfter / 2: 0, seekAfter + 1: 1} {
		if _, silent := l.look(time.Now().Add(later), toBefore); len(silent) != want {
			t.Errorf("silent after %v: %v", later, silent)
		}
	}
	l.check(t, "a again ")
}

// After a failure nothing goes on before all of its attempt have an answer.
func TestFlightsBehindFailure(t *testing.T) {
	var l flightLog
	a, b := l.send("a", nil, nil), l.send("b", nil, nil)
	l.fail(a, wire.CodeNotLeader)
	l.send("c", nil, nil)
	l.check(t, "a not_leader", "c out_of_order")
	l.fail(b, wire.CodeOutOfOrder)
	again := l.send("a again", nil, nil)
	if again.attempt != b.attempt+1 {
		t.Errorf("attempt %d after %d", again.attempt, b.attempt)
	}
	l.land(again, nil, nil)
	l.check(t, "b out_of_order", "a again ")
	// What a room's rules refuse holds up nothing.
	d, e := l.send("d", nil, nil), l.send("e", nil, nil)
	l.fail(d, wire.CodeNotMember)
	l.land(e, nil, nil)
	l.check(t, "d not_member", "e ")
}

// What was let through before its sender was told of a failure fails too, even
// if it comes when all is over.
func TestFlightsLetThroughEarlier(t *testing.T) {
	for told, fail := range map[string]func(*flightLog){
		"a overloaded":  func(l *flightLog) { l.send("a", nil, wire.Errorf(wire.CodeOverloaded, "full")) },
		"a unavailable": func(l *flightLog) { l.fail(l.send("a", &link{}, nil), wire.CodeUnavailable) },
	} {
		var l flightLog
		early := l.clock.Load()
		fail(&l)
		l.sendAt(early, "behind", nil, nil)
		l.land(l.send("a again", nil, nil), nil, nil)
		l.check(t, told, "behind out_of_order", "a again ")
	}
}

// A sender that sends while it is being told must not go on as if it knew.
func TestFlightsWhileTelling(t *testing.T) {
	var l flightLog
	x := &flight{group: 1, done: func(*wire.Ack, error) { l.send("meanwhile", nil, nil) }}
	l.depart(x, nil, nil)
	l.fail(x, wire.CodeNotLeader)
	l.land(l.send("after", nil, nil), nil, nil)
	l.check(t, "meanwhile out_of_order", "after ")
}
