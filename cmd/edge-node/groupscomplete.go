package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/client"
)

// groupsPatience is how long a shell waits for the mesh to complete an argument.
const groupsPatience = time.Second

// nodesFor picks those nodes that an argument may name, of a group and after the
// arguments before it.
type nodesFor func(g starling.GroupInfo, members []starling.MemberInfo, before []string) []string

// completeGroup completes the arguments of a command about a group, if the mesh
// answers at once: the first with groups, each other one with nodes.
func (a *app) completeGroup(nodes ...nodesFor) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		const never = cobra.ShellCompDirectiveNoFileComp
		if len(args) > len(nodes) {
			return nil, never
		}
		ctx, cancel := context.WithTimeout(context.Background(), groupsPatience)
		defer cancel()
		a.home = a.homeOrDefault()
		groups, members, err := a.groupsAndMembers(ctx)
		if err != nil {
			return nil, never
		}
		return groupWords(groups, members, args, nodes), never
	}
}

// completeNodes completes the one argument of a command about a node.
func (a *app) completeNodes(_ *cobra.Command, args []string, _ string) (ids []string, _ cobra.ShellCompDirective) {
	const never = cobra.ShellCompDirectiveNoFileComp
	if len(args) > 0 {
		return nil, never
	}
	ctx, cancel := context.WithTimeout(context.Background(), groupsPatience)
	defer cancel()
	a.home = a.homeOrDefault()
	_, members, err := a.groupsAndMembers(ctx)
	if err != nil {
		return nil, never
	}
	for _, m := range members {
		ids = append(ids, m.ID+"\t"+m.State+" in "+m.Region)
	}
	return ids, never
}

func (a *app) groupsAndMembers(ctx context.Context) (groups []starling.GroupInfo, members []starling.MemberInfo, err error) {
	mesh, err := a.mesh()
	if err != nil {
		return nil, nil, err
	}
	err = a.asOperator(ctx, mesh, func(ctx context.Context, c *client.Client) error {
		if groups, err = groupsOf(ctx, c); err != nil {
			return err
		}
		answer, err := c.Query(ctx, "members")
		if err != nil {
			return err
		}
		return json.Unmarshal(answer, &members)
	})
	return groups, members, err
}

// groupWords are what may come after these arguments.
func groupWords(groups []starling.GroupInfo, members []starling.MemberInfo, args []string, nodes []nodesFor) (words []string) {
	for _, g := range groups {
		id := fmt.Sprint(g.ID)
		switch {
		case len(args) == 0:
			words = append(words, fmt.Sprintf("%s\tof %s, led by %s", id, g.Region, cmp.Or(g.Leader, "nobody")))
		case id == args[0]:
			return nodes[len(args)-1](g, members, args[1:])
		}
	}
	return words
}

// heirsOf are the nodes that could lead a group instead.
func heirsOf(g starling.GroupInfo, _ []starling.MemberInfo, _ []string) (ids []string) {
	for _, r := range g.Replicas {
		if r.Voter && r.Node != g.Leader {
			ids = append(ids, r.Node)
		}
	}
	return ids
}

// votersOf are the nodes that may have a vote in a group: of those that do not answer
// it is not known.
func votersOf(g starling.GroupInfo, _ []starling.MemberInfo, _ []string) (ids []string) {
	for _, r := range g.Replicas {
		if r.Voter {
			ids = append(ids, r.Node)
		}
	}
	return append(ids, g.Missing...)
}

// sparesOf are the nodes that could get a vote in a group.
func sparesOf(g starling.GroupInfo, members []starling.MemberInfo, before []string) (ids []string) {
	for _, m := range members {
		if m.State == "alive" && !slices.Contains(slices.Concat(votersOf(g, nil, nil), before), m.ID) {
			ids = append(ids, m.ID)
		}
	}
	return ids
}
