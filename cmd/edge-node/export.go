package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/edge"
	"github.com/starling-im/starling/wire"
)

// exportWithin is how long an export waits for a page, such as while a room's
// group elects a leader.
const exportWithin = 30 * time.Second

func (a *app) exportCommand() *cobra.Command {
	u := userFlags{name: "exporter"}
	cmd := &cobra.Command{
		Use: "export ROOM", Short: "Write the whole history of a room", GroupID: groupChat,
		Long: `Write the whole history of a room to standard output, one event per line, in the
order of seq. It contains every event that was acknowledged before the command
began; for that it waits up to 30 s for a leader of the room's group.

With --json each line is an object with at least seq, user, kind (message,
action, join, leave, create), text, ts (Unix time in milliseconds) and
client_msg_id; user and text are exactly as they were sent.`,
		Example: `  edge-node export lobby
  edge-node export '#ubuntu' --json > ubuntu.jsonl
  edge-node export gitter/appium --json | wc -l`,
		Args:              needs("ROOM"),
		ValidArgsFunction: a.completeRoom,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.dialUser(cmd.Context(), &u, edge.Claims{User: u.name})
			if err != nil {
				return err
			}
			defer c.Close()
			out := bufio.NewWriterSize(a.stdout, 64<<10)
			n, err := export(cmd.Context(), c, args[0], a.eventWriter(out))
			if err == nil && n == 0 {
				fmt.Fprintf(a.stderr, "edge-node: room %q has no events\n", args[0])
			}
			if err == nil {
				err = out.Flush()
			}
			return err
		},
	}
	u.flags(a, cmd)
	return cmd
}

// export reads a room up to the head that a quorum of its group knows when the
// first page is read, and returns how many events that were.
func export(ctx context.Context, c *client.Client, room string, write func(client.Event) error) (uint64, error) {
	page, err := readPage(ctx, c, room, 0, client.Linearizable())
	if err != nil {
		return 0, err
	}
	head, after := page.Head, uint64(0)
	for {
		for _, e := range page.Events {
			if e.Seq > head {
				break
			}
			if e.Seq != after+1 {
				return after, wire.Errorf(wire.CodeInternal, "room %q: seq %d comes after %d", room, e.Seq, after)
			}
			after = e.Seq
			if err := write(e); err != nil {
				return after, err
			}
		}
		if after == head {
			return head, nil
		}
		was := len(page.Events)
		if page, err = readPage(ctx, c, room, after); err != nil {
			return after, err
		}
		if len(page.Events) == 0 {
			// The nearest replica is behind; the leader is not.
			if page, err = readPage(ctx, c, room, after, client.Linearizable()); err != nil {
				return after, err
			}
		}
		if was == 0 && len(page.Events) == 0 {
			return after, wire.Errorf(wire.CodeInternal, "room %q ends at %d, before its head %d", room, after, head)
		}
	}
}

func readPage(ctx context.Context, c *client.Client, room string, after uint64, options ...client.HistoryOption) (client.Page, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, exportWithin, fmt.Errorf("no answer within %v", exportWithin))
	defer cancel()
	page, err := c.History(ctx, room, after, wire.PageEvents, options...)
	if err != nil {
		return page, fmt.Errorf("room %q cannot be read: %w", room, err)
	}
	return page, nil
}

// exportedEvent is an event as a line of JSON.
type exportedEvent struct {
	Room string `json:"room"`
	Seq  uint64 `json:"seq"`
	User string `json:"user"`
	Kind string `json:"kind"`
	Type string `json:"type,omitempty"`
	Text string `json:"text"`
	TS   int64  `json:"ts"`
	ID   string `json:"client_msg_id"`
	Msg  string `json:"msg_id"`
}

// eventWriter writes events, a line each, for programs or people.
func (a *app) eventWriter(w io.Writer) func(client.Event) error {
	if !a.json {
		return func(e client.Event) error {
			_, err := fmt.Fprintf(w, "%s %6d  %s\n", e.Time.Local().Format("15:04:05"), e.Seq, sentence(e))
			return err
		}
	}
	lines := json.NewEncoder(w)
	lines.SetEscapeHTML(false)
	return func(e client.Event) error {
		return lines.Encode(exportedEvent{
			Room: e.Room, Seq: e.Seq, User: e.User, Kind: e.Kind.String(), Type: e.Type, Text: e.Content,
			TS: e.Time.UnixMilli(), ID: e.ID, Msg: e.MsgID,
		})
	}
}

// sentence says what an event is in one line, safe for any terminal.
func sentence(e client.Event) string { return describe(e, printable(e.Content)) }

// describe says what an event is, with this for its content.
func describe(e client.Event, text string) string {
	who := printable(e.User)
	switch e.Kind {
	case client.KindMessage:
		return who + ": " + text
	case client.KindAction:
		return "* " + who + " " + text
	case client.KindJoin:
		return "* " + who + " joined" + inBrackets(text)
	case client.KindLeave:
		return "* " + who + " left" + inBrackets(text)
	case client.KindCreate:
		return "* " + who + " created the room"
	}
	return "* " + who + " " + e.Kind.String() + inBrackets(text)
}

func inBrackets(text string) string {
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}

// printable takes out of a text what would steer a terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r):
			return unicode.ReplacementChar
		}
		return r
	}, text)
}
