package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/client"
)

// tokenLife is how long a join token is good for unless told otherwise.
const tokenLife = time.Hour

func (a *app) joinTokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "join-token", Short: "Make tokens by which new nodes come in", GroupID: groupNodes,
		Long: `Make, list and take back the tokens by which new nodes come in. A token lets one node
into one region. It holds a pin of the cluster's root, so that a new node knows
that it speaks with this cluster and no other.`,
		Example: "  edge-node join-token create --data ./fra-1 --region iad\n  edge-node join-token list --data ./fra-1",
		Args:    noCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.joinTokenCreateCommand(), a.joinTokenListCommand(), a.joinTokenDeleteCommand())
	return cmd
}

func (a *app) joinTokenCreateCommand() *cobra.Command {
	var region string
	var life time.Duration
	var signer bool
	cmd := &cobra.Command{
		Use: "create", Short: "Make a token for one new node",
		Long: `Make a token that lets one new node into a region, within an hour. It is printed once
and kept nowhere. With --signer the node gets the key of its region's authority, and
signs certificates of the region: nodes can join while one such node lives.`,
		Example: `  edge-node join-token create --data ./fra-1 --region iad
  edge-node join-token create --data ./fra-1 --region iad --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneRegion(region); err != nil {
				return err
			}
			if life < time.Second {
				return usagef("--ttl is %v, less than a second", life)
			}
			args := []string{rand.Text(), region, strconv.Itoa(int(life.Seconds()))}
			if signer {
				args = append(args, "signer")
			}
			mesh, err := a.mesh()
			if err != nil {
				return err
			}
			answer, err := a.askMesh(cmd.Context(), mesh, "join.tokens.create", args...)
			if err != nil {
				return err
			}
			var t starling.TokenInfo
			if err := json.Unmarshal(answer, &t); err != nil {
				return err
			}
			if a.json {
				return a.printJSON(t)
			}
			fmt.Fprintln(a.stdout, t.Token)
			fmt.Fprintf(a.stderr, "It lets one node into %s until %s. With this line in a file, say there:\n\n  %s run --data DIR --listen HOST:PORT --join %s --token-file FILE\n",
				t.Region, time.UnixMilli(t.Expires).Format(time.DateTime), programName(), addrsOf(mesh)[0])
			return nil
		},
	}
	cmd.Flags().StringVar(&region, "region", "", "region of the new node")
	cmd.Flags().DurationVar(&life, "ttl", tokenLife, "how long the token is good for, at most a week")
	cmd.Flags().BoolVar(&signer, "signer", false, "the new node signs certificates of its region too")
	return cmd
}

func (a *app) joinTokenListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the tokens, also those that are used",
		Long:    "List the tokens by which nodes came in, or may come in, until a day after their end. The secret texts are not kept.",
		Example: "  edge-node join-token list --data ./fra-1 --json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			answer, err := a.ask(cmd.Context(), "join.tokens")
			if err != nil {
				return err
			}
			return show(a, answer, "TOKEN REGION SIGNER EXPIRES NODE", func(t starling.TokenInfo) []any {
				node := t.Node
				if node == "" {
					node = "-"
				}
				return []any{t.ID, t.Region, t.Signer, time.UnixMilli(t.Expires).Format(time.DateTime), node}
			})
		},
	}
}

func (a *app) joinTokenDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use: "delete ID", Short: "Take a token back",
		Long:              "Take a token back by its id, which list shows, before a node has come in with it.",
		Example:           "  edge-node join-token delete 7k2mq4xw1z --data ./fra-1",
		Args:              needs("ID"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			answer, err := a.ask(cmd.Context(), "join.tokens.delete", rand.Text(), args[0])
			if err != nil {
				return err
			}
			if a.json {
				_, err = a.stdout.Write(append(answer, '\n'))
				return err
			}
			_, err = fmt.Fprintf(a.stdout, "token %s is taken back\n", args[0])
			return err
		},
	}
}

func (a *app) nodeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "node", Short: "Look at a node, or revoke it", GroupID: groupMesh,
		Long:    "Look at a node of the mesh, or make its certificate good for nothing.",
		Example: "  edge-node node show fra-1\n  edge-node node revoke iad-2",
		Args:    noCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.nodeShowCommand(), a.nodeRevokeCommand())
	return cmd
}

func (a *app) nodeShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Say what is known of a node",
		Long: `Say what is known of a node: where it is, how it is, whether it signs certificates,
and in which groups it holds a replica; and what it says of itself: until when its certificate
is good, how far it is on its way out, and which of its replicas have no vote since its disk
is an older copy or lost something.`,
		Example: "  edge-node node show fra-1 --json",
		Args:    needs("ID"), ValidArgsFunction: a.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.showNode(cmd.Context(), "node.show", args[0])
		},
	}
}

func (a *app) nodeRevokeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID", Short: "Make a node's certificate good for nothing",
		Long: `Make a node's certificate good for nothing, for ever: all other nodes cut their links to
it within seconds, and let it in no more. Its replicas are made anew elsewhere. The
machine can come back as a new node only, with another id and a new token.`,
		Example: "  edge-node node revoke iad-2",
		Args:    needs("ID"), ValidArgsFunction: a.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.showNode(cmd.Context(), "node.revoke", rand.Text(), args[0])
		},
	}
}

// showNode asks about a node, or to change it, and shows how it is.
func (a *app) showNode(ctx context.Context, query string, args ...string) error {
	answer, err := a.ask(ctx, query, args...)
	if err != nil {
		return err
	}
	if a.json {
		_, err := a.stdout.Write(append(answer, '\n'))
		return err
	}
	var n starling.NodeInfo
	if err := json.Unmarshal(answer, &n); err != nil {
		return err
	}
	state := n.State
	if n.Revoked {
		state = "revoked"
	}
	fmt.Fprintf(a.stdout, "node     %s\nregion   %s\naddr     %s\nstate    %s\nversion  %s\nsigner   %v\nvoter    %s\n",
		n.ID, n.Region, n.Addr, state, n.Version, n.Signer, strings.Trim(fmt.Sprint(n.Voter), "[]"))
	if len(n.Learner) > 0 {
		fmt.Fprintf(a.stdout, "learner  %s\n", strings.Trim(fmt.Sprint(n.Learner), "[]"))
	}
	fmt.Fprint(a.stdout, hereText(n.Here, n.Revoked))
	for _, g := range n.Stranded {
		a.warn(fmt.Sprintf("group %d has no quorum without %s, and takes no messages until an operator gives up what only %s has: edge-node groups recover %d --accept-loss", g, n.ID, n.ID, g))
	}
	return nil
}

// hereText is what a node says of itself, as lines of node show.
func hereText(h *starling.NodeHere, revoked bool) string {
	switch {
	case revoked:
		return ""
	case h == nil:
		return "answers  no\n"
	}
	text := fmt.Sprintf("cert     good until %s\n", time.UnixMilli(h.CertificateUntil).Format(time.DateTime))
	if h.Out.Stage != starling.StageServing {
		text += fmt.Sprintf("out      %s\n", strings.TrimPrefix(stageText(h.Out), h.Out.Node+": "))
	}
	for _, d := range h.Doubts {
		needs := "waits for others to say how far the group is"
		if d.Tip > 0 {
			needs = fmt.Sprintf("its log has come to %d of %d", d.Last, d.Tip)
		}
		text += fmt.Sprintf("doubt    group %d: %s: it has no vote, %s\n", d.Group, d.Why, needs)
	}
	return text
}

func (a *app) keysCommand() *cobra.Command {
	show := &cobra.Command{
		Use: "keys", Short: "Look at the keys of gossip, or rotate them", GroupID: groupMesh,
		Long:    "Say which version of the keys of gossip the mesh has, and which members have yet to hear of it.",
		Example: "  edge-node keys\n  edge-node keys rotate",
		Args:    noCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			answer, err := a.ask(cmd.Context(), "keys")
			if err != nil {
				return err
			}
			return a.showKeys(answer)
		},
	}
	rotate := &cobra.Command{
		Use: "rotate", Short: "Replace the key of gossip, without a gap",
		Long: `Replace the key of gossip: the next one is made known to all members, then used, then
the old one is forgotten. Each step waits for all members that are alive; one that is
away gets the keys when it comes back and has proved who it is. Stopped half way it is finished
by calling it again.`,
		Example: "  edge-node keys rotate --data ./fra-1",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.rotateKeys(cmd.Context()) },
	}
	show.AddCommand(rotate)
	return show
}

// rotateWithin bounds a rotation, stepPoll is the pause between two looks at it.
const (
	rotateWithin = 2 * time.Minute
	stepPoll     = 200 * time.Millisecond
)

func (a *app) rotateKeys(ctx context.Context) error {
	mesh, err := a.mesh()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, rotateWithin)
	defer cancel()
	c, err := a.dialOperator(ctx, mesh)
	if err != nil {
		return err
	}
	defer c.Close()
	began, err := askKeys(ctx, c, "keys")
	if err != nil {
		return err
	}
	end := began.Version - began.Version%3 + 3
	for now := began; ; {
		if now.Version >= end && len(now.Waiting) == 0 {
			answer, err := json.Marshal(now)
			if err != nil {
				return err
			}
			return a.showKeys(answer)
		}
		if now.Version < end {
			if now, err = askKeys(ctx, c, "keys.step", strconv.FormatUint(now.Version, 10)); err != nil {
				return err
			}
			fmt.Fprintf(a.stderr, "keys of version %d; %s\n", now.Version, waitingFor(now))
		}
		select {
		case <-time.After(stepPoll):
		case <-ctx.Done():
			return fmt.Errorf("the rotation stands at version %d, %s: call it again once they answer, or revoke them", now.Version, waitingFor(now))
		}
		if now, err = askKeys(ctx, c, "keys"); err != nil {
			return err
		}
	}
}

func askKeys(ctx context.Context, c *client.Client, what string, args ...string) (k starling.KeysInfo, err error) {
	answer, err := c.Query(ctx, what, args...)
	if err == nil {
		err = json.Unmarshal(answer, &k)
	}
	return k, err
}

func waitingFor(k starling.KeysInfo) string {
	if len(k.Waiting) == 0 {
		return "all members have them"
	}
	return "waiting for " + strings.Join(k.Waiting, ", ")
}

func (a *app) showKeys(answer []byte) error {
	if a.json {
		_, err := a.stdout.Write(append(answer, '\n'))
		return err
	}
	var k starling.KeysInfo
	if err := json.Unmarshal(answer, &k); err != nil {
		return err
	}
	state := "no rotation is under way"
	if k.Rotating {
		state = "a rotation is under way"
	}
	_, err := fmt.Fprintf(a.stdout, "keys of version %d: %s; %s\n", k.Version, waitingFor(k), state)
	return err
}
