package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/starling-im/starling"
)

func (a *app) rttCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rtt A B", Short: "Say how far two nodes or regions are from each other", GroupID: groupMesh,
		Long: `Say how long a round trip takes between two nodes, or between the nodes of two
regions: as the first measures it on its link to the second (smoothed, the least, and
the jitter), as their network coordinates estimate it, and as the table of regions has
it. A - is what is not known.`,
		Example: "  edge-node rtt fra-1 iad-1\n  edge-node rtt fra sin --json",
		Args:    needs("A", "B"), ValidArgsFunction: a.completePlaces(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			answer, err := a.ask(cmd.Context(), "rtt", args...)
			if err != nil {
				return err
			}
			return show(a, answer, "FROM TO MEASURED MIN JITTER ESTIMATE TABLE", func(t starling.TripInfo) []any {
				return []any{t.From, t.To, millis(t.Measured), millis(t.Min), millis(t.Jitter), millis(t.Estimate), millis(t.Table)}
			})
		},
	}
}

// millis shows a time that may not be known.
func millis(ms float64) string {
	if ms == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f ms", ms)
}

func (a *app) pathCommand() *cobra.Command {
	app, from := "", ""
	cmd := &cobra.Command{
		Use: "path ROOM --from REGION", Short: "Say which way a room's events take to a region, and why", GroupID: groupMesh,
		Long: `Say which way the events of a room take to a region: from the node there to which a
client would go, relay after relay, to a replica. Each hop has its round trip, what a
GB costs on it, and the reasons of the node that decides: what it takes and what it
does not. Where nobody follows the room, it is what a node would do.`,
		Example: "  edge-node path lobby --from sin\n  edge-node path lobby --from sin --app demo --json",
		Args:    needs("ROOM"), ValidArgsFunction: a.completeRoom,
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.TrimSpace(from) == "" {
				return usagef("--from is missing: name a region of the mesh")
			}
			mesh, err := a.mesh()
			if err != nil {
				return err
			}
			answer, err := a.askMesh(cmd.Context(), mesh, "path", cmp.Or(app, mesh.App), args[0], from)
			if err != nil {
				return err
			}
			return a.showPath(answer)
		},
	}
	cmd.Flags().StringVar(&app, "app", "", "the app of the room (default that of the context)")
	cmd.Flags().StringVar(&from, "from", "", "the region to which the events come")
	must(cmd.RegisterFlagCompletionFunc("from", a.completePlaces(1)))
	return cmd
}

func (a *app) showPath(answer []byte) error {
	if a.json {
		_, err := a.stdout.Write(append(answer, '\n'))
		return err
	}
	var p starling.PathInfo
	if err := json.Unmarshal(answer, &p); err != nil {
		return fmt.Errorf("the node's answer is no path: %w", err)
	}
	fmt.Fprintf(a.stdout, "%s to %s: %.1f ms", printable(p.Room), p.Region, p.RTT)
	if p.Price > 0 {
		fmt.Fprintf(a.stdout, ", %g per GB", p.Price)
	}
	fmt.Fprintf(a.stdout, " (group %d)\n", p.Group)
	for _, h := range p.Hops {
		mood := "if it is asked:"
		if h.Followed {
			mood = "now:"
		}
		fmt.Fprintf(a.stdout, "%s in %s, %s\n  %s\n", h.Node, h.Region, mood, strings.Join(h.Why, "\n  "))
	}
	if p.Incomplete != "" {
		a.warn("the path ends here: " + p.Incomplete)
	}
	return nil
}

// completePlaces completes up to so many arguments with nodes and regions, if the
// mesh answers at once.
func (a *app) completePlaces(most int) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) (words []string, _ cobra.ShellCompDirective) {
		const never = cobra.ShellCompDirectiveNoFileComp
		if len(args) >= most {
			return nil, never
		}
		ctx, cancel := context.WithTimeout(context.Background(), groupsPatience)
		defer cancel()
		a.home = a.homeOrDefault()
		_, members, err := a.groupsAndMembers(ctx)
		if err != nil {
			return nil, never
		}
		var regions []string
		for _, m := range members {
			regions = append(regions, m.Region)
			if most > 1 {
				words = append(words, m.ID+"\t"+m.State+" in "+m.Region)
			}
		}
		slices.Sort(regions)
		return append(words, slices.Compact(regions)...), never
	}
}
