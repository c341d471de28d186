// Command bench measures Starling beside other systems on this machine.
//
// It promises that systems take turns within one run, that each starts anew in
// an empty folder, and that the same loop drives all of them, or the same crowd
// of clients. It is a module of
// its own, so that the other systems are no dependencies of Starling; the
// nodes that it measures are processes of edge-node, built from the folder
// above.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := root().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use: "bench", Short: "Measure Starling beside other systems",
		Example:       "  go run . fanout --help",
		SilenceErrors: true, SilenceUsage: true,
	}
	cmd.AddCommand(durableCommand(), idleCommand(), fanoutCommand(), roomsCommand(), reconnectCommand(), harmCommand(), coresCommand())
	cmd.AddCommand(partCommands()...)
	return cmd
}
