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

// watchPoll is the pause between two looks at the members.
const watchPoll = 500 * time.Millisecond

// memberChange is what has become of a member, as a line of members --watch --json.
type memberChange struct {
	At time.Time `json:"at"`
	starling.MemberInfo
	Was string `json:"was,omitempty"` // its state before, "" if it is new
}

func (a *app) membersCommand() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use: "members", Short: "List the nodes of the mesh", GroupID: groupMesh,
		Long: `List the nodes of the mesh as one of them sees it: id, region, address, state,
release, the round-trip time to it in milliseconds, and how the link to it goes: over udp, tcp,
or through another node. The states are alive; draining, which
is about to go; leaving, which gives its replicas away first; left; failed, which does not
answer; revoked; and unknown, of which nothing was heard yet.

With --watch it goes on, and prints a line each time that a node comes or its state,
address or release changes, until Ctrl-C.`,
		Example: "  edge-node members\n  edge-node members --json\n  edge-node members --watch",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if watch {
				return a.watchMembers(cmd.Context())
			}
			answer, err := a.ask(cmd.Context(), "members")
			if err != nil {
				return err
			}
			return show(a, answer, "NODE REGION ADDR STATE VERSION RTT PATH", func(m starling.MemberInfo) []any {
				rtt := "-"
				if m.RTT > 0 {
					rtt = fmt.Sprintf("%.1f ms", m.RTT)
				}
				return []any{m.ID, m.Region, m.Addr, m.State, m.Version, rtt, cmp.Or(m.Path, "-")}
			})
		},
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "go on, and print what changes")
	return cmd
}

// watchMembers prints what becomes of members until ctx ends.
func (a *app) watchMembers(ctx context.Context) error {
	mesh, err := a.mesh()
	if err != nil {
		return err
	}
	c, err := a.dialOperator(ctx, mesh)
	if err != nil {
		return err
	}
	defer c.Close()
	var was []starling.MemberInfo
	for ctx.Err() == nil {
		now, err := membersOf(ctx, c)
		if err == nil {
			if err := a.printChanges(changesOf(was, now, time.Now())); err != nil {
				return err
			}
			was = now
		} else if was == nil {
			return err
		}
		select {
		case <-time.After(watchPoll):
		case <-ctx.Done():
		}
	}
	return nil
}

func membersOf(ctx context.Context, c *client.Client) (members []starling.MemberInfo, err error) {
	ctx, cancel := context.WithTimeout(ctx, queryWithin)
	defer cancel()
	answer, err := c.Query(ctx, "members")
	if err == nil {
		err = json.Unmarshal(answer, &members)
	}
	return members, err
}

// changesOf says what has become of members between two looks. One that is forgotten has
// left.
func changesOf(was, now []starling.MemberInfo, at time.Time) (changes []memberChange) {
	find := func(all []starling.MemberInfo, id string) (starling.MemberInfo, bool) {
		i := slices.IndexFunc(all, func(m starling.MemberInfo) bool { return m.ID == id })
		if i < 0 {
			return starling.MemberInfo{}, false
		}
		return all[i], true
	}
	for _, m := range now {
		before, ok := find(was, m.ID)
		if !ok || before.State != m.State || before.Addr != m.Addr || before.Version != m.Version {
			changes = append(changes, memberChange{at, m, before.State})
		}
	}
	for _, m := range was {
		if _, ok := find(now, m.ID); !ok && m.State != starling.StageLeft {
			gone := m
			gone.State, gone.RTT = starling.StageLeft, 0
			changes = append(changes, memberChange{at, gone, m.State})
		}
	}
	return changes
}

func (a *app) printChanges(changes []memberChange) error {
	for _, c := range changes {
		if a.json {
			if err := a.printJSON(c); err != nil {
				return err
			}
			continue
		}
		from := ""
		if c.Was != "" && c.Was != c.State {
			from = ", was " + c.Was
		}
		if _, err := fmt.Fprintf(a.stdout, "%s  %s  %s  %s  %s%s\n", c.At.Format(time.TimeOnly), c.ID, c.Region, c.Addr, c.State, from); err != nil {
			return err
		}
	}
	return nil
}
