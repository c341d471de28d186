package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/cmd/edge-node/internal/children"
	"github.com/starling-im/starling/cmd/edge-node/internal/home"
	"github.com/starling-im/starling/directory"
)

// runner keeps the nodes of a mesh running.
type runner interface {
	// run returns after all nodes have ended: nil if ctx did, else why.
	run(ctx context.Context) error
	// settle is told that the mesh works.
	settle()
	pid(node string) int
}

func (a *app) newRunner(plan *devPlan, o devOptions) runner {
	if !o.processes {
		return &inProcess{app: a, plan: plan}
	}
	return newProcesses(a, plan, o)
}

// inProcess runs all nodes in this process.
type inProcess struct {
	app  *app
	plan *devPlan
}

func (r *inProcess) settle() {}

func (r *inProcess) pid(string) int { return os.Getpid() }

func (r *inProcess) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	log := r.app.logger()
	var work sync.WaitGroup
	for i, cfg := range r.plan.configs {
		work.Go(func() {
			if err := runNode(ctx, cfg, r.plan.bound[i], log); err != nil {
				cancel(fmt.Errorf("%s: %w", cfg.Node, err))
			}
		})
	}
	work.Wait()
	if err := context.Cause(ctx); err != nil && !isStop(err) {
		return err
	}
	return nil
}

// isStop reports whether a context ended because somebody asked for it.
func isStop(err error) bool { return errors.Is(err, context.Canceled) }

// processes runs each node as a child.
type processes struct{ *children.Family }

func newProcesses(a *app, plan *devPlan, o devOptions) *processes {
	cfg := children.Config{RestartAfter: o.restart, Log: a.stderr}
	path, err := os.Executable()
	if err != nil {
		path = os.Args[0]
	}
	for i, n := range plan.nodes {
		plan.bound[i].close()
		cfg.Children = append(cfg.Children, children.Child{
			Name: n.ID, Path: path, Args: []string{"run", "--config", plan.configFile(i)}, Env: ownEnv(os.Environ()),
		})
	}
	return &processes{children.New(cfg)}
}

// ownEnv is env without what configures a node: each has its file, and
// STARLING_DATA of the shell must not give them all one folder.
func ownEnv(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(v string) bool { return strings.HasPrefix(v, envPrefix) })
}

func (p *processes) run(ctx context.Context) error { return p.Run(ctx) }
func (p *processes) settle()                       { p.Settle() }
func (p *processes) pid(node string) int           { return p.PID(node) }

// readyPoll is the pause between two looks at a mesh that starts.
const readyPoll = 20 * time.Millisecond

// waitReady returns when every group has a leader and has acked a publish.
func (a *app) waitReady(ctx context.Context, c *home.Context) error {
	token, err := mint(c, directory.SystemApp, operator)
	if err != nil {
		return err
	}
	var work sync.WaitGroup
	errs := make([]error, len(c.Regions()))
	for i, region := range c.Regions() {
		work.Go(func() { errs[i] = a.regionReady(ctx, c, region, token) })
	}
	work.Wait()
	return errors.Join(errs...)
}

// readyWithin bounds the start of a mesh.
const readyWithin = 60 * time.Second

func (a *app) regionReady(ctx context.Context, mesh *home.Context, region string, token func(context.Context) (string, error)) error {
	c, err := a.dial(ctx, mesh, connection{addrs: mesh.Addrs(region, 0), token: token, within: readyWithin})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := untilLeaders(ctx, c); err != nil {
		return fmt.Errorf("region %s is not ready: %w", region, err)
	}
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for i := 0; i < probes; i += probesAtOnce {
		if err := probe(ctx, c, region, i); err != nil {
			return fmt.Errorf("region %s is not ready: %w", region, err)
		}
		groups, err := groupsOf(ctx, c)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(groups, func(g starling.GroupInfo) bool { return g.Region == region && g.Rooms == 0 }) {
			return nil
		}
	}
	return nil
}

// probe publishes to rooms of the region, to find whether it takes messages.
func probe(ctx context.Context, c *client.Client, region string, first int) error {
	acked := make(chan error, probesAtOnce)
	for i := range probesAtOnce {
		m := client.Message{Room: fmt.Sprintf("~%s/ready/%d", region, first+i), Content: "ready"}
		c.Send(ctx, m, func(_ client.Ack, err error) { acked <- err })
	}
	var err error
	for range probesAtOnce {
		err = errors.Join(err, <-acked)
	}
	return err
}

// probes bounds the rooms that are made in a region until each of its groups
// has proved, by holding one, that it takes messages.
const (
	probes       = 64
	probesAtOnce = 8
)

// untilLeaders returns when the node of c knows a leader of every group.
func untilLeaders(ctx context.Context, c *client.Client) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyWithin, fmt.Errorf("groups without a leader after %v", readyWithin))
	defer cancel()
	poll := time.NewTicker(readyPoll)
	defer poll.Stop()
	for {
		groups, err := groupsOf(ctx, c)
		if err != nil {
			return err
		}
		led := 0
		for _, g := range groups {
			if g.Leader != "" {
				led++
			}
		}
		if led > 0 && led == len(groups) {
			return nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
