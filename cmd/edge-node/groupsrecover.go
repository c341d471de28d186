package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/starling-im/starling"
)

// errNoConsent ends a recovery that was only looked at.
var errNoConsent = errors.New("nothing was done: say --accept-loss to go on with what is left")

func (a *app) recoverCommand() *cobra.Command {
	var accept bool
	cmd := &cobra.Command{
		Use: "recover GROUP", Short: "Go on with what is left of a group whose quorum is lost for good",
		Long: `Go on with what one replica has of a group that lost a quorum of its voters for
good, or whose voters' disks are all in doubt. Without --accept-loss it only tells
what that would be, and what may be lost.

The replica with the newest log becomes the only voter, and the group gets others
where there are nodes. Its rooms get another epoch, so that clients which followed
them start again. It is refused where a quorum of voters answers: then there is
nothing to recover. Group 0, the directory, may need it too, and first.

Be sure that the others are lost. Two of them that are only cut off, and that reach
each other, go on too until they hear of this; what they took then is lost. Nodes
that come back later are ignored, and made anew where a group wants a replica.`,
		Example: "  edge-node groups recover 3\n  edge-node groups recover 3 --accept-loss",
		Args:    needs("GROUP"), ValidArgsFunction: a.completeGroup(),
		RunE: func(cmd *cobra.Command, args []string) error {
			answer, err := a.ask(cmd.Context(), "groups.recover", args...)
			if err == nil && accept {
				answer, err = a.acceptLoss(cmd.Context(), args[0], answer)
			}
			if err != nil {
				return err
			}
			if err := a.showRecovery(answer); err != nil || accept {
				return err
			}
			return errNoConsent
		},
	}
	cmd.Flags().BoolVar(&accept, "accept-loss", false, "do it, whatever is lost by that")
	return cmd
}

// acceptLoss goes on with what a look has shown, and with nothing else.
func (a *app) acceptLoss(ctx context.Context, group string, shown []byte) ([]byte, error) {
	var i starling.RecoverInfo
	if err := json.Unmarshal(shown, &i); err != nil {
		return nil, err
	}
	return a.ask(ctx, "groups.recover", group, "accept-loss", i.Survivor.Node, fmt.Sprint(i.Epoch))
}

func (a *app) showRecovery(answer []byte) error {
	if a.json {
		_, err := fmt.Fprintf(a.stdout, "%s\n", answer)
		return err
	}
	var i starling.RecoverInfo
	if err := json.Unmarshal(answer, &i); err != nil {
		return fmt.Errorf("the node's answer does not tell what is left of a group: %w", err)
	}
	here := "none"
	if len(i.Here) > 0 {
		here = strings.Join(i.Here, " ")
	}
	fmt.Fprintf(a.stdout, "group %d, voters %s\n", i.Group, strings.Join(i.Voters, " "))
	fmt.Fprintf(a.stdout, "there     %s; %d would have to be\n", here, i.Needed)
	for n, line := range i.Loss() {
		head := "loss      "
		if n > 0 {
			head = "          "
		}
		fmt.Fprintf(a.stdout, "%s%s\n", head, line)
	}
	if i.Recovered {
		fmt.Fprintf(a.stdout, "recovered %s goes on alone, in epoch %d\n", i.Survivor.Node, i.Epoch)
	}
	return nil
}
