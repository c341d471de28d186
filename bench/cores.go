package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-im/starling/bench/internal/talk"
)

// The machines of cores: what a node has of this one.
var machines = []struct {
	name string
	plan meshPlan
}{
	{"one-core", meshPlan{nodes: 1, one: true}},
	{"two-cores", meshPlan{nodes: 1}},
	{"two-nodes", meshPlan{nodes: 2}},
}

func coresCommand() *cobra.Command {
	o := relayOptions{kind: kindFanout}
	protocol := talk.StarlingWS
	cmd := &cobra.Command{
		Use: "cores", Short: "Measure how fan-out grows with processors, and with nodes",
		Long: `Measure fan-out of one room to --clients, in turn by one node that has one processor (one-core), by one that may
use all (two-cores), and by two nodes that may, each with half of the followers (two-nodes). The clients are one process,
which may use all in each case.`,
		Example: "  go run . cores\n  go run . cores --rounds 1 --protocol starling-quic", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.peers = []string{starlingWSName}
			if err := o.check(); err != nil {
				return err
			}
			return cores(cmd.Context(), o, protocol, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.rounds, "rounds", 3, "turns of each")
	f.IntVar(&o.clients, "clients", 1000, "how many clients follow")
	f.Float64Var(&o.seconds, "seconds", 5, "how long to count in each workload")
	f.DurationVar(&o.warmUp, "warm-up", 2*time.Second, "how long to send before that")
	f.IntVar(&o.window, "window", 256, "messages that are on their way")
	f.IntVar(&o.size, "size", 128, "bytes of a message")
	f.StringVar(&protocol, "protocol", protocol, talk.StarlingWS+" or "+talk.StarlingQUIC)
	f.StringVar(&o.dir, "dir", "", "folder for what nodes keep (default: the system's temporary folder)")
	f.StringVar(&o.edgeNode, "edge-node", "", "measure this program (default: build the one in the folder above)")
	return cmd
}

// cores measures all machines in turn.
func cores(ctx context.Context, o relayOptions, protocol string, out, progress io.Writer) error {
	m, err := newMachine(ctx, o.dir, o.edgeNode, true, progress)
	if err != nil {
		return err
	}
	defer m.clean()
	var all []row
	for round := range o.rounds {
		for i := range machines {
			it := machines[(round+i)%len(machines)]
			p := it.plan
			p.limits = limitsProfile
			rows, err := m.coresTurn(ctx, filepath.Join(m.dir, fmt.Sprint(round, "-", i)), protocol, p, o.work())
			if err != nil {
				return errors.Join(err, context.Cause(ctx))
			}
			for _, r := range rows {
				r.System, r.Round = it.name, round+1
				all = append(all, r)
			}
			fmt.Fprintf(progress, "bench: round %d, %s: %.0f deliveries/s\n", round+1, it.name, rows[0].DeliveriesPerS)
		}
	}
	return printTable(out, deliveryColumns, byWorkload(all))
}

func (m *machine) coresTurn(ctx context.Context, dir, protocol string, plan meshPlan, w relayWork) ([]row, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	h, err := m.startHarm(ctx, dir, protocol, plan)
	if err != nil {
		return nil, err
	}
	defer h.stop()
	p := &peer{target: h.targets[0], more: h.targets[1:], limits: starlingLimits, pid: h.pid(0)}
	for i := range p.more {
		p.morePIDs = append(p.morePIDs, h.pid(1+i))
	}
	return m.publish(ctx, p, w)
}
