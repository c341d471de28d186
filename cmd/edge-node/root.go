package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/cmd/edge-node/internal/home"
)

// app is what all commands share: their surroundings and the flags of root.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	started        bool // flags and arguments were fine
	waits          sync.Once

	home        string
	context     string
	transport   string
	data        string
	json        bool
	logLevel    string
	profile     string
	stopProfile func()
}

const rootLong = `Starling is a mesh of relays for chat: nodes near their users in every region,
one order of messages per room that is the same everywhere, and nothing lost
that was acknowledged.

Start a mesh of three regions on this machine, and talk in it:

  edge-node dev
  edge-node chat lobby --as alice                (in a second terminal)
  edge-node chat lobby --as bob --region iad     (in a third one)

Commands find the mesh by a context, a file that "dev" writes to $STARLING_HOME,
or by --data, the data folder of a node on this machine.
Exit status: 0 done, 1 failed, 2 called wrongly, 3 not let into the cluster.`

// Names of the groups of commands in the help.
const (
	groupNodes = "nodes"
	groupChat  = "chat"
	groupMesh  = "mesh"
)

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "edge-node",
		Short:         "A mesh of chat relays, run from one binary",
		Long:          rootLong,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       buildInfo().Version,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			a.started = true
			if _, err := a.level(); err != nil {
				return err
			}
			if !slices.Contains(transports, a.transport) {
				return usagef("--transport is %q, not one of %s", a.transport, strings.Join(transports, ", "))
			}
			if err := a.startProfile(); err != nil {
				return err
			}
			if a.home != "" {
				return nil
			}
			dir, err := home.Dir()
			a.home = dir
			return err
		},
	}
	root.SetVersionTemplate("edge-node {{.Version}}\n")
	flags := root.PersistentFlags()
	flags.StringVar(&a.home, "home", "", "folder of contexts (default $STARLING_HOME, else \"starling\" in the user's configuration)")
	flags.StringVar(&a.context, "context", "default", "name of the context that says which mesh, or its file")
	flags.StringVar(&a.data, "data", "", "data folder of a node that runs on this machine, to work in its mesh")
	flags.StringVar(&a.transport, "transport", client.QUIC, "how to connect as a client: quic, or websocket where UDP is blocked")
	flags.BoolVar(&a.json, "json", false, "write JSON, for programs")
	flags.StringVar(&a.logLevel, "log-level", "warn", "least level to log: debug, info, warn, error; if not set, run has info, dev error")
	flags.StringVar(&a.profile, "cpu-profile", "", "write a CPU profile to this file, for go tool pprof")
	must(flags.MarkHidden("cpu-profile"))
	root.AddGroup(
		&cobra.Group{ID: groupNodes, Title: "Running nodes:"},
		&cobra.Group{ID: groupChat, Title: "Using a mesh:"},
		&cobra.Group{ID: groupMesh, Title: "Looking at a mesh:"},
	)
	root.AddCommand(
		a.devCommand(), a.clusterCommand(), a.joinTokenCommand(), a.runCommand(), a.drainCommand(), a.leaveCommand(), a.configCommand(),
		a.chatCommand(), a.replayCommand(), a.exportCommand(), a.tokenCommand(),
		a.roomsCommand(), a.membersCommand(), a.nodeCommand(), a.keysCommand(), a.groupsCommand(), a.linksCommand(), a.monitorCommand(),
		a.netcheckCommand(), a.rttCommand(), a.pathCommand(), a.traceCommand(), a.appsCommand(),
		a.benchCommand(), a.versionCommand(), a.docsCommand(),
	)
	must(root.RegisterFlagCompletionFunc("context", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return home.Names(a.homeOrDefault()), cobra.ShellCompDirectiveNoFileComp
	}))
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.Example = "  source <(edge-node completion bash)\n  edge-node completion zsh > \"${fpath[1]}/_edge-node\"\n  edge-node completion fish | source"
			c.Args, c.RunE = noCommand, func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		}
	}
	noFiles(root)
	must(root.RegisterFlagCompletionFunc("transport", cobra.FixedCompletions(transports, cobra.ShellCompDirectiveNoFileComp)))
	must(root.RegisterFlagCompletionFunc("log-level", cobra.FixedCompletions(levels, cobra.ShellCompDirectiveNoFileComp)))
	return root
}

// noFiles keeps shells from completing arguments with files, save where a command
// says that it takes some.
func noFiles(c *cobra.Command) {
	if c.ValidArgsFunction == nil {
		c.ValidArgsFunction = cobra.NoFileCompletions
	}
	for _, sub := range c.Commands() {
		noFiles(sub)
	}
}

// must is for what only a mistake in this program can break.
func must(err error) {
	if err != nil {
		panic("edge-node: " + err.Error())
	}
}

func (a *app) homeOrDefault() string {
	if a.home != "" {
		return a.home
	}
	dir, _ := home.Dir()
	return dir
}

var transports = []string{client.QUIC, client.WebSocket}

var levels = []string{"debug", "info", "warn", "error"}

func (a *app) level() (slog.Level, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(a.logLevel)); err != nil {
		return l, usagef("--log-level is %q, not one of %s", a.logLevel, strings.Join(levels, ", "))
	}
	return l, nil
}

// startProfile profiles the command, if that is asked for.
func (a *app) startProfile() error {
	if a.profile == "" {
		return nil
	}
	f, err := os.Create(a.profile)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return err
	}
	a.stopProfile = func() {
		pprof.StopCPUProfile()
		_ = f.Close()
	}
	return nil
}

// logger logs to standard error.
func (a *app) logger() *slog.Logger {
	l, _ := a.level() // checked before the command began
	return slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: l}))
}

// terminal reports whether a stream is a terminal, and how wide.
func terminal(stream any) (width int, is bool) {
	f, ok := stream.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0, false
	}
	width, _, err := term.GetSize(int(f.Fd()))
	return width, err == nil
}

// printJSON writes one document on one line.
func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.stdout)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// warn says what the user should know, once, on standard error.
func (a *app) warn(text string) { fmt.Fprintln(a.stderr, "edge-node: warning:", text) }

// are is a number of things in words, of which something is to be said.
func are(n int, thing string) string {
	if n == 1 {
		return plural(n, thing) + " is"
	}
	return plural(n, thing) + " are"
}

// plural is a number of things in words.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
