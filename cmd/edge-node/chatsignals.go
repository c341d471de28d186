package main

import (
	"context"
	"fmt"
	"strings"

	tea "charm.land/bubbletea/v2"

	"github.com/starling-im/starling/client"
)

// newest keeps the newest of what is heard for who takes it from the channel, which holds
// one. It does not block.
func newest(heard chan client.Signals) func(client.Signals) {
	return func(is client.Signals) {
		select {
		case <-heard:
		default:
		}
		heard <- is // nobody else puts anything there
	}
}

// tell tells the screen of what is heard until ctx ends.
func tell(ctx context.Context, p *tea.Program, heard <-chan client.Signals, lines <-chan client.Live) {
	for {
		select {
		case is := <-heard:
			p.Send(signalsMsg(is))
		case is := <-lines:
			p.Send(liveMsg(is))
		case <-ctx.Done():
			return
		}
	}
}

// signal says whether the user types; commands are not for others.
func (s *screen) signal() {
	text := s.input.Value()
	switch {
	case text == "":
		s.rests()
	case !strings.HasPrefix(text, "/") || strings.HasPrefix(text, "/me "):
		s.types()
	}
}

// typingShown bounds the names in “alice and bob are typing”.
const typingShown = 2

// also is what the status line says of others in the room.
func also(is client.Signals) (text string) {
	if is.Unheard {
		return "  " + unheard
	}
	if is.Users > 1 {
		text = fmt.Sprintf("  %d here", is.Users)
	}
	names := is.Typing[:min(len(is.Typing), typingShown)]
	shown := make([]string, len(names))
	for i, name := range names {
		shown[i] = printable(name)
	}
	if more := len(is.Typing) - len(names) + is.Others; more > 0 {
		shown = append(shown, plural(more, "other"))
	}
	switch n := len(shown); n {
	case 0:
		return text
	case 1:
		verb := "is"
		if len(names) == 0 && is.Others > 1 {
			verb = "are"
		}
		return fmt.Sprintf("%s  %s %s typing", text, shown[0], verb)
	default:
		return fmt.Sprintf("%s  %s and %s are typing", text, strings.Join(shown[:n-1], ", "), shown[n-1])
	}
}
