package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/starling-im/starling"
)

// groupMoves are the commands about the replicas of groups.
func (a *app) groupMoves() []*cobra.Command {
	explain := &cobra.Command{
		Use: "explain GROUP", Short: "Tell where a group's replicas are, where they should be, and what happens next",
		Long: `Tell where a group's replicas are and where they should be, the step that is
taken next, and why that one, or why none; and what would be lost without a node or
a region as things are now. Whoever leads the group answers.`,
		Example: "  edge-node groups explain 3\n  edge-node groups explain 3 --json",
		Args:    needs("GROUP"), ValidArgsFunction: a.completeGroup(),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.explain(cmd.Context(), "groups.explain", args...)
		},
	}
	lead := &cobra.Command{
		Use: "move-leader GROUP NODE", Short: "Let another voter lead a group",
		Long: `Hand the lead of a group to one of its voters, and prefer that node from now on.
Sends that are under way end first, so that none fails. A node that is farther from
the group's home than another voter gives the lead back soon, unless moves are paused.`,
		Example: "  edge-node groups move-leader 3 fra-2",
		Args:    needs("GROUP", "NODE"), ValidArgsFunction: a.completeGroup(heirsOf),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.explain(cmd.Context(), "groups.move-leader", args...)
		},
	}
	return []*cobra.Command{explain, lead, a.replaceCommand(), a.recoverCommand(), a.reconcileCommand("pause"), a.reconcileCommand("resume")}
}

// reconcileCommand pauses or resumes the moves of replicas.
func (a *app) reconcileCommand(what string) *cobra.Command {
	short := map[string]string{
		"pause":  "Leave replicas where they are, whatever happens",
		"resume": "Move replicas again to where they should be",
	}[what]
	return &cobra.Command{
		Use: what, Short: short,
		Long: short + `. It holds for all groups of
the mesh; what would be done meanwhile is told by edge-node groups explain.`,
		Example: "  edge-node groups " + what,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := a.ask(cmd.Context(), "groups.reconcile", rand.Text(), what); err != nil {
				return err
			}
			if a.json {
				fmt.Fprintf(a.stdout, "{\"paused\":%v}\n", what == "pause")
			} else {
				fmt.Fprintln(a.stdout, map[string]string{
					"pause":  "replicas stay where they are until edge-node groups resume",
					"resume": "replicas move again to where they should be",
				}[what])
			}
			return nil
		},
	}
}

// explain asks for something about a group, and tells how it is then.
func (a *app) explain(ctx context.Context, what string, args ...string) error {
	answer, err := a.ask(ctx, what, args...)
	if err != nil {
		return err
	}
	return a.showPlan(answer)
}

func (a *app) showPlan(answer []byte) error {
	if a.json {
		_, err := fmt.Fprintf(a.stdout, "%s\n", answer)
		return err
	}
	var p starling.GroupPlan
	if err := json.Unmarshal(answer, &p); err != nil {
		return fmt.Errorf("the node's answer is no plan of a group: %w", err)
	}
	list := func(nodes []string) string {
		if len(nodes) == 0 {
			return "none"
		}
		return strings.Join(nodes, " ")
	}
	fmt.Fprintf(a.stdout, "group %d, at home in %s, to survive the loss of: %s\n", p.Group, p.Region, policyText(p.Survive, p.Allow, p.Forbid))
	fmt.Fprintf(a.stdout, "leader    %s\nvoters    %s\nlearners  %s\n", cmp.Or(p.Leader, "none"), list(p.Voters), list(p.Learners))
	if len(p.WantVoters) > 0 && !slices.Equal(slices.Sorted(slices.Values(p.Voters)), slices.Sorted(slices.Values(p.WantVoters))) {
		fmt.Fprintf(a.stdout, "wanted    %s\n", list(p.WantVoters))
	}
	if p.UnderReplicated != "" {
		fmt.Fprintf(a.stdout, "under-replicated: %s\n", p.UnderReplicated)
	}
	for _, l := range p.Losses {
		fmt.Fprintf(a.stdout, "now       %s\n", l)
	}
	next := p.Next
	switch {
	case next == "" && p.Paused:
		next = "nothing, and moves are paused (edge-node groups resume)"
	case next == "":
		next = "nothing"
	case p.Paused:
		next += ", but moves are paused (edge-node groups resume)"
	}
	if len(p.Replace) == 2 {
		fmt.Fprintf(a.stdout, "ordered   %s takes the place of %s (edge-node groups replace %d --cancel calls it off)\n", p.Replace[1], p.Replace[0], p.Group)
	}
	fmt.Fprintf(a.stdout, "next      %s\nwhy       %s\n", next, p.Why)
	if p.Failed != "" {
		fmt.Fprintf(a.stdout, "failed    %s\n", p.Failed)
	}
	return nil
}
