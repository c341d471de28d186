package main

import (
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/wire"
)

// newTestScreen is a screen of 80 columns and what is typed on it.
func newTestScreen() (*screen, chan client.Message) {
	typed := make(chan client.Message, chatUnsent)
	s := newScreen(func() (string, string) { return "fra-1", "fra" }, "alice", "lobby", typed)
	s.Init()
	s.Update(tea.WindowSizeMsg{Width: 80, Height: 24})
	return s, typed
}

func press(s *screen, key rune) { s.Update(tea.KeyPressMsg{Code: key, Text: string(key)}) }

func TestLongMessagesCostNothingPerKey(t *testing.T) {
	s, _ := newTestScreen()
	for i := range chatKept {
		s.Update(saidMsg{{Room: "lobby", Seq: uint64(i + 1), User: "bob", Kind: client.KindMessage, Content: strings.Repeat("words ", wire.Content/6)}})
	}
	began := time.Now()
	const keys = 50
	for range keys {
		press(s, 'x')
		_ = s.View()
	}
	if per := time.Since(began) / keys; per > 20*time.Millisecond {
		t.Errorf("a key takes %v", per)
	}
	view := s.View().Content
	if !strings.Contains(view, "… 31 KB in all; see edge-node export lobby") || strings.Count(view, "\n") != 23 {
		t.Errorf("the screen shows\n%s", view)
	}
}

func TestPaste(t *testing.T) {
	s, typed := newTestScreen()
	text := "func f() {\r\n\treturn // ␤\r\n}"
	s.Update(tea.PasteMsg{Content: text})
	if view := s.View().Content; !strings.Contains(view, "{␤␉return // ␤␤}") {
		t.Errorf("the input shows\n%s", view)
	}
	s.Update(tea.KeyPressMsg{Code: tea.KeyEnter})
	if m := <-typed; m.Content != strings.ReplaceAll(text, "\r", "") {
		t.Errorf("sent is %q", m.Content)
	}
	whole := strings.Repeat("é", wire.Content/2)
	s.Update(tea.PasteMsg{Content: whole})
	s.Update(tea.PasteMsg{Content: "y"})
	if s.note == "" || !strings.Contains(s.note, "too_large") {
		t.Errorf("too much is pasted, and the status line says %q", s.note)
	}
	press(s, 'z')
	s.Update(tea.KeyPressMsg{Code: tea.KeyEnter})
	if !strings.Contains(s.note, "too_large") || s.input.Value() != whole+"z" {
		t.Errorf("too long a text: note %q, input of %d bytes", s.note, len(s.input.Value()))
	}
	s.Update(tea.KeyPressMsg{Code: tea.KeyBackspace})
	s.Update(tea.KeyPressMsg{Code: tea.KeyEnter})
	if m := <-typed; m.Content != whole {
		t.Errorf("sent are %d bytes of %d", len(m.Content), len(whole))
	}
}

func TestCommandsOfTheScreen(t *testing.T) {
	s, typed := newTestScreen()
	s.input.SetValue("/nosuch thing")
	s.Update(tea.KeyPressMsg{Code: tea.KeyEnter})
	if s.note != "there is no command /nosuch; // begins a text with a /" || len(typed) > 0 {
		t.Errorf("/nosuch: %q, %d sent", s.note, len(typed))
	}
	s.Update(tea.WindowSizeMsg{Width: 40, Height: 24})
	s.input.SetValue("/help")
	s.Update(tea.KeyPressMsg{Code: tea.KeyEnter})
	for _, want := range []string{"/me", "/join", "/leave", "/quit", "//text", "PgDn"} {
		if view := s.View().Content; !strings.Contains(view, want) || len(typed) > 0 || s.input.Value() != "" {
			t.Errorf("/help does not show %s; %d sent:\n%s", want, len(typed), view)
		}
	}
	if s.input.SetValue("//help"); s.enter() != nil || (<-typed).Content != "/help" {
		t.Error("// does not stand for /")
	}
}

// /quit waits for what is on its way, not for what cannot be sent, and only once.
func TestScreenLeavesAfterAcks(t *testing.T) {
	enter := func(s *screen, line string) tea.Cmd {
		s.input.SetValue(line)
		_, cmd := s.Update(tea.KeyPressMsg{Code: tea.KeyEnter})
		return cmd
	}
	quits := func(cmd tea.Cmd) bool { return cmd != nil && cmd() == tea.Quit() }
	s, typed := newTestScreen()
	enter(s, "one")
	enter(s, "two")
	first, second := <-typed, <-typed
	if cmd := enter(s, "/quit"); cmd == nil || !s.leaving || !strings.Contains(s.View().Content, "leaving once 2 messages are acknowledged") {
		t.Errorf("/quit with two pending shows\n%s", s.View().Content)
	}
	if enter(s, "three"); len(typed) > 0 {
		t.Error("who leaves goes on talking")
	}
	if _, cmd := s.Update(settleMsg{first.ID, nil}); cmd != nil {
		t.Error("it ends before the event is there")
	}
	s.Update(settleMsg{second.ID, errNotText})
	if _, cmd := s.Update(saidMsg{{Room: "lobby", Seq: 1, User: "alice", ID: first.ID, Kind: client.KindMessage, Content: "one"}}); !quits(cmd) {
		t.Error("it does not end once nothing is on its way")
	}
	s, _ = newTestScreen()
	if !quits(enter(s, "/quit")) {
		t.Error("it waits for nothing")
	}
	enter(s, "one")
	enter(s, "/quit")
	if _, cmd := s.Update(tea.KeyPressMsg{Code: 'd', Mod: tea.ModCtrl}); !quits(cmd) {
		t.Error("who asks again still waits")
	}
}

func TestTranscript(t *testing.T) {
	tr := transcript{width: 20, height: 3}
	for seq, text := range []string{"one", "two\nlines", "a text of more than one row"} {
		tr.hear(said(client.Event{Seq: uint64(seq + 1), User: "bob", Kind: client.KindAction, Content: text}))
	}
	tr.await(unsaid("m", client.Event{User: "al", Kind: client.KindMessage, Content: "hi"}))
	shows := func(want ...string) {
		t.Helper()
		for _, w := range want {
			if !strings.Contains(tr.view(), w) {
				t.Errorf("no %q in\n%s", w, tr.view())
			}
		}
		if n := strings.Count(tr.view(), "\n") + 1; n != tr.height {
			t.Errorf("%d rows", n)
		}
	}
	shows("…", "al: hi")
	tr.failed("m", "no")
	shows("not sent")
	tr.arrived("m")
	tr.scroll(1000)
	shows("one", "* bob two", "lines")
	tr.hear(said(client.Event{Seq: 4, User: "bob", Kind: client.KindMessage, Content: "x"}))
	shows("one")
	tr.resize(80, 10)
	shows("a text of more than one row", "one", "bob")
}
