package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/starling-im/starling/client"
)

// With --live what is typed is said live and stays in the input if that fails; commands are
// sent. What others say is shown among the messages.
func TestLiveOnTheScreen(t *testing.T) {
	s, typed := newTestScreen()
	var said []string
	var refuse error
	s.live = func(text string) error {
		said = append(said, text)
		return refuse
	}
	enter := func(text string) {
		s.input.SetValue(text)
		s.Update(tea.KeyPressMsg{Code: tea.KeyEnter})
	}
	enter("goal!")
	enter("//goal")
	enter("/me waves")
	refuse = errors.New("no node takes it")
	enter("again")
	if got := strings.Join(said, ", "); got != "goal!, /goal, again" || s.note != "not said: no node takes it" || s.input.Value() != "again" {
		t.Errorf("said %s; note %q, input %q", got, s.note, s.input.Value())
	}
	if m := <-typed; m.Kind != client.KindAction || len(typed) > 0 {
		t.Errorf("sent %+v, and %d more", m, len(typed))
	}
	s.Update(saidMsg{{Room: "lobby", Seq: 7, User: "bob", Kind: client.KindMessage, Content: "stored"}})
	s.Update(liveMsg{Lines: []client.Line{{User: "carol", Content: "what a\x1b[2J game"}}, LeftOut: 214})
	s.note = ""
	all := s.View().Content
	for _, want := range []string{"stored", "  live", "carol", "… and 214 more"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in\n%s", want, all)
		}
	}
	if strings.Contains(all, "\x1b[2J") {
		t.Errorf("the screen shows\n%q", all)
	}
	s.Update(signalsMsg(client.Signals{Unheard: true}))
	if all := s.View().Content; !strings.Contains(all, "no place") {
		t.Errorf("the status line does not say that nothing is heard:\n%s", all)
	}
}

func TestLiveLinesArePrinted(t *testing.T) {
	is := client.Live{Lines: []client.Line{{User: "bob", Content: "<goal>\n", Time: time.UnixMilli(5)}}, LeftOut: 2}
	for _, test := range []struct {
		json bool
		want string
	}{
		{false, "   live  bob: <goal> \n"},
		{false, "   live  … and 2 more\n"},
		{true, `{"room":"r","live":true,"user":"bob","text":"<goal>\n","ts":5}` + "\n" + `{"room":"r","live":true,"left_out":2}` + "\n"},
	} {
		var out bytes.Buffer
		a := &app{json: test.json}
		if err := a.liveWriter(&out, "r")(is); err != nil || !strings.Contains(out.String(), test.want) {
			t.Errorf("printed %q (%v), want %q", out.String(), err, test.want)
		}
	}
}

// Who does not take what is said live holds up nobody, and learns how much it was.
func TestOverhear(t *testing.T) {
	heard := make(chan client.Live, 1)
	hear := overhear(heard)
	for range 3 {
		hear(client.Live{Lines: make([]client.Line, 2), LeftOut: 10})
	}
	first := <-heard
	hear(client.Live{Lines: make([]client.Line, 2), LeftOut: 10})
	if next := <-heard; first.LeftOut != 10 || next.LeftOut != 10+2*12 {
		t.Errorf("%d were left out, then %d", first.LeftOut, next.LeftOut)
	}
}
