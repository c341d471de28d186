package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
)

// relayOptions are the flags of the commands beside durable.
type relayOptions struct {
	kind     string
	rounds   int
	peers    []string
	json     bool
	clients  int
	window   int
	size     int
	seconds  float64
	warmUp   time.Duration
	dir      string
	edgeNode string
}

// The bounds of options.
const (
	maxClients = 10_000
	maxWindow  = 4096
	maxSize    = 16 << 10
)

const relaySystems = `

  starling-ws    one node, clients over WebSocket
  starling-quic  one node, clients over QUIC
  nats           NATS core, its own protocol
  centrifuge     the library Centrifuge, WebSocket, its binary protocol
  mochi          the library mochi-mqtt, MQTT 3.1.1, QoS 0
  mosquitto      as Debian has it, MQTT 3.1.1, QoS 0
  ejabberd       as Debian has it, MQTT 3.1.1, QoS 0

Each is one process, and one process is all clients; everything goes over TLS.
Systems take turns, each begins in an empty folder. The result is a table, or
with --json a line per row; progress goes to standard error. Nothing else should
run meanwhile; a round of all systems takes 4 minutes of fanout, 8 of idle, and 2
of rooms and of reconnect.`

func idleCommand() *cobra.Command {
	return relayCommand(kindIdle, "Measure the memory of connections that do nothing",
		`Measure how much memory a server needs for each of --clients that follow one
room in which nobody speaks: what it has in memory once they have been quiet for
--seconds, less what it had before. Servers that are a part of the bench free
what they do not use first.`)
}

func fanoutCommand() *cobra.Command {
	return relayCommand(kindFanout, "Measure messages to one room of many followers",
		`Measure one room that --clients follow: fanout-max is as fast as it goes with
--window messages on their way to the slowest follower, fanout-half is half of
that rate, and fanout-10 is 10 messages/s. Every follower must get every message
once and in order.`)
}

func roomsCommand() *cobra.Command {
	return relayCommand(kindRooms, "Measure messages to many small rooms",
		`Measure 200 rooms of 5 to 50 of the --clients each, and messages as long as in
public chat, as fast as they go with --window messages on their way.`)
}

func reconnectCommand() *cobra.Command {
	return relayCommand(kindReconnect, "Measure how soon all are back after kill -9",
		`Measure how long it takes after kill -9 of the server, which is started again at
once, until the last of --clients follows its room again and has had a message
that was sent after it had lost its connection; and how many deliveries are lost
of what one client says all the while.`)
}

func relayCommand(kind, short, long string) *cobra.Command {
	o := relayOptions{kind: kind}
	cmd := &cobra.Command{
		Use: kind, Short: short, Long: long + relaySystems,
		Example: fmt.Sprintf("  go run . %s\n  go run . %s --rounds 1 --peers starling-ws,centrifuge --json > rows.jsonl", kind, kind),
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			return relay(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.rounds, "rounds", defaultRounds, "turns of each system")
	f.StringSliceVar(&o.peers, "peers", peerNames(), "systems to measure")
	f.BoolVar(&o.json, "json", false, "write a JSON object per row instead of a table")
	f.IntVar(&o.clients, "clients", 1000, "how many clients follow")
	f.StringVar(&o.dir, "dir", "", "folder for what servers keep (default: the system's temporary folder)")
	f.StringVar(&o.edgeNode, "edge-node", "", "measure this program (default: build the one in the folder above)")
	switch kind {
	case kindIdle:
		f.Float64Var(&o.seconds, "seconds", 30, "how long to be quiet")
	case kindFanout, kindRooms:
		f.Float64Var(&o.seconds, "seconds", 8, "how long to count in each workload")
		f.DurationVar(&o.warmUp, "warm-up", 3*time.Second, "how long to send before that")
		f.IntVar(&o.window, "window", 256, "messages that are on their way")
	}
	if kind == kindFanout {
		f.IntVar(&o.size, "size", 128, "bytes of a message")
	}
	return cmd
}

func (o *relayOptions) check() error {
	if err := checkPeers(o.peers, peerNames()); err != nil {
		return err
	}
	switch {
	case o.rounds < 1 || o.rounds > maxRounds:
		return fmt.Errorf("--rounds is %d, not 1 to %d", o.rounds, maxRounds)
	case o.clients < 1 || o.clients > maxClients:
		return fmt.Errorf("--clients is %d, not 1 to %d", o.clients, maxClients)
	case o.kind != kindReconnect && !(o.seconds >= 0.1 && o.seconds <= 3600):
		return fmt.Errorf("--seconds is %v, not 0.1 to 3600", o.seconds)
	case o.warmUp < 0:
		return fmt.Errorf("--warm-up is %v", o.warmUp)
	case (o.kind == kindFanout || o.kind == kindRooms) && (o.window < 1 || o.window > maxWindow):
		return fmt.Errorf("--window is %d, not 1 to %d", o.window, maxWindow)
	case o.kind == kindFanout && (o.size < stampBytes || o.size > maxSize):
		return fmt.Errorf("--size is %d, not %d to %d", o.size, stampBytes, maxSize)
	}
	return nil
}

// publishersOfRooms are the connections that speak in many rooms.
const publishersOfRooms = 8

// work is what the options ask a crowd for.
func (o *relayOptions) work() relayWork {
	w := relayWork{Kind: o.kind, Clients: o.clients, Window: max(1, o.window), Size: o.size, Seconds: o.seconds, WarmUp: o.warmUp}
	switch o.kind {
	case kindFanout:
		w.Publishers = 1
	case kindRooms:
		w.Publishers = publishersOfRooms
	}
	return w
}

// relay measures everything that the options ask for.
func relay(ctx context.Context, o relayOptions, out, progress io.Writer) error {
	m, err := newMachine(ctx, o.dir, o.edgeNode, slices.Contains(o.peers, starlingWSName) || slices.Contains(o.peers, starlingQUICName), progress)
	if err != nil {
		return err
	}
	defer m.clean()
	var all []row
	var failed error
	encoder := json.NewEncoder(out)
	for round := range o.rounds {
		for i := range o.peers {
			system := o.peers[(round+i)%len(o.peers)]
			rows, err := m.relayTurn(ctx, fmt.Sprint(round, "-", i), system, o.work())
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			switch {
			case errors.Is(err, errMissing):
				rows = []row{{Missing: err.Error()}}
			case err != nil: // the others shall have their turns nevertheless
				rows = append(rows, row{Missing: err.Error()})
				failed = errors.Join(failed, fmt.Errorf("%s, %s: %w", system, o.kind, err))
			}
			for i := range rows {
				r := &rows[i]
				r.System, r.Round = system, round+1
				if r.Workload == "" {
					r.Workload = o.kind
				}
				fmt.Fprintln(progress, "bench:", r)
				if o.json {
					if err := encoder.Encode(r); err != nil {
						return err
					}
				}
			}
			all = append(all, rows...)
		}
	}
	if !o.json {
		failed = errors.Join(failed, printTable(out, relayColumns[o.kind], byWorkload(all)))
	}
	return failed
}
