package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/wire"
)

const (
	// departPoll is the pause between two looks at a node on its way out.
	departPoll = 200 * time.Millisecond
	// departSilent is how long nobody may know how it is.
	departSilent = 10 * time.Second
)

func (a *app) drainCommand() *cobra.Command {
	var force, detach bool
	var window, within time.Duration
	cmd := &cobra.Command{
		Use: "drain [NODE]", Short: "Take a node out of service, for an upgrade or a restart", GroupID: groupNodes,
		Long: `Take a node out of service without anybody noticing, and end its process: it is not
ready any more, others lead what it led, its clients are asked to go to other nodes and go
one by one, then it says goodbye. It keeps its replicas, and is itself again when it is
started. NODE is the one of --data unless told otherwise. Stopped half way the command
can be called again; the node goes on draining meanwhile.

It is refused where rooms would stand still while the node is away, and waits where they
would by now, since another node has gone meanwhile: --force does it all the same.`,
		Example: "  edge-node drain --data ./fra-1\n  edge-node drain iad-2 --window 30s",
		Args:    cobra.MaximumNArgs(1), ValidArgsFunction: a.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			node, err := a.ownNode(args)
			if err != nil {
				return err
			}
			q := []string{node}
			if force {
				q = append(q, "force")
			}
			if window > 0 {
				q = append(q, "window="+window.String())
			}
			return a.depart(cmd.Context(), departure{node: node, query: "node.drain", args: q, detach: detach, within: within})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also where rooms stand still while the node is away")
	cmd.Flags().DurationVar(&window, "window", 0, "time in which the clients go (default: 1s to 1m, by how many they are)")
	departFlags(cmd, &detach, &within)
	return cmd
}

func (a *app) leaveCommand() *cobra.Command {
	var force, cancel, detach bool
	var within time.Duration
	cmd := &cobra.Command{
		Use: "leave [NODE]", Short: "Take a node out of the mesh for good", GroupID: groupNodes,
		Long: `Take a node out of the mesh for good: other nodes get its replicas first, then it is
drained, and nobody knows it any more. NODE is the one of --data unless told otherwise. Its
data folder is of no use afterwards. Stopped half way the command can be called again, and
--cancel takes it back while replicas are still being moved.

It is refused where a group cannot do without the node. With --force it goes at once, as if
it had been revoked: what only it has is lost. For a node that does not answer there is
"edge-node node revoke".`,
		Example: "  edge-node leave --data ./fra-3\n  edge-node leave iad-2 --json",
		Args:    cobra.MaximumNArgs(1), ValidArgsFunction: a.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			node, err := a.ownNode(args)
			if err != nil {
				return err
			}
			d := departure{node: node, query: "node.leave", args: []string{rand.Text(), node}, detach: detach, within: within}
			switch {
			case cancel && force:
				return usagef("--cancel and --force cannot go together")
			case cancel:
				d.query, d.detach = "node.stay", true
			case force:
				d.args = append(d.args, "force")
			}
			return a.depart(cmd.Context(), d)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "go at once, with what only this node has")
	cmd.Flags().BoolVar(&cancel, "cancel", false, "let the node stay after all")
	departFlags(cmd, &detach, &within)
	return cmd
}

func departFlags(cmd *cobra.Command, detach *bool, within *time.Duration) {
	cmd.Flags().BoolVar(detach, "detach", false, "do not wait until the node has gone")
	cmd.Flags().DurationVar(within, "timeout", 10*time.Minute, "how long to wait until the node has gone")
}

// ownNode is the node that a command is about: that of --data unless it names one.
func (a *app) ownNode(args []string) (string, error) {
	if len(args) > 0 {
		return args[0], nil
	}
	if a.data == "" {
		return "", usagef("which node? Name it, or say --data FOLDER for the one that runs here")
	}
	mesh, err := a.mesh()
	if err != nil {
		return "", err
	}
	return mesh.Nodes[0].ID, nil
}

// departure is a node's way out, as a command asks for it.
type departure struct {
	node, query string
	args        []string
	detach      bool
	within      time.Duration
}

// depart asks a node to go and shows its progress until it has gone.
func (a *app) depart(ctx context.Context, d departure) error {
	mesh, err := a.mesh()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, d.within, fmt.Errorf("%s has not gone within %v; it goes on, and this command can be called again", d.node, d.within))
	defer cancel()
	c, err := a.dialOperator(ctx, mesh)
	if err != nil {
		return err
	}
	defer c.Close()
	now, err := askDeparture(ctx, c, d.query, d.args...)
	if err != nil {
		return err
	}
	var shown string
	for heard := time.Now(); ; {
		if text := stageText(now); text != shown && !a.json {
			shown = text
			fmt.Fprintln(a.stdout, text)
		}
		if d.detach || now.Stage == starling.StageLeft {
			break
		}
		select {
		case <-time.After(departPoll):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		next, err := askDeparture(ctx, c, "node.progress", d.node)
		switch {
		case err == nil && next.Stage == starling.StageServing && d.query == "node.drain":
			return fmt.Errorf("%s was started again while it drained: call this again", d.node)
		case err == nil:
			now, heard = next, time.Now()
		case now.Stage == starling.StageLinks && errors.Is(err, client.ErrClosed), wire.Code(err) == wire.CodeNotFound:
			now.Stage = starling.StageLeft
		case time.Since(heard) > departSilent && now.Stage == starling.StageLinks:
			now.Stage = starling.StageLeft // nobody else is there to say so
		case time.Since(heard) > departSilent:
			return fmt.Errorf("nobody says how %s is: %w", d.node, err)
		}
	}
	if a.json {
		return a.printJSON(now)
	}
	return nil
}

func askDeparture(ctx context.Context, c *client.Client, what string, args ...string) (i starling.DrainInfo, err error) {
	ctx, cancel := context.WithTimeout(ctx, queryWithin)
	defer cancel()
	answer, err := c.Query(ctx, what, args...)
	if err == nil {
		err = json.Unmarshal(answer, &i)
	}
	return i, err
}

// stageText says how far a node is, in a sentence.
func stageText(i starling.DrainInfo) string {
	switch i.Stage {
	case starling.StageReplicas:
		if len(i.Replicas) == 0 {
			return i.Node + ": all its replicas are moved"
		}
		return fmt.Sprintf("%s: %s to be moved: %s (edge-node groups explain GROUP says what each waits for)",
			i.Node, are(len(i.Replicas), "replica"), strings.Trim(fmt.Sprint(i.Replicas), "[]"))
	case starling.StageLeads:
		if i.Leads == 0 {
			return i.Node + ": leads nothing any more"
		}
		return fmt.Sprintf("%s: others take over the lead of %s", i.Node, plural(i.Leads, "group"))
	case starling.StageClients:
		if i.Clients == 0 {
			return i.Node + ": no client is left"
		}
		return fmt.Sprintf("%s: %s asked to go to other nodes", i.Node, are(i.Clients, "client"))
	case starling.StageLinks:
		return fmt.Sprintf("%s: says goodbye", i.Node)
	case starling.StageLeft:
		return fmt.Sprintf("%s: has left", i.Node)
	}
	return fmt.Sprintf("%s: serves", i.Node)
}
