package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/wire"
)

// replaceEvery is how often a replacement is looked at until it is done.
const replaceEvery = time.Second

func (a *app) replaceCommand() *cobra.Command {
	var within time.Duration
	var callOff bool
	cmd := &cobra.Command{
		Use: "replace GROUP {OLD NEW | --cancel}", Short: "Move a replica of a group from one node to another",
		Long: `Move a replica of a group from node OLD to node NEW: NEW learns all there is, gets
a vote, and OLD gives its own up. It is refused where the group's policy would
move the replica back. The command ends when that is done.

If it is interrupted or runs out of time, the mesh goes on with it, unless who leads
the group fails: begin again to be sure. --cancel calls it off; what was begun is
then taken back or finished, as the group's policy wants.`,
		Example: "  edge-node groups replace 3 fra-2 fra-4\n  edge-node groups replace 3 --cancel",
		Args: func(cmd *cobra.Command, args []string) error {
			if callOff {
				return needs("GROUP")(cmd, args)
			}
			return needs("GROUP", "OLD", "NEW")(cmd, args)
		},
		ValidArgsFunction: a.completeGroup(votersOf, sparesOf),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case callOff:
				return a.explain(cmd.Context(), "groups.call-off", args...)
			case within <= 0:
				return usagef("--within is %v, not more than 0", within)
			}
			ctx, cancel := context.WithTimeoutCause(cmd.Context(), within, fmt.Errorf("not done within %v", within))
			defer cancel()
			return (&replacement{app: a, group: args[0], old: args[1], new: args[2]}).run(ctx)
		},
	}
	cmd.Flags().DurationVar(&within, "within", 10*time.Minute, "give up waiting after this time")
	cmd.Flags().BoolVar(&callOff, "cancel", false, "call off what was ordered for the group and is not done yet")
	return cmd
}

// replacement is a replica's way from one node to another, as its command sees it.
type replacement struct {
	app             *app
	group, old, new string

	leader string // who has the order, as far as is known
	term   uint64 // in which that one led when it had it
	stage  int    // the last that was told
	told   string
}

// run orders the replacement and looks at it until it is done. A leader that knows
// of it may fail, and the next one not have heard: then it is ordered again.
func (r *replacement) run(ctx context.Context) error {
	mesh, err := r.app.mesh()
	if err != nil {
		return err
	}
	for {
		what, args := "groups.explain", []string{r.group}
		if r.leader == "" {
			what, args = "groups.replace", []string{r.group, r.old, r.new}
		}
		answer, err := r.app.askMesh(ctx, mesh, what, args...)
		var p starling.GroupPlan
		if err == nil {
			err = json.Unmarshal(answer, &p)
		}
		switch {
		case err == nil && slices.Contains(p.Voters, r.new) && !slices.Contains(p.Voters, r.old):
			return r.app.showPlan(answer)
		case err == nil:
			if err := r.hear(p); err != nil {
				return err
			}
		case ctx.Err() == nil && !wire.AsError(err).Retryable:
			return err
		}
		select {
		case <-time.After(replaceEvery):
		case <-ctx.Done():
			return r.late(context.Cause(ctx), err)
		}
	}
}

// hear takes in how the group is while the replacement is not done, and tells what
// is new in that. It is an error if the leader that had the order has it no more; one
// that lost the lead meanwhile and has it again has forgotten.
func (r *replacement) hear(p starling.GroupPlan) error {
	has := slices.Equal(p.Replace, []string{r.old, r.new})
	switch {
	case p.Leader == "": // until somebody leads nobody knows
	case has:
		r.leader, r.term = p.Leader, p.Term
	case r.leader == p.Leader && r.term == p.Term:
		return fmt.Errorf("%s is not to take the place of %s in group %s any more: that was called off, or something else was ordered; edge-node groups explain %s tells more", r.new, r.old, r.group, r.group)
	default:
		r.leader = ""
	}
	if stage, text := r.words(p); stage >= r.stage && text != r.told { // a look at an older leader tells of an earlier stage
		r.stage, r.told = stage, text
		fmt.Fprintln(r.app.stderr, "edge-node:", text)
	}
	return nil
}

// words say how far the replacement is. They do not repeat the reasons of steps,
// which may be about other replicas of the group.
func (r *replacement) words(p starling.GroupPlan) (stage int, text string) {
	votes := slices.Contains(p.Voters, r.new)
	switch {
	case !votes && !slices.Contains(p.Learners, r.new):
		stage, text = 0, fmt.Sprintf("%s is to take the place of %s in group %s", r.new, r.old, r.group)
	case !votes:
		stage, text = 1, fmt.Sprintf("%s learns what there is", r.new)
	default:
		stage, text = 2, fmt.Sprintf("%s has its vote, and %s is to give its own up", r.new, r.old)
	}
	switch {
	case p.Leader == "":
		text += "; nobody leads the group now"
	case p.Paused:
		text += "; moves are paused: edge-node groups resume"
	case p.Failed != "":
		text += "; the last try failed: " + p.Failed
	}
	return stage, text
}

// late says how things are when the command ends before the replacement does, and
// why it does; err is the last failure to ask, if any.
func (r *replacement) late(why, err error) error {
	if errors.Is(why, context.Canceled) {
		why = errors.New("interrupted")
	}
	if r.leader == "" {
		if wire.Code(err) != "" {
			why = fmt.Errorf("%w; the last answer was %w", why, wire.AsError(err))
		}
		return fmt.Errorf("%w; whether the mesh has the order is not known: edge-node groups explain %s tells", why, r.group)
	}
	return fmt.Errorf("%w: %s has not taken the place of %s in group %s yet, and the mesh goes on with it; edge-node groups explain %s tells how far it is, edge-node groups replace %s --cancel calls it off",
		why, r.new, r.old, r.group, r.group, r.group)
}
