package main

import (
	"cmp"
	"context"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/edge"
)

const chatLong = `Talk in a room. A room comes to be when something is first said in it.

On a terminal it shows what was said last and what is being said; what you type
stands there as pending until the room's order is known. Type /me waves for an
action, /join, /leave, /help, and /quit (or press Ctrl-D) to go: it waits up to 10 s
for what is pending. Ctrl-C and Esc go at once.
// at the start of a line stands for a / that is part of the text. A paste keeps
its lines and tabs, which the input shows as ␤ and ␉. Long messages are shown in
part; export has them whole.

The status line has who you are, your node, that you come to it over WebSocket if not
over QUIC, and how many users are here: "3 here" counts those who chat on a terminal or with --live, and not those
whose chat is a script without it.

Without a terminal, on one that is dumb ($TERM), or with --json, each line of standard input is sent as it is
(save /me, /join, /leave and /quit; empty lines are passed over), and events are
printed as they come. At the end of input it leaves once everything is
acknowledged; after /quit it gives up what is not within 10 s. A line that cannot be
sent is reported with its number; the others are sent all the same, and the exit
status is 1. With the limits of production a node takes 20 lines a second; it is said
once on standard error that the others wait.

With --live what you type is said live, as comments beside a broadcast: those who are in
the room with --live just now hear it, if not too much is said, and nobody keeps it. What others say
so is shown beside the messages, with "… and 214 more" for what was left out.
/me, /join and /leave are sent as without it. Ten lines a second are said of a script.
With --json a line that was said live has "live":true, "user", "text" and "ts" (Unix
milliseconds), and no "seq"; a row with "live":true and "left_out":31 stands for 31 lines
that are not shown.`

func (a *app) chatCommand() *cobra.Command {
	var u userFlags
	var live bool
	cmd := &cobra.Command{
		Use: "chat ROOM", Short: "Talk in a room", GroupID: groupChat,
		Long: chatLong,
		Example: `  edge-node chat lobby --as alice
  edge-node chat lobby --as bob --region iad
  echo "hello from a script" | edge-node chat lobby --as robot
  edge-node chat lobby --as robot --json < lines.txt
  edge-node chat final --as alice --live`,
		Args:              needs("ROOM"),
		ValidArgsFunction: a.completeRoom,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("as") && strings.TrimSpace(u.name) == "" {
				return usagef("--as is %q, no name", u.name)
			}
			said := readToken(u.token)
			if err := said.check(u.name, "", time.Now()); err != nil {
				return err
			}
			u.name = cmp.Or(u.name, said.User)
			if u.name == "" {
				u.name = systemUser()
			}
			return a.chat(cmd.Context(), &u, args[0], live)
		},
	}
	u.flags(a, cmd)
	cmd.Flags().StringVar(&u.name, "as", "", "the user who talks (default: that of --token, else your name on this system)")
	cmd.Flags().BoolVar(&live, "live", false, "say what is typed live, and show what others say so: it is not kept")
	return cmd
}

func systemUser() string {
	u, err := user.Current()
	if err != nil {
		return "guest"
	}
	return u.Username
}

func (a *app) chat(ctx context.Context, u *userFlags, room string, live bool) error {
	_, in := terminal(a.stdin)
	_, out := terminal(a.stdout)
	onTerminal := in && out && !a.json && os.Getenv("TERM") != "dumb"
	state := &linkState{early: a.sayWhy}
	mesh, with, err := a.userConnection(u, edge.Claims{User: u.name})
	if err != nil {
		return err
	}
	if onTerminal {
		with.log = state.logger()
	}
	c, err := a.dial(ctx, mesh, with)
	if err != nil {
		return err
	}
	defer c.Close()
	if onTerminal {
		return a.chatScreen(ctx, c, state, u.name, room, live)
	}
	return a.chatLines(ctx, c, room, live)
}

// utterance is what a typed line means.
type utterance struct {
	kind client.Kind
	text string
	quit bool
	// unknown is a command that there is none of.
	unknown bool
}

// understand tells commands from text.
func understand(line string) utterance {
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "/me":
		return utterance{kind: client.KindAction, text: rest}
	case "/join":
		return utterance{kind: client.KindJoin, text: rest}
	case "/leave":
		return utterance{kind: client.KindLeave, text: rest}
	case "/quit":
		return utterance{quit: true}
	}
	return utterance{kind: client.KindMessage, text: line, unknown: strings.HasPrefix(line, "/")}
}
