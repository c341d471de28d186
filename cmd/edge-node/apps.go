package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/starling-im/starling"
)

func (a *app) appsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "apps", Short: "Say where the rooms of apps are made", GroupID: groupMesh,
		Long: `Say where the rooms of apps (tenants) are made. Rooms that exist stay where they
are, whatever the rules say later.`,
		Example: "  edge-node apps rules list demo",
		Args:    noCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	rules := &cobra.Command{
		Use: "rules", Short: "Rules that give regions to the rooms of an app",
		Long: `Rules give regions to the rooms whose id matches a pattern: a whole id or, with
a * at its end, how ids begin. The first rule that matches counts, and the app's
homes if none does. A room ~REGION/NAME is made in its region by any rules.

A rule may also say what its rooms outlive, and which regions' disks may hold them.
They are then made in groups that were added with just this policy; without one
they are made in those of the mesh's policy. A rule for * is the app's default.`,
		Example: "  edge-node apps rules list demo\n  edge-node apps rules put demo 'eu/*' fra,ams",
		Args:    noCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	rules.AddCommand(a.rulesListCommand(), a.rulesPutCommand(), a.rulesDeleteCommand())
	cmd.AddCommand(rules)
	return cmd
}

func (a *app) rulesListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list APP", Short: "List the rules of an app, in the order in which they are tried",
		Long:    "List the rules of an app in the order in which they are tried, its homes last.",
		Example: "  edge-node apps rules list demo\n  edge-node apps rules list demo --json",
		Args:    needs("APP"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.rules(cmd.Context(), "apps.rules", args...) },
	}
}

func (a *app) rulesPutCommand() *cobra.Command {
	var first bool
	var class classFlags
	cmd := &cobra.Command{
		Use: "put APP PATTERN REGION[,REGION…]", Short: "Add a rule, or replace the one of this pattern",
		Long: `Add a rule after all others, or replace the one of this pattern where it stands.
Nodes hear of it within moments, and make new rooms by it. One that has not
heard of it cannot make a second room of the same id somewhere else. Rooms that
exist stay in their groups, with the policy of those.

--survive, --allow and --forbid name the policy of the groups that hold the rooms.
Where a region of the rule has no such group the rule is refused; it then says
which edge-node groups add is missing. A room ~REGION/NAME is of the policy only
where its region has such groups.`,
		Example: `  edge-node apps rules put demo 'eu/*' fra,ams
  edge-node apps rules put demo eu/secret fra --first
  edge-node apps rules put demo 'log/*' fra --survive none`,
		Args: needs("APP", "PATTERN", "REGION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			policy, err := class.args()
			if err != nil {
				return err
			}
			args = append([]string{rand.Text()}, args...)
			if first {
				args = append(args, "first")
			}
			return a.rules(cmd.Context(), "apps.rules.put", append(args, policy...)...)
		},
	}
	cmd.Flags().BoolVar(&first, "first", false, "put a new rule before all others")
	class.flags(cmd)
	return cmd
}

func (a *app) rulesDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use: "delete APP PATTERN", Short: "Delete the rule of a pattern",
		Long:    "Delete the rule of a pattern. Rooms that were made by it stay where they are.",
		Example: "  edge-node apps rules delete demo 'eu/*'",
		Args:    needs("APP", "PATTERN"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.rules(cmd.Context(), "apps.rules.delete", append([]string{rand.Text()}, args...)...)
		},
	}
}

// rules asks something whose answer is the rules of an app, and shows them.
func (a *app) rules(ctx context.Context, what string, args ...string) error {
	answer, err := a.ask(ctx, what, args...)
	if err != nil {
		return err
	}
	return show(a, answer, "PATTERN HOMES SURVIVES", func(r starling.RuleInfo) []any {
		pattern := r.Pattern
		if pattern == "" {
			pattern = "(all others)"
		}
		return []any{pattern, strings.Join(r.Homes, ","), policyText(r.Survive, r.Allow, r.Forbid)}
	})
}

func (a *app) settleCommand() *cobra.Command {
	return &cobra.Command{
		Use: "settle", Short: "Forget where rooms were made by earlier rules and groups",
		Long: `Forget where rooms were made by earlier rules and groups. Before that, for each
room that is not where it belongs now, the group where it belongs is told. Only a
few changes of rules and groups can be made without it; it stops nothing, and may
be stopped and started again.`,
		Example: "  edge-node groups settle",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for {
				answer, err := a.ask(cmd.Context(), "placement.settle")
				if err != nil {
					return err
				}
				var info starling.SettleInfo
				if err := json.Unmarshal(answer, &info); err != nil {
					return fmt.Errorf("the node's answer is no document: %w", err)
				}
				switch {
				case info.Settled && a.json:
					fmt.Fprintf(a.stdout, "%s\n", answer)
				case info.Settled:
					fmt.Fprintf(a.stdout, "placement %d is settled\n", info.Placement)
				default:
					fmt.Fprintf(a.stderr, "%d of %d groups are done\n", info.Groups, info.Of)
					continue
				}
				return nil
			}
		},
	}
}
