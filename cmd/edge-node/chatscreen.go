package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"charm.land/bubbles/v2/textinput"
	"charm.land/bubbles/v2/viewport"
	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"

	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/wire"
)

const (
	// chatHistory is how many events are shown of what was said before.
	chatHistory = 50
	// chatKept bounds the lines that can be scrolled back to.
	chatKept = 2000
	// chatUnsent bounds what was typed and is not with the client yet.
	chatUnsent = 64
)

// What the screen is told, besides keys and sizes.
type (
	saidMsg   []client.Event
	settleMsg struct {
		id  string
		err error
	}
	linkMsg  struct{ text string }
	endedMsg struct{ err error }
)

// chatScreen shows a room on a terminal until the user leaves.
func (a *app) chatScreen(ctx context.Context, c *client.Client, state *linkState, name, room string) error {
	page, err := c.History(ctx, room, 0, 1)
	if err != nil {
		return err
	}
	from := uint64(0)
	if page.Head > chatHistory {
		from = page.Head - chatHistory
	}
	follow, err := c.Follow(ctx, room, from)
	if err != nil {
		return err
	}
	defer follow.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	typed := make(chan client.Message, chatUnsent)
	m := newScreen(c, name, room, typed)
	p := tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(a.stdin), tea.WithOutput(a.stdout))
	state.listen(func(text string) { p.Send(linkMsg{text}) })
	go func() {
		for {
			events, err := follow.NextBatch(ctx, printBatch)
			if err != nil {
				p.Send(endedMsg{err})
				return
			}
			p.Send(saidMsg(events))
		}
	}()
	go func() { // one sender, so that what is typed keeps its order
		for {
			select {
			case msg := <-typed:
				c.Send(ctx, msg, func(_ client.Ack, err error) { p.Send(settleMsg{msg.ID, err}) })
			case <-ctx.Done():
				return
			}
		}
	}()
	final, err := p.Run()
	s, ok := final.(*screen)
	switch {
	case err != nil || !ok:
		return err
	case s.failed != nil:
		return s.failed
	case len(s.pending) > 0:
		return fmt.Errorf("%d messages were still pending", len(s.pending))
	}
	return nil
}

// screen is the model of the terminal chat.
type screen struct {
	client *client.Client
	name   string
	room   string
	typed  chan<- client.Message

	lines   []string
	pending []pending
	said    int // messages typed so far; part of their ids
	session string
	link    string // what the client said of its link last
	note    string
	failed  error

	input  textinput.Model
	view   viewport.Model
	width  int
	height int
}

// pending is what was typed and has no place in the room's order yet.
type pending struct {
	id    string
	event client.Event
	err   error
}

func newScreen(c *client.Client, name, room string, typed chan<- client.Message) *screen {
	in := textinput.New()
	in.Prompt = "> "
	in.CharLimit = wire.Content / 4 // a character takes up to four bytes
	in.Placeholder = "say something, or /me, /join, /leave, /quit"
	v := viewport.New()
	v.SoftWrap = true
	return &screen{client: c, name: name, room: room, typed: typed, input: in, view: v, session: rand.Text(), link: "connected"}
}

// Init implements tea.Model.
func (s *screen) Init() tea.Cmd { return s.input.Focus() }

// Update implements tea.Model.
func (s *screen) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		s.width, s.height = msg.Width, msg.Height
		s.view.SetWidth(msg.Width)
		s.view.SetHeight(max(1, msg.Height-2))
		s.input.SetWidth(max(1, msg.Width-len(s.input.Prompt)-1))
	case saidMsg:
		s.hear(msg)
	case settleMsg:
		s.settle(msg)
	case linkMsg:
		s.link = msg.text
	case endedMsg:
		s.failed = msg.err
		return s, tea.Quit
	case tea.KeyPressMsg:
		switch msg.String() {
		case "ctrl+c", "ctrl+d", "esc":
			return s, tea.Quit
		case "enter":
			return s, s.enter()
		case "up", "down", "pgup", "pgdown":
			var cmd tea.Cmd
			s.view, cmd = s.view.Update(msg)
			return s, cmd
		}
	}
	var cmd tea.Cmd
	s.input, cmd = s.input.Update(msg)
	s.fill()
	return s, cmd
}

// hear takes events in; own ones are no longer pending.
func (s *screen) hear(events []client.Event) {
	for _, e := range events {
		s.lines = append(s.lines, styledLine(e))
		for i, p := range s.pending {
			if p.id == e.ID && e.User == s.name {
				s.pending = append(s.pending[:i:i], s.pending[i+1:]...)
				break
			}
		}
	}
	if over := len(s.lines) - chatKept; over > 0 {
		s.lines = s.lines[over:]
	}
}

// settle marks what could not be sent. What was acked stays pending until it
// comes back as an event, which shows its seq.
func (s *screen) settle(msg settleMsg) {
	for i := range s.pending {
		if s.pending[i].id == msg.id {
			s.pending[i].err = msg.err
		}
	}
}

// enter sends what was typed.
func (s *screen) enter() tea.Cmd {
	line := strings.TrimSpace(s.input.Value())
	s.note = ""
	says := understand(line)
	switch {
	case line == "":
		return nil
	case says.quit:
		return tea.Quit
	case strings.HasPrefix(line, "//"):
		says.text = line[1:]
	case says.unknown:
		s.note = "there is no command " + strings.Fields(line)[0] + "; // begins a text with a /"
		return nil
	}
	s.said++
	m := client.Message{Room: s.room, ID: fmt.Sprintf("%s-%d", s.session, s.said), Kind: says.kind, Content: says.text}
	select {
	case s.typed <- m:
	default:
		s.note = "too much is unsent; wait for the mesh"
		return nil
	}
	s.input.Reset()
	s.pending = append(s.pending, pending{id: m.ID, event: client.Event{User: s.name, Kind: m.Kind, Content: m.Content}})
	s.fill()
	s.view.GotoBottom()
	return nil
}

// fill puts what is to be seen into the viewport.
func (s *screen) fill() {
	bottom := s.view.AtBottom()
	lines := append([]string(nil), s.lines...)
	for _, p := range s.pending {
		text := fmt.Sprintf("%6s  %s", "…", sentence(p.event))
		if p.err != nil {
			lines = append(lines, styleFailed.Render(text+"  (not sent: "+oneLine(p.err)+")"))
			continue
		}
		lines = append(lines, stylePending.Render(text))
	}
	s.view.SetContentLines(lines)
	if bottom {
		s.view.GotoBottom()
	}
}

// View implements tea.Model.
func (s *screen) View() tea.View {
	node, region := s.client.Node()
	status := fmt.Sprintf(" %s  %s at %s (%s)  %s", printable(s.room), printable(s.name), node, region, s.link)
	if n := len(s.pending); n > 0 {
		status += fmt.Sprintf("  %d pending", n)
	}
	if s.note != "" {
		status += "  " + s.note
	}
	bar := styleStatus.Width(s.width).MaxHeight(1).Render(status)
	v := tea.NewView(s.view.View() + "\n" + bar + "\n" + s.input.View())
	v.AltScreen = true
	v.WindowTitle = printable(s.room) + " on Starling"
	return v
}

var (
	stylePending = lipgloss.NewStyle().Faint(true)
	styleFailed  = lipgloss.NewStyle().Foreground(lipgloss.Red)
	styleSeq     = lipgloss.NewStyle().Faint(true)
	styleOther   = lipgloss.NewStyle().Italic(true)
	styleStatus  = lipgloss.NewStyle().Reverse(true)
)

// nameColors are for names; the same name always has the same.
var nameColors = []string{"2", "3", "4", "5", "6", "9", "10", "11", "12", "13", "14"}

func styledLine(e client.Event) string {
	text := sentence(e)
	if e.Kind == client.KindMessage {
		sum := 0
		for _, b := range []byte(e.User) {
			sum = sum*31 + int(b)
		}
		color := lipgloss.Color(nameColors[uint(sum)%uint(len(nameColors))])
		name := printable(e.User)
		text = lipgloss.NewStyle().Foreground(color).Bold(true).Render(name) + strings.TrimPrefix(text, name)
	} else {
		text = styleOther.Render(text)
	}
	return styleSeq.Render(fmt.Sprintf("%6d", e.Seq)) + "  " + text
}

// linkState turns what the client logs about its link into words for the
// status line.
type linkState struct {
	mu   sync.Mutex
	tell func(string)
}

func newLinkState() *linkState { return new(linkState) }

func (l *linkState) listen(tell func(string)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tell = tell
}

func (l *linkState) logger() *slog.Logger { return slog.New(l) }

// Enabled implements slog.Handler.
func (l *linkState) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

// Handle implements slog.Handler: "session" is a link that was made, all else
// is about there being none.
func (l *linkState) Handle(_ context.Context, r slog.Record) error {
	text := "connected"
	if r.Message != "session" {
		text = "reconnecting…"
	}
	l.mu.Lock()
	tell := l.tell
	l.mu.Unlock()
	if tell != nil {
		tell(text)
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (l *linkState) WithAttrs([]slog.Attr) slog.Handler { return l }

// WithGroup implements slog.Handler.
func (l *linkState) WithGroup(string) slog.Handler { return l }
