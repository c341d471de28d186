package main

import (
	"crypto/rand"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/starling-im/starling"
)

func (a *app) groupsAddCommand() *cobra.Command {
	var region string
	var count int
	cmd := &cobra.Command{
		Use: "add --region REGION", Short: "Add Raft groups to a region",
		Long: `Add Raft groups to a region, on nodes that are there now. New rooms spread over
them, too; those that exist stay in their groups.`,
		Example: "  edge-node groups add --region fra --count 4",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case region == "":
				return usagef("--region is missing; usage: %s", cmd.UseLine())
			case count < 1:
				return usagef("--count is %d, not 1 or more", count)
			}
			answer, err := a.ask(cmd.Context(), "groups.add", rand.Text(), region, strconv.Itoa(count))
			if err != nil {
				return err
			}
			return show(a, answer, "GROUP REGION VOTERS", func(g starling.AddedInfo) []any {
				return []any{g.ID, g.Region, strings.Join(g.Voters, " ")}
			})
		},
	}
	cmd.Flags().StringVar(&region, "region", "", "the region, such as fra")
	cmd.Flags().IntVar(&count, "count", 1, "how many groups, at most 64 at once")
	return cmd
}
