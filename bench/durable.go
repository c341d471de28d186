package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const durableLong = `Measure messages that are acknowledged once a quorum of three processes has
synced them to disk: 128 bytes each, to 200 rooms in turn, with exactly so many
in flight as the workload's name says, over three connections.

  starling            three nodes of one region, survive node, limits bench
  jetstream           NATS JetStream, one stream with three replicas for all
                      rooms, sync_interval: always
  jetstream-per-room  the same with a stream for each room
  raft-bare           hashicorp/raft over TCP with a store in Pebble, and nothing
                      else: what ordering and syncing alone cost

Systems take turns. Each turn starts three processes in an empty folder, makes
all rooms, sends for --warm-up, and then counts for --seconds. Processor time is
that of the three processes and of the one that sends, while it counts.

Without --sweep the one workload is durable-256. With it there follow, one round
each: 1, 16 and 4,096 in flight; 1, 8, 64 and 256 groups (starling and
raft-bare); and disks that take 1 and 5 ms longer to sync, by strace.

The result is a table, or with --json a line per turn; progress goes to standard
error. Nothing else should run meanwhile.`

// durableOptions are the flags of durable.
type durableOptions struct {
	rounds   int
	peers    []string
	json     bool
	sweep    bool
	seconds  float64
	warmUp   time.Duration
	dir      string
	edgeNode string
}

// The rounds of the first workload, and the turns that a run may have.
const (
	defaultRounds = 5
	maxRounds     = 100
)

func durableCommand() *cobra.Command {
	var o durableOptions
	cmd := &cobra.Command{
		Use: "durable", Short: "Measure acknowledged messages on three synced disks",
		Long: durableLong,
		Example: `  go run . durable
  go run . durable --rounds 3 --peers starling,jetstream
  go run . durable --rounds 1 --sweep --json > rows.jsonl
  go run . durable --peers starling --edge-node ../bin/edge-node`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			return durable(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.rounds, "rounds", defaultRounds, "turns of each system with durable-256")
	f.StringSliceVar(&o.peers, "peers", systemNames(), "systems to measure")
	f.BoolVar(&o.json, "json", false, "write a JSON object per turn instead of a table")
	f.BoolVar(&o.sweep, "sweep", false, "measure the other workloads too, one round each")
	f.Float64Var(&o.seconds, "seconds", 8, "how long to count in each turn")
	f.DurationVar(&o.warmUp, "warm-up", 3*time.Second, "how long to send before that")
	f.StringVar(&o.dir, "dir", "", "folder on the disk to measure (default: the system's temporary folder)")
	f.StringVar(&o.edgeNode, "edge-node", "", "measure this program (default: build the one in the folder above)")
	return cmd
}

// checkPeers refuses names that are not among those that there are.
func checkPeers(names, all []string) error {
	for _, p := range names {
		if !slices.Contains(all, p) {
			return fmt.Errorf("--peers names %q; there are %s", p, strings.Join(all, ", "))
		}
	}
	if len(names) == 0 {
		return fmt.Errorf("--peers names nobody; there are %s", strings.Join(all, ", "))
	}
	return nil
}

func (o *durableOptions) check() error {
	if err := checkPeers(o.peers, systemNames()); err != nil {
		return err
	}
	switch {
	case o.rounds < 1 || o.rounds > maxRounds:
		return fmt.Errorf("--rounds is %d, not 1 to %d", o.rounds, maxRounds)
	case !(o.seconds >= 0.1 && o.seconds <= 3600):
		return fmt.Errorf("--seconds is %v, not 0.1 to 3600", o.seconds)
	case o.warmUp < 0:
		return fmt.Errorf("--warm-up is %v", o.warmUp)
	}
	return nil
}

// durable measures everything that the options ask for.
func durable(ctx context.Context, o durableOptions, out, progress io.Writer) error {
	m, err := newMachine(ctx, o.dir, o.edgeNode, slices.Contains(o.peers, starlingName), progress)
	if err != nil {
		return err
	}
	defer m.clean()
	var rows []row
	var failed error
	encoder := json.NewEncoder(out)
	for i, t := range turns(o) {
		t.work.Seconds, t.work.WarmUp = o.seconds, o.warmUp
		r, err := m.turn(ctx, fmt.Sprint(i), t)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil { // the others shall have their turns nevertheless
			r.Missing = err.Error()
			failed = errors.Join(failed, fmt.Errorf("%s, %s: %w", t.system, t.work.Name(), err))
		}
		fmt.Fprintln(progress, "bench:", r)
		rows = append(rows, r)
		if o.json {
			if err := encoder.Encode(r); err != nil {
				return err
			}
		}
	}
	if !o.json {
		failed = errors.Join(failed, printTable(out, durableColumns, rows))
	}
	return failed
}

// A turn is one measurement.
type turn struct {
	system string
	work   workload
	round  int
}

// turns are the turns of a run in their order: in each round another system
// begins.
func turns(o durableOptions) (all []turn) {
	for round := range o.rounds {
		for i := range o.peers {
			all = append(all, turn{o.peers[(round+i)%len(o.peers)], base(), round + 1})
		}
	}
	if !o.sweep {
		return all
	}
	for _, w := range sweep() {
		for _, p := range o.peers {
			if w.Groups == 0 || hasGroups[p] {
				all = append(all, turn{p, w, 1})
			}
		}
	}
	return all
}
