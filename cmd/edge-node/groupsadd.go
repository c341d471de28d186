package main

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/starling-im/starling"
)

// maxAdded is how many groups the mesh adds at once.
const maxAdded = 64

func (a *app) groupsAddCommand() *cobra.Command {
	var region string
	var count int
	var class classFlags
	cmd := &cobra.Command{
		Use: "add --region REGION", Short: "Add Raft groups to a region",
		Long: `Add Raft groups to a region, on nodes that are there now. New rooms spread over
them, too; those that exist stay in their groups.

With --survive, --allow or --forbid they are of a policy of their own, and hold the
rooms of rules that name just this policy: see edge-node apps rules put.`,
		Example: `  edge-node groups add --region fra --count 4
  edge-node groups add --region fra --survive node --forbid iad,sin`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case region == "":
				return usagef("--region is missing; usage: %s", cmd.UseLine())
			case count < 1 || count > maxAdded:
				return usagef("--count is %d, not 1 to %d", count, maxAdded)
			}
			policy, err := class.args()
			if err != nil {
				return err
			}
			args := append([]string{rand.Text(), region, strconv.Itoa(count)}, policy...)
			answer, err := a.ask(cmd.Context(), "groups.add", args...)
			if err != nil {
				return err
			}
			return show(a, answer, "GROUP REGION SURVIVES VOTERS", func(g starling.AddedInfo) []any {
				if g.UnderReplicated != "" {
					fmt.Fprintf(a.stderr, "edge-node: group %d is under-replicated: %s\n", g.ID, g.UnderReplicated)
				}
				return []any{g.ID, g.Region, policyText(g.Survive, g.Allow, g.Forbid), strings.Join(g.Voters, " ")}
			})
		},
	}
	cmd.Flags().StringVar(&region, "region", "", "the region, such as fra")
	cmd.Flags().IntVar(&count, "count", 1, fmt.Sprintf("how many groups, at most %d at once", maxAdded))
	class.flags(cmd)
	return cmd
}

// classFlags say which policy groups have, or which a rule wants.
type classFlags struct {
	survive       string
	allow, forbid []string
}

func (c *classFlags) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.survive, "survive", "", "what the rooms outlive: node (three nodes of the region), region (three regions), none; default what the mesh does")
	f.StringSliceVar(&c.allow, "allow", nil, "regions whose disks may hold the rooms; default all")
	f.StringSliceVar(&c.forbid, "forbid", nil, "regions whose disks must not hold the rooms")
	must(cmd.RegisterFlagCompletionFunc("survive", cobra.FixedCompletions(survivals, cobra.ShellCompDirectiveNoFileComp)))
}

// survivals are the values of --survive.
var survivals = []string{"node", "region", "none"}

// args are those of the query.
func (c *classFlags) args() (args []string, err error) {
	if c.survive != "" && !slices.Contains(survivals, c.survive) {
		return nil, usagef("--survive is %q, not one of %s", c.survive, strings.Join(survivals, ", "))
	}
	for _, f := range []struct{ name, value string }{{"survive", c.survive}, {"allow", strings.Join(c.allow, ",")}, {"forbid", strings.Join(c.forbid, ",")}} {
		if f.value != "" {
			args = append(args, f.name+"="+f.value)
		}
	}
	return args, nil
}

// policyText is a policy in a table.
func policyText(survive string, allow, forbid []string) string {
	if len(allow) > 0 {
		survive += " allow=" + strings.Join(allow, ",")
	}
	if len(forbid) > 0 {
		survive += " forbid=" + strings.Join(forbid, ",")
	}
	return survive
}
