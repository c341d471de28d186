package relay

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// An admission whose sends are answered in the order of their coming.
type answered struct {
	*Admission
	waiting []string // the apps
}

// send sends n messages of an app, and returns how many are admitted.
func (a *answered) send(t *testing.T, app string, n int) (in int) {
	t.Helper()
	for range n {
		switch err := a.admit(room.ID{App: app, Room: "r"}, "u", time.Now()); {
		case err == nil:
			in++
			a.waiting = append(a.waiting, app)
		case wire.Code(err) != wire.CodeOverloaded || wire.AsError(err).RetryAfterMs == 0:
			t.Fatal(err)
		default:
			a.refuse(err)
		}
	}
	return in
}

// answer answers the n oldest sends.
func (a *answered) answer(n int) {
	for _, app := range a.waiting[:n] {
		a.settle(app)
	}
	a.waiting = a.waiting[n:]
}

// Each step is sends of an app, and how many of them are admitted; or answers.
func TestAppsHaveShares(t *testing.T) {
	type step struct {
		app      string
		sends, n int // with no app: n are answered
	}
	for _, test := range []struct {
		name  string
		steps []step
	}{
		{"one alone leaves a quarter", []step{{"a", 200, 75}, {"", 0, 30}, {"a", 200, 30}}},
		{"below half nobody is held back", []step{{"a", 40, 40}, {"b", 11, 11}, {"a", 1, 0}}},
		{"those who come have room", []step{{"a", 200, 75}, {"b", 10, 10}, {"c", 10, 10}, {"d", 10, 5}}},
		{"a share is what all get", []step{{"a", 75, 75}, {"b", 100, 25}, {"", 0, 50}, {"b", 100, 12}, {"a", 100, 12}, {"b", 1, 0}}},
		{"more apps, smaller shares", []step{{"a", 100, 75}, {"b", 20, 20}, {"", 0, 75}, {"c", 100, 37}, {"d", 100, 25}, {"b", 10, 5}, {"e", 30, 13}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := &answered{Admission: NewAdmission(AdmissionConfig{InFlight: 100, RoomPerSecond: -1})}
			for i, s := range test.steps {
				if s.app == "" {
					a.answer(s.n)
				} else if in := a.send(t, s.app, s.sends); in != s.n {
					t.Errorf("step %d: %d of %d sends of %s are admitted, want %d", i, in, s.sends, s.app, s.n)
				}
			}
			a.answer(len(a.waiting))
			if s := a.Stats(); s.Open != 0 || s.Apps != 0 {
				t.Errorf("with nothing open: %+v", s)
			}
		})
	}
}

// An app that floods a node keeps none of another's sends out, whoever came first.
func TestFloodOfOneApp(t *testing.T) {
	for _, first := range []string{"flood", "calm"} {
		a := &answered{Admission: NewAdmission(AdmissionConfig{InFlight: 1024, RoomPerSecond: -1})}
		if first == "flood" {
			a.send(t, "flood", 10_000)
		}
		calm := 0
		for range 200 {
			calm += a.send(t, "calm", 8)
			a.send(t, "flood", 1000)
			a.answer(len(a.waiting) / 8)
		}
		s := a.Stats()
		if calm != 1600 || s.Refused[wire.CodeOverloaded] < 100_000 || s.Admitted < 10_000 {
			t.Errorf("%s first: %d of 1600 calm sends are admitted; %+v", first, calm, s)
		}
	}
}

// Apps without open sends are not remembered.
func TestAppsAreForgotten(t *testing.T) {
	a := &answered{Admission: NewAdmission(AdmissionConfig{InFlight: 100, RoomPerSecond: -1})}
	for i := range 1000 {
		a.send(t, fmt.Sprint(i), 1)
		a.answer(len(a.waiting) - min(50, len(a.waiting)))
	}
	if s := a.Stats(); s.Apps != 50 || slices.Contains(a.waiting, "0") {
		t.Errorf("%+v", s)
	}
}
