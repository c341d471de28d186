package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"charm.land/bubbles/v2/textinput"
	tea "charm.land/bubbletea/v2"

	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/wire"
)

const (
	// chatHistory is how many events are shown of what was said before.
	chatHistory = 50
	// chatUnsent bounds what was typed and is not with the client yet.
	chatUnsent = 64
)

// chatHelp is what /help says. It stands among the messages, where it fits
// any width.
const chatHelp = `/me waves   say what you do: “* you waves”
/join, /leave   say that you come or go, with a reason if you add one
/quit   go; so do Ctrl-D, and at once Ctrl-C and Esc
//text   say something that begins with a /
↑ ↓ PgUp PgDn   scroll`

// What the screen is told, besides keys and sizes.
type (
	saidMsg   []client.Event
	settleMsg struct {
		id  string
		err error
	}
	linkMsg    struct{ text string }
	signalsMsg client.Signals
	liveMsg    client.Live
	endedMsg   struct{ err error }
)

// chatScreen shows a room on a terminal until the user leaves.
func (a *app) chatScreen(ctx context.Context, c *client.Client, state *linkState, name, room string, live bool) error {
	page, err := c.History(ctx, room, 0, 1)
	if err != nil {
		return err
	}
	from := uint64(0)
	if page.Head > chatHistory {
		from = page.Head - chatHistory
	}
	heard := make(chan client.Signals, 1)
	lines := make(chan client.Live, liveWaiting)
	opts := []client.FollowOption{client.WithSignals(newest(heard))}
	if live {
		opts = append(opts, client.WithLive(overhear(lines)))
	}
	follow, err := c.Follow(ctx, room, from, opts...)
	if err != nil {
		return err
	}
	defer follow.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	typed := make(chan client.Message, chatUnsent)
	m := newScreen(c.Node, name, room, typed)
	m.transport = a.transport
	m.types, m.rests = func() { c.Typing(room) }, func() { c.StopTyping(room) }
	if live {
		m.live = func(text string) error { return c.SayLive(room, text) }
	}
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
	go tell(ctx, p, heard, lines)
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
	case len(s.text.pending) > 0:
		return fmt.Errorf("not answered yet: %s", plural(len(s.text.pending), "message"))
	}
	return nil
}

// screen is the model of the terminal chat.
type screen struct {
	node func() (id, region string)
	// transport is how the client comes to that.
	transport string

	name  string
	room  string
	typed chan<- client.Message

	text    transcript
	said    int // messages typed so far; part of their ids
	session string
	link    string // what the client said of its link last
	note    string // stands in the status line until the next key
	leaving bool   // once nothing is on its way
	failed  error
	signals client.Signals
	// types says that the user types, rests that they no longer do.
	types, rests func()
	// live says a text live; nil = what is typed is sent.
	live func(text string) error

	input textinput.Model
	width int
}

// Stand-ins for what a line of input cannot hold, from the private part of
// Unicode; a paste keeps its lines and tabs by them.
const (
	standInLine = "\U0010F00A"
	standInTab  = "\U0010F009"
)

var (
	toInput   = strings.NewReplacer("\r\n", standInLine, "\r", standInLine, "\n", standInLine, "\t", standInTab)
	fromInput = strings.NewReplacer(standInLine, "\n", standInTab, "\t")
	showInput = strings.NewReplacer(standInLine, "␤", standInTab, "␉")
)

func newScreen(node func() (id, region string), name, room string, typed chan<- client.Message) *screen {
	in := textinput.New()
	in.Prompt = "> "
	in.CharLimit = wire.Content
	in.KeyMap.Paste.SetEnabled(false) // it would lose lines; the terminal's own paste does not
	in.Placeholder = "say something, or /help"
	return &screen{node: node, name: name, room: room, typed: typed, types: func() {}, rests: func() {}, input: in, session: rand.Text(), link: "connected"}
}

// Init implements tea.Model.
func (s *screen) Init() tea.Cmd { return s.input.Focus() }

// Update implements tea.Model.
func (s *screen) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		s.width = msg.Width
		s.text.resize(msg.Width, max(1, msg.Height-2))
		s.input.SetWidth(max(1, msg.Width-len(s.input.Prompt)-1))
	case saidMsg:
		s.hear(msg)
		return s, s.leaveDone()
	case settleMsg:
		if msg.err != nil { // what was acked stays pending until its event comes, which has the seq
			s.text.failed(msg.id, oneLine(msg.err))
		}
		return s, s.leaveDone()
	case signalsMsg:
		s.signals = client.Signals(msg)
		return s, nil
	case liveMsg:
		s.hearLive(client.Live(msg))
		return s, nil
	case linkMsg:
		s.link = msg.text
	case endedMsg:
		s.failed = msg.err
		return s, tea.Quit
	case tea.PasteMsg:
		return s, s.paste(msg.Content)
	case tea.KeyPressMsg:
		s.note = ""
		switch msg.String() {
		case "ctrl+c", "esc":
			return s, tea.Quit
		case "ctrl+d":
			return s, s.leave()
		case "enter":
			return s, s.enter()
		case "up":
			s.text.scroll(1)
			return s, nil
		case "down":
			s.text.scroll(-1)
			return s, nil
		case "pgup":
			s.text.scroll(s.text.height)
			return s, nil
		case "pgdown":
			s.text.scroll(-s.text.height)
			return s, nil
		}
	}
	return s, s.edit(msg)
}

// edit changes the input.
func (s *screen) edit(msg tea.Msg) (cmd tea.Cmd) {
	was := s.input.Value()
	s.input, cmd = s.input.Update(msg)
	if s.input.Value() != was {
		s.signal()
	}
	return cmd
}

// leave ends the chat once nothing is on its way any more, or after quitWithin. Who
// asks again goes at once.
func (s *screen) leave() tea.Cmd {
	if s.leaving || s.text.onTheirWay() == 0 {
		return tea.Quit
	}
	s.leaving = true
	s.input.Reset()
	return tea.Tick(quitWithin, func(time.Time) tea.Msg { return tea.Quit() })
}

// leaveDone ends the chat if it was only waiting for what is here now.
func (s *screen) leaveDone() tea.Cmd {
	if s.leaving && s.text.onTheirWay() == 0 {
		return tea.Quit
	}
	return nil
}

// hear takes events in; own ones are no longer pending.
func (s *screen) hear(events []client.Event) {
	for _, e := range events {
		s.text.hear(said(e))
		if e.User == s.name {
			s.text.arrived(e.ID)
		}
	}
}

// paste puts a text into the input if the message stays one that can be sent.
func (s *screen) paste(text string) tea.Cmd {
	s.note = ""
	if n := len(fromInput.Replace(s.input.Value())) + len(text); n > wire.Content {
		s.note = fmt.Sprintf("not pasted: %v", wire.TooLarge("message", uint64(n), wire.Content))
		return nil
	}
	return s.edit(tea.PasteMsg{Content: toInput.Replace(text)})
}

// enter sends what was typed. What cannot be sent stays in the input.
func (s *screen) enter() tea.Cmd {
	line := fromInput.Replace(s.input.Value())
	says := understand(line)
	word, _, _ := strings.Cut(line, " ")
	switch {
	case strings.TrimSpace(line) == "":
		return nil
	case says.quit:
		return s.leave()
	case s.leaving:
		return nil
	case word == "/help":
		s.input.Reset()
		s.text.hear(&block{text: chatHelp, style: styleOther})
		s.text.back = 0
		return nil
	case strings.HasPrefix(line, "//"):
		says.text = line[1:]
	case says.unknown:
		s.note = "there is no command " + printable(word) + "; // begins a text with a /"
		return nil
	}
	if s.live != nil && says.kind == client.KindMessage {
		s.say(says.text)
		return nil
	}
	if n := len(says.text); n > wire.Content {
		s.note = fmt.Sprintf("not sent: %v", wire.TooLarge("message", uint64(n), wire.Content))
		return nil
	}
	m := client.Message{Room: s.room, ID: fmt.Sprintf("%s-%d", s.session, s.said+1), Kind: says.kind, Content: says.text}
	select {
	case s.typed <- m:
	default:
		s.note = "too much is unsent; wait for the mesh"
		return nil
	}
	s.said++
	s.input.Reset()
	s.signal()
	s.text.await(unsaid(m.ID, client.Event{Room: s.room, User: s.name, Kind: m.Kind, Content: m.Content}))
	return nil
}

// View implements tea.Model.
func (s *screen) View() tea.View {
	status := " " + s.note
	if s.note == "" {
		node, region := s.node()
		status = fmt.Sprintf(" %s  %s at %s (%s)  %s", printable(s.room), printable(s.name), node, region, s.link)
		if s.transport == client.WebSocket {
			status += " over websocket" // the other way has no words: what others do needs the place
		}
		status += also(s.signals)
		if n := len(s.text.pending); n > 0 {
			status += fmt.Sprintf("  %d pending", n)
		}
		if n := s.text.onTheirWay(); n > 0 && s.leaving {
			status = fmt.Sprintf(" leaving once %s acknowledged; Ctrl-C goes at once", are(n, "message"))
		}
	}
	bar := styleStatus.Width(s.width).MaxHeight(1).Render(status)
	v := tea.NewView(s.text.view() + "\n" + bar + "\n" + showInput.Replace(s.input.View()))
	v.AltScreen = true
	v.WindowTitle = printable(s.room) + " on Starling"
	return v
}

// linkState turns what the client logs about its link into words for the
// status line.
type linkState struct {
	mu   sync.Mutex
	tell func(string) // nil = there is no screen yet
	// early is told before there is a screen why there is no place.
	early func(why string)
}

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
	text, why := "connected", waitsForPlace(r)
	switch {
	case why != "":
		text = "waiting: " + printable(why)
	case r.Message != "session":
		text = "reconnecting…"
	}
	l.mu.Lock()
	tell := l.tell
	l.mu.Unlock()
	switch {
	case tell != nil:
		tell(text)
	case why != "":
		l.early(why)
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (l *linkState) WithAttrs([]slog.Attr) slog.Handler { return l }

// WithGroup implements slog.Handler.
func (l *linkState) WithGroup(string) slog.Handler { return l }
