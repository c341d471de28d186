package main

import (
	"strings"
	"testing"

	tea "charm.land/bubbletea/v2"

	"github.com/starling-im/starling/client"
)

func TestWhoIsTyping(t *testing.T) {
	s, typed := newTestScreen()
	types, rests := 0, 0
	s.types, s.rests = func() { types++ }, func() { rests++ }
	for _, c := range []struct {
		is   client.Signals
		want string
	}{
		{client.Signals{}, "connected"},
		{client.Signals{Users: 1}, "connected"},
		{client.Signals{Typing: []string{"bob"}, Users: 2}, "connected  2 here  bob is typing"},
		{client.Signals{Typing: []string{"bob", "carol"}, Users: 3}, "3 here  bob and carol are typing"},
		{client.Signals{Typing: []string{"bob", "carol", "dave"}, Others: 5}, "connected  bob, carol and 6 others are typing"},
		{client.Signals{Others: 1}, "connected  1 other is typing"},
		{client.Signals{Others: 2}, "connected  2 others are typing"},
	} {
		s.Update(signalsMsg(c.is))
		if view := s.View().Content; !strings.Contains(view, c.want+"\x1b") {
			t.Errorf("%+v: no %q in\n%s", c.is, c.want, view)
		}
	}
	for _, key := range "hi" {
		press(s, key)
	}
	s.Update(tea.KeyPressMsg{Code: tea.KeyEnter})
	<-typed
	if types != 2 || rests != 1 {
		t.Errorf("said %d times that one types, and %d times that one does not", types, rests)
	}
	for _, key := range "/quit" {
		press(s, key)
	}
	if types != 2 {
		t.Error("a command is told to others")
	}
	heard := make(chan client.Signals, 1)
	hear := newest(heard)
	hear(client.Signals{Users: 1})
	hear(client.Signals{Users: 2})
	if is := <-heard; is.Users != 2 {
		t.Errorf("got %+v", is)
	}
}
