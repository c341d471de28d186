package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/edge"
)

func (a *app) roomsCommand() *cobra.Command {
	u := userFlags{name: "operator"}
	after, all := "", false
	cmd := &cobra.Command{
		Use: "rooms", Short: "List the rooms of an app", GroupID: groupMesh,
		Long: `List the rooms of an app in the order of their names: the newest seq of each, the
group that orders it, and the region where that group is at home.

A mesh may have millions: the list is the first page, of up to 500 rooms, and a
line on standard error says where the next one begins. --all lists page after page.`,
		Example: "  edge-node rooms\n  edge-node rooms --app demo --json\n  edge-node rooms --after team/x\n  edge-node rooms --all > rooms.txt",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.dialUser(cmd.Context(), &u, edge.Claims{User: "operator"})
			if err != nil {
				return err
			}
			defer c.Close()
			return errors.Join(a.listRooms(cmd.Context(), c, after, all), a.missingRooms(cmd.Context()))
		},
	}
	u.flags(a, cmd)
	cmd.Flags().StringVar(&after, "after", "", "list the rooms that come after this one")
	cmd.Flags().BoolVar(&all, "all", false, "list all rooms, page after page")
	return cmd
}

// listRooms prints the rooms after one: a page, or all there are.
func (a *app) listRooms(ctx context.Context, c *client.Client, after string, all bool) error {
	list := a.newRoomList()
	for {
		page, err := roomsPage(ctx, c, after)
		if err != nil {
			return err
		}
		if len(page) == 0 {
			return list.end()
		}
		if err := list.page(page); err != nil {
			return err
		}
		after = page[len(page)-1].Room
		if all {
			continue
		}
		if more, err := roomsPage(ctx, c, after); err == nil && len(more) > 0 {
			fmt.Fprintf(a.stderr, "edge-node: there are more: --after %q, or --all\n", after)
		}
		return list.end()
	}
}

// missingRooms says which groups nobody speaks for: a list lacks their rooms. Where
// the keys of an operator are not at hand it says nothing.
func (a *app) missingRooms(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, queryWithin)
	defer cancel()
	mesh, err := a.mesh()
	if err != nil {
		return err
	}
	c, err := a.dialOperator(ctx, mesh)
	if err != nil {
		return nil
	}
	defer c.Close()
	groups, err := groupsOf(ctx, c)
	var missing []string
	for _, g := range groups {
		if g.ID != 0 && len(g.Replicas) == 0 {
			missing = append(missing, fmt.Sprint(g.ID))
		}
	}
	if err != nil || len(missing) == 0 {
		return err
	}
	return fmt.Errorf("the list lacks the rooms of groups of which no replica answers: %s", strings.Join(missing, " "))
}

// rooms asks for a page of the rooms of the user's app.
func (a *app) rooms(ctx context.Context, u *userFlags, after string) ([]starling.RoomInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, queryWithin)
	defer cancel()
	c, err := a.dialUser(ctx, u, edge.Claims{User: "operator"})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return roomsPage(ctx, c, after)
}

// roomsPage asks for the rooms after one, "" = for the first.
func roomsPage(ctx context.Context, c *client.Client, after string) (rooms []starling.RoomInfo, err error) {
	ctx, cancel := context.WithTimeout(ctx, queryWithin)
	defer cancel()
	var args []string
	if after != "" {
		args = []string{after}
	}
	answer, err := c.Query(ctx, "rooms", args...)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(answer, &rooms); err != nil {
		return nil, fmt.Errorf("the node's answer is no list: %w", err)
	}
	return rooms, nil
}

// roomList prints pages of rooms as one list, and keeps none of them.
type roomList struct {
	a     *app
	table *tabwriter.Writer // of this page; nil = JSON
	some  bool              // has been printed
}

func (a *app) newRoomList() *roomList {
	l := &roomList{a: a}
	if !a.json {
		l.table = tabwriter.NewWriter(a.stdout, 0, 0, 3, ' ', 0)
		fmt.Fprintln(l.table, "ROOM\tSEQ\tGROUP\tREGION")
	}
	return l
}

func (l *roomList) page(rooms []starling.RoomInfo) error {
	for _, r := range rooms {
		if l.table != nil {
			fmt.Fprintf(l.table, "%s\t%d\t%d\t%s\n", printable(r.Room), r.Seq, r.Group, r.Region)
			continue
		}
		text, err := json.Marshal(r)
		if err != nil {
			return err
		}
		before := ","
		if !l.some {
			before, l.some = "[", true
		}
		if _, err := fmt.Fprintf(l.a.stdout, "%s%s", before, text); err != nil {
			return err
		}
	}
	if l.table != nil {
		return l.table.Flush()
	}
	return nil
}

func (l *roomList) end() error {
	if l.table != nil {
		return l.table.Flush()
	}
	end := "]\n"
	if !l.some {
		end = "[]\n"
	}
	_, err := fmt.Fprint(l.a.stdout, end)
	return err
}

// completeRoom completes the name of a room, if the mesh answers soon: its groups may be
// on the other side of the world, and the first node not there.
func (a *app) completeRoom(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	const patience = 2 * time.Second
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	a.home = a.homeOrDefault()
	u := userFlags{}
	if f := cmd.Flags().Lookup("app"); f != nil {
		u.app = f.Value.String()
	}
	rooms, err := a.rooms(ctx, &u, typed)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := make([]string, len(rooms))
	for i, r := range rooms {
		names[i] = r.Room
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
