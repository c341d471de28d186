package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/cmd/edge-node/internal/home"
	"github.com/starling-im/starling/wire"
)

// queryWithin bounds the wait for an answer about the mesh.
const queryWithin = 15 * time.Second

// show prints a query's answer: as it came, or as a table of these columns.
func show[T any](a *app, answer []byte, columns string, row func(T) []any) error {
	if a.json {
		_, err := a.stdout.Write(append(bytes.TrimSpace(answer), '\n'))
		return err
	}
	var rows []T
	if err := json.Unmarshal(answer, &rows); err != nil {
		return fmt.Errorf("the node's answer is no list: %w", err)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, strings.ReplaceAll(columns, " ", "\t"))
	for _, r := range rows {
		for i, cell := range row(r) {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, cell)
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// ask asks the mesh of the context as an operator.
func (a *app) ask(ctx context.Context, what string, args ...string) ([]byte, error) {
	mesh, err := a.mesh()
	if err != nil {
		return nil, err
	}
	return a.askMesh(ctx, mesh, what, args...)
}

// askMesh asks a mesh as an operator.
func (a *app) askMesh(ctx context.Context, mesh *home.Context, what string, args ...string) (answer []byte, err error) {
	err = a.asOperator(ctx, mesh, func(ctx context.Context, c *client.Client) error {
		answer, err = c.Query(ctx, what, args...)
		return err
	})
	return answer, err
}

// asOperator lets ask speak with a mesh as an operator, within queryWithin.
func (a *app) asOperator(ctx context.Context, mesh *home.Context, ask func(context.Context, *client.Client) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, queryWithin, fmt.Errorf("not done within %v", queryWithin))
	defer cancel()
	c, err := a.dialOperator(ctx, mesh)
	if err != nil {
		return err
	}
	defer c.Close()
	return ask(ctx, c)
}

func (a *app) groupsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "groups", Short: "List the Raft groups", GroupID: groupMesh,
		Long: `List the Raft groups: where each is at home and what it outlives, which node leads it, how many rooms
live in it, and each replica with the last log index that it has applied, or with
a ? if it does not answer. With --json also a hash of its rooms: replicas at one
index have one hash.`,
		Example: "  edge-node groups\n  edge-node groups --json",
		Args:    noCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			answer, err := a.groups(cmd.Context())
			if err != nil {
				return err
			}
			return show(a, answer, "GROUP REGION SURVIVES LEADER TERM ROOMS REPLICAS", func(g starling.GroupInfo) []any {
				var replicas []string
				for _, r := range g.Replicas {
					replicas = append(replicas, fmt.Sprintf("%s@%d", r.Node, r.Applied))
				}
				for _, node := range g.Missing {
					replicas = append(replicas, node+"@?")
				}
				leader := g.Leader
				if leader == "" {
					leader = "(none)"
				}
				return []any{g.ID, g.Region, policyText(g.Survive, g.Allow, g.Forbid), leader, g.Term, g.Rooms, strings.Join(replicas, " ")}
			})
		},
	}
	cmd.AddCommand(a.groupsAddCommand(), a.settleCommand())
	cmd.AddCommand(a.groupMoves()...)
	return cmd
}

// groups asks for all groups, and returns them as one list.
func (a *app) groups(ctx context.Context) ([]byte, error) {
	mesh, err := a.mesh()
	if err != nil {
		return nil, err
	}
	var groups []starling.GroupInfo
	err = a.asOperator(ctx, mesh, func(ctx context.Context, c *client.Client) error {
		groups, err = groupsOf(ctx, c)
		return err
	})
	if err != nil {
		return nil, err
	}
	return json.Marshal(groups)
}

// groupsOf asks for all groups, page after page.
func groupsOf(ctx context.Context, c *client.Client) (groups []starling.GroupInfo, err error) {
	var args []string
	for {
		answer, err := c.Query(ctx, "groups", args...)
		if err != nil {
			return nil, err
		}
		var page []starling.GroupInfo
		if err := json.Unmarshal(answer, &page); err != nil {
			return nil, fmt.Errorf("the node's answer is no list of groups: %w", err)
		}
		groups = append(groups, page...)
		if len(answer) < wire.ClientFrame/2 || len(page) == 0 {
			return groups, nil // a page that others follow is full
		}
		args = []string{fmt.Sprint(page[len(page)-1].ID)}
	}
}

func (a *app) linksCommand() *cobra.Command {
	return &cobra.Command{
		Use: "links", Short: "Count the events on each link between nodes", GroupID: groupMesh,
		Long: `Count the events that each node has sent to each other one since it started: as
commands to replicas (class raft), and as events to nodes that follow (relay).`,
		Example: "  edge-node links\n  edge-node links --json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			answer, err := a.ask(cmd.Context(), "links")
			if err != nil {
				return err
			}
			return show(a, answer, "FROM TO CLASS EVENTS", func(l starling.LinkInfo) []any {
				return []any{l.From, l.To, l.Class, l.Events}
			})
		},
	}
}
