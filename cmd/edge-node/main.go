// Command edge-node is the one binary of Starling: it runs a node of the mesh,
// starts a whole mesh on one machine for trying things out, and talks to
// meshes as a user, an operator or a test would.
//
// It promises that a program can rely on its exit status (0 = done, 1 = it
// failed, 2 = it was called wrongly, in a way that can be told without asking a
// mesh), that standard output carries only what
// was asked for, and that an error is one line on standard error which says
// what to do next, where that is known.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/wire"
)

// The exit statuses.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	// exitRefused: a cluster did not let this machine in.
	exitRefused = 3
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the program without its process.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	app := &app{stdin: stdin, stdout: stdout, stderr: stderr, stopProfile: func() {}}
	root := app.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	app.stopProfile()
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(stderr, "edge-node:", oneLine(err))
	var usage *usageError
	if !app.started || errors.As(err, &usage) {
		fmt.Fprintln(stderr, "Run `edge-node --help`, or add --help to a command, for what it takes.")
		return exitUsage
	}
	var refused *refusedError
	if errors.As(err, &refused) {
		return exitRefused
	}
	return exitFailed
}

// A usageError says that the command was called wrongly.
type usageError struct{ problem string }

func (e *usageError) Error() string { return e.problem }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// oneLine is an error as it is shown, with what to do about it if that is known.
func oneLine(err error) string {
	text := joinLines(err.Error())
	switch {
	case errors.Is(err, client.ErrTokenExpired):
		var said *wire.Error
		if errors.As(err, &said) && said.Code == wire.CodeTokenExpired {
			text = said.Error() // every node says the same
		}
		text += " (mint another with `edge-node token`)"
	case errors.Is(err, client.ErrForbidden), errors.Is(err, client.ErrUnauthenticated):
		text += " (edge-node token makes one that is good here; without --token the keys of the context do)"
	}
	return text
}

// joinLines makes one line of several.
func joinLines(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch before := b.String(); {
		case line == "":
			continue
		case strings.HasSuffix(before, "?") || strings.HasSuffix(before, ":"):
			b.WriteString(" ")
		case before != "":
			b.WriteString("; ")
		}
		b.WriteString(line)
	}
	return b.String()
}
