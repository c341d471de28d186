package main

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"charm.land/lipgloss/v2"

	"github.com/starling-im/starling/client"
)

const (
	// chatKept bounds the messages that can be scrolled back to.
	chatKept = 2000
	// chatRows bounds the rows of the screen that one message takes.
	chatRows = 10
	// chatShown bounds the bytes of one message that are laid out: more than
	// its rows hold on any screen.
	chatShown = 8 << 10
	// chatIndent is the width of the column of numbers.
	chatIndent = 8
)

var (
	stylePending = lipgloss.NewStyle().Faint(true)
	styleFailed  = lipgloss.NewStyle().Foreground(lipgloss.Red)
	styleSeq     = lipgloss.NewStyle().Faint(true)
	styleOther   = lipgloss.NewStyle().Italic(true)
	styleStatus  = lipgloss.NewStyle().Reverse(true)
)

// nameColors are for names; the same name always has the same.
var nameColors = []string{"2", "3", "4", "5", "6", "9", "10", "11", "12", "13", "14"}

// block is one message on the screen. It is laid out once for each width of
// the screen: what a key changes must not cost what was said before.
type block struct {
	id    string // client_msg_id of what is pending
	label string // its seq
	name  string // what of the text is a name to be coloured; "" = none
	text  string // safe for a terminal, cut to chatShown
	end   string // what follows the rows if the message is longer
	style lipgloss.Style
	rows  []string
	lost  bool // is pending for good: it was not sent
}

// said is the block of an event.
func said(e client.Event) *block {
	b := newBlock(e, fmt.Sprintf("%6d", e.Seq))
	if e.Kind == client.KindMessage {
		b.name = printable(e.User)
	} else {
		b.style = styleOther
	}
	return b
}

// unsaid is the block of what was typed and has no seq yet.
func unsaid(id string, e client.Event) *block {
	b := newBlock(e, fmt.Sprintf("%6s", "…"))
	b.id, b.style = id, stylePending
	return b
}

func newBlock(e client.Event, label string) *block {
	content := e.Content
	b := &block{label: label, end: fmt.Sprintf("… %s in all; see edge-node export %s", size(len(content)), printable(e.Room))}
	if len(content) > chatShown {
		at := chatShown
		for !utf8.RuneStart(content[at]) {
			at--
		}
		content = strings.Clone(content[:at])
	}
	lines := strings.Split(content, "\n")
	for i, line := range lines {
		lines[i] = printable(line)
	}
	b.text = describe(e, strings.Join(lines, "\n"))
	return b
}

// size is a number of bytes in words.
func size(n int) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%d KB", n>>10)
}

// layout makes the rows of a block for a width.
func (b *block) layout(width int) {
	rows := strings.Split(lipgloss.Wrap(b.text, max(1, width-chatIndent), ""), "\n")
	if len(rows) > chatRows {
		rows = append(rows[:chatRows-1:chatRows-1], b.end)
	}
	b.rows = make([]string, len(rows))
	for i, row := range rows {
		label := strings.Repeat(" ", chatIndent)
		if i == 0 {
			label = styleSeq.Render(b.label) + "  "
		}
		if rest, ok := strings.CutPrefix(row, b.name); ok && i == 0 && b.name != "" {
			b.rows[i] = label + nameStyle(b.name).Render(b.name) + rest
			continue
		}
		b.rows[i] = label + b.style.Render(row)
	}
}

func nameStyle(name string) lipgloss.Style {
	sum := uint(0)
	for _, c := range []byte(name) {
		sum = sum*31 + uint(c)
	}
	color := lipgloss.Color(nameColors[sum%uint(len(nameColors))])
	return lipgloss.NewStyle().Foreground(color).Bold(true)
}

// transcript is what was said, and what is pending below it, as far as it
// fits the screen.
type transcript struct {
	width, height int
	said          []*block
	pending       []*block
	back          int // rows that were scrolled up from the end
}

// resize lays everything out anew.
func (t *transcript) resize(width, height int) {
	t.height = height
	if width != t.width {
		t.width, t.back = width, 0
		for _, b := range slices.Concat(t.said, t.pending) {
			b.layout(width)
		}
	}
	t.scroll(0)
}

// hear adds what was said. Who has scrolled up goes on seeing the same.
func (t *transcript) hear(b *block) {
	b.layout(t.width)
	t.said = append(t.said, b)
	if over := len(t.said) - chatKept; over > 0 {
		clear(t.said[:over])
		t.said = t.said[over:]
	}
	if t.back > 0 {
		t.scroll(len(b.rows))
	}
}

// await adds what is pending, and shows it.
func (t *transcript) await(b *block) {
	b.layout(t.width)
	t.pending = append(t.pending, b)
	t.back = 0
}

// arrived takes out what is no longer pending.
func (t *transcript) arrived(id string) {
	t.pending = slices.DeleteFunc(t.pending, func(b *block) bool { return b.id == id })
}

// failed marks what was not sent.
func (t *transcript) failed(id string, why string) {
	for _, b := range t.pending {
		if b.id == id {
			b.text, b.style, b.lost = "(not sent: "+why+") "+b.text, styleFailed, true
			b.layout(t.width)
		}
	}
}

// onTheirWay counts what is pending and may still arrive.
func (t *transcript) onTheirWay() (n int) {
	for _, b := range t.pending {
		if !b.lost {
			n++
		}
	}
	return n
}

// scroll moves up by some rows, down if they are negative, as far as there are any.
func (t *transcript) scroll(rows int) {
	all := 0
	for _, b := range t.said {
		all += len(b.rows)
	}
	for _, b := range t.pending {
		all += len(b.rows)
	}
	t.back = max(0, min(t.back+rows, all-t.height))
}

// view returns the rows that are on the screen.
func (t *transcript) view() string {
	rows := make([]string, t.height)
	at, skip := t.height, t.back
	for _, blocks := range [][]*block{t.pending, t.said} {
		for _, b := range slices.Backward(blocks) {
			for _, row := range slices.Backward(b.rows) {
				if skip > 0 {
					skip--
					continue
				}
				if at == 0 {
					return strings.Join(rows, "\n")
				}
				at--
				rows[at] = row
			}
		}
	}
	return strings.Join(rows[at:], "\n") + strings.Repeat("\n", at)
}
