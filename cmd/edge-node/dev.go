package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/cmd/edge-node/internal/home"
	"github.com/starling-im/starling/edge"
	"github.com/starling-im/starling/geo"
	"github.com/starling-im/starling/identity"
	"github.com/starling-im/starling/wire"
)

const devLong = `Start a mesh on this machine: in each region some nodes, each with a UDP port of
its own on the loopback interface, and with its own data. When every group has a
leader and a message went through in every region, it prints where the nodes
listen, tokens for two demo users, and what to type next. Ctrl-C stops it; a
second Ctrl-C kills it.

The nodes run in this process; with --processes each is a child process that can
be killed, and that starts again at the same port. With --data the mesh is there
again at the next start; otherwise the data is removed at the end. With --wan
packets between regions take as long as between the cities that the regions are
named for.

It writes a context to $STARLING_HOME, by which all other commands find the mesh.
A second mesh needs a --context of its own; a context whose mesh is dead is
replaced, and what that one left in temporary folders is removed.
The nodes log errors to standard error, and more if --log-level says so.`

func (a *app) devCommand() *cobra.Command {
	o := devOptions{}
	cmd := &cobra.Command{
		Use: "dev", Short: "Start a whole mesh on this machine", GroupID: groupNodes,
		Long: devLong,
		Example: `  edge-node dev
  edge-node dev --regions fra,iad,sin,gru --wan
  edge-node dev --processes --data ./mesh --port 7400
  edge-node dev --json | head -1`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.asked = cmd.Flags().Changed
			if !o.asked("log-level") {
				a.logLevel = "error" // elections are no news to who tries things out
			}
			o.logLevel = a.logLevel
			if err := o.check(); err != nil {
				return err
			}
			return a.dev(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.regions, "regions", []string{"fra", "iad", "sin"}, "regions of the mesh, named for the airports of cities")
	f.IntVar(&o.nodes, "nodes", 1, "nodes in each region")
	f.IntVar(&o.port, "port", 0, "port of the first node, the next ones follow; 0 = any free ones")
	f.StringVar(&o.data, "data", "", "folder that keeps the data for the next start (default: temporary)")
	f.StringVar(&o.limits, "limits", starling.Bench, "production, or bench: rates off, memory limits on")
	f.BoolVar(&o.wan, "wan", false, "delay packets between regions by measured round-trip times")
	f.BoolVar(&o.noSync, "no-sync", false, "do not wait for the disk; acknowledged messages can be lost")
	f.BoolVar(&o.processes, "processes", false, "run each node as a child process")
	f.DurationVar(&o.restart, "restart-after", 2*time.Second, "pause before a child process that died starts again; 0 = never")
	f.DurationVar(&o.replace, "replace-after", geo.FailedGrace, "how long a node may be gone before its replicas are made anew elsewhere")
	f.DurationVar(&o.certLife, "cert-life", identity.NodeLife, "how long the nodes' certificates are good for; they are renewed after two thirds of it")
	must(cmd.MarkFlagDirname("data"))
	must(cmd.RegisterFlagCompletionFunc("limits", cobra.FixedCompletions([]string{starling.Bench, starling.Production}, cobra.ShellCompDirectiveNoFileComp)))
	must(cmd.RegisterFlagCompletionFunc("regions", cobra.FixedCompletions(geo.Pops().Regions(), cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

func (o *devOptions) check() error {
	switch {
	case len(o.regions) == 0 || slices.Contains(o.regions, ""):
		return usagef("--regions needs names, such as fra,iad,sin")
	case len(slices.Compact(slices.Sorted(slices.Values(o.regions)))) != len(o.regions):
		return usagef("--regions names a region twice")
	case o.nodes < 1 || o.nodes*len(o.regions) > maxDevNodes:
		return usagef("--nodes is %d: at least 1 in each region, and at most %d in all", o.nodes, maxDevNodes)
	case o.port < 0 || o.port > 65535-o.nodes*len(o.regions):
		return usagef("--port is %d, no port for the first of %s", o.port, plural(o.nodes*len(o.regions), "node"))
	case o.limits != starling.Bench && o.limits != starling.Production:
		return usagef("--limits is %q, not %s or %s", o.limits, starling.Production, starling.Bench)
	case o.replace <= 0:
		return usagef("--replace-after is %v, not a time such as 15m", o.replace)
	case o.restart < 0:
		return usagef("--restart-after is %v", o.restart)
	}
	if o.wan {
		for _, r := range o.regions {
			if _, ok := geo.Pops().Place(r); !ok {
				return usagef("--wan has no measurements of region %q; it has %s", r, strings.Join(geo.Pops().Regions(), ", "))
			}
		}
	}
	return nil
}

// dev runs a mesh until ctx ends, or until a node must not go on.
func (a *app) dev(stop context.Context, o devOptions) error {
	if err := a.takeOver(stop); err != nil {
		return err
	}
	plan, err := planDev(o)
	if err != nil {
		return err
	}
	defer plan.close()
	a.warnOf(plan)
	ctx, cancel := context.WithCancelCause(stop)
	defer cancel(nil)
	nodes := a.newRunner(plan, o)
	var failed error
	var work sync.WaitGroup
	work.Go(func() {
		failed = nodes.run(ctx)
		cancel(failed)
	})
	c := plan.context(a.context, o)
	if err = a.waitReady(ctx, c); err == nil {
		nodes.settle()
		err = a.announce(ctx, plan, c, o, nodes)
	}
	if err == nil {
		<-ctx.Done()
	}
	cancel(err)
	work.Wait()
	if o.data == "" {
		_ = c.Remove(a.home)
	}
	switch {
	case failed != nil:
		return failed
	case stop.Err() != nil:
		return nil
	}
	return err
}

// demoUsers get tokens that are good for as long as the mesh takes them.
var demoUsers = []string{"alice", "bob"}

// benchTokenLife is the life of tokens that nodes with the limits of bench take.
const benchTokenLife = 24 * time.Hour

// tokenLife is how long the tokens of the demo users are good for, and in words.
func (o *devOptions) tokenLife() (life time.Duration, words string) {
	if o.limits == starling.Bench {
		return benchTokenLife, "a day"
	}
	return wire.TokenLife, "an hour"
}

// announce writes the context and says that the mesh is ready.
func (a *app) announce(ctx context.Context, plan *devPlan, c *home.Context, o devOptions, r runner) error {
	life, words := o.tokenLife()
	for _, name := range demoUsers {
		k := plan.Keys[devApp]
		token, err := edge.Mint(edge.Key{ID: k.ID, App: devApp, Secret: k.Secret}, edge.Claims{User: name, Expires: time.Now().Add(life)})
		if err != nil {
			return err
		}
		c.Tokens[name] = token
	}
	if err := a.takeOver(ctx); err != nil { // another may have started meanwhile
		return err
	}
	path, err := c.Save(a.home)
	if err != nil {
		return fmt.Errorf("the context cannot be written: %w", err)
	}
	if a.json {
		return a.printJSON(readyLine(c, path, r))
	}
	fmt.Fprintf(a.stdout, "A mesh of %s is ready (limits: %s).\n\n", plural(len(c.Nodes), "node"), o.limits)
	for _, n := range c.Nodes {
		place, _ := geo.Pops().Place(n.Region)
		fmt.Fprintf(a.stdout, "  %-8s %-12s quic %-21s pid %d\n", n.ID, place.City, n.Addr, r.pid(n.ID))
	}
	fmt.Fprintf(a.stdout, "\nContext %q is in %s. Now, in other terminals:\n\n", c.Name, path)
	flag := ""
	if a.context != "default" {
		flag = " --context " + a.context
	}
	fmt.Fprintf(a.stdout, "  %s chat lobby --as alice%s\n", programName(), flag)
	fmt.Fprintf(a.stdout, "  %s chat lobby --as bob --region %s%s\n\n", programName(), plan.Regions[min(1, len(plan.Regions)-1)], flag)
	fmt.Fprintf(a.stdout, "Tokens of the app %q, good for %s, for clients that have no context:\n\n", c.App, words)
	for _, name := range demoUsers {
		fmt.Fprintf(a.stdout, "  %-6s %s\n", name, c.Tokens[name])
	}
	fmt.Fprintf(a.stdout, "\nMetrics of each node are at its address over HTTPS, such as https://%s/metrics.\n", c.Nodes[0].Addr)
	fmt.Fprintf(a.stdout, "Ctrl-C stops the mesh%s.\n", map[bool]string{true: " and removes its data", false: "; its data stays in " + plan.dir}[o.data == ""])
	return nil
}

// programName is how the user called this program, if it can be called so.
func programName() string {
	if strings.Contains(os.Args[0], "go-build") {
		return "go run ./cmd/edge-node"
	}
	return os.Args[0]
}

// readyNode and ready are the one line of dev --json.
type readyNode struct {
	ID     string `json:"id"`
	Region string `json:"region"`
	PID    int    `json:"pid"`
	QUIC   string `json:"quic"`
}

type ready struct {
	Ready   bool        `json:"ready"`
	App     string      `json:"app"`
	Nodes   []readyNode `json:"nodes"`
	Context string      `json:"context"`
}

func readyLine(c *home.Context, path string, r runner) ready {
	line := ready{Ready: true, App: c.App, Context: path}
	for _, n := range c.Nodes {
		line.Nodes = append(line.Nodes, readyNode{n.ID, n.Region, r.pid(n.ID), n.Addr})
	}
	return line
}
