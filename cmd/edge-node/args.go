package main

import (
	"net"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// needs is for commands that take these arguments.
func needs(what ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < len(what) {
			return usagef("%s is missing; usage: %s", what[len(args)], cmd.UseLine())
		}
		for i, name := range what {
			if strings.TrimSpace(args[i]) == "" {
				return usagef("%s is %q, no name; usage: %s", name, args[i], cmd.UseLine())
			}
			if _, err := strconv.ParseUint(args[i], 10, 32); name == "GROUP" && err != nil {
				return usagef("GROUP is %q, not a number such as 3; usage: %s", args[i], cmd.UseLine())
			}
		}
		return atMost(cmd, args, len(what))
	}
}

// noCommand is for commands that only have others below them: what was written
// is none of these.
func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("unknown command %q for %q", args[0], cmd.CommandPath())
	}
	return nil
}

func atMostOne(cmd *cobra.Command, args []string) error { return atMost(cmd, args, 1) }

func noArgs(cmd *cobra.Command, args []string) error { return atMost(cmd, args, 0) }

func atMost(cmd *cobra.Command, args []string, n int) error {
	if len(args) > n {
		return usagef("%q is one argument too many; usage: %s", args[n], cmd.UseLine())
	}
	return nil
}

// completeFile completes the one argument of a command with files of these
// endings.
func completeFile(endings ...string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return endings, cobra.ShellCompDirectiveFilterFileExt
	}
}

// isAddr reports whether a text is host:port of one port, at which a node can be reached.
func isAddr(text string) bool {
	_, port, err := net.SplitHostPort(text)
	if err != nil {
		return false
	}
	n, err := net.LookupPort("udp", port)
	return err == nil && n != 0
}
