package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/cmd/edge-node/internal/home"
	"github.com/starling-im/starling/cmd/edge-node/internal/load"
	"github.com/starling-im/starling/edge"
	"github.com/starling-im/starling/wire"
)

const benchLong = `Send messages to rooms of the mesh as fast as it acknowledges them, and say how
many that were a second, and how long each took.

Always exactly --window sends are unanswered, dealt evenly to the --sessions,
which connect to one node of the region after the other. Each of the rooms
belongs to one session. First every room is made and the mesh is under load for
the time of --warm-up; then what is acknowledged counts, for --seconds or until
--messages of them. A send that ends otherwise than with an ack ends the run.
With --rate so many sends begin in a second once every room is made, evenly, and
no more than --window are unanswered.

The messages stay in the mesh, in rooms whose names begin with bench/ and the
--name of the run; one name twice means the same rooms twice. With the
limits "production" the mesh holds each session to 20 sends a second; "dev" has
the limits "bench", unless told otherwise.

The times are those from a send to its ack, which means: on the disks of a
quorum. CLIENT µS is what this command, not the mesh, takes of a processor per
message.`

// benchOptions are the flags of bench.
type benchOptions struct {
	userFlags
	run      string
	rooms    int
	sessions int
	window   int
	size     int
	seconds  float64
	messages int
	rate     float64
	warmUp   time.Duration
}

// The bounds of a bench.
const (
	maxBenchRooms   = 1 << 20
	maxBenchSeconds = 24 * 60 * 60
	minBenchRate    = 0.01
	maxBenchRate    = 1_000_000
	maxBenchName    = 64
)

func (a *app) benchCommand() *cobra.Command {
	var o benchOptions
	cmd := &cobra.Command{
		Use: "bench", Short: "Measure how many messages the mesh takes", GroupID: groupMesh,
		Long: benchLong,
		Example: `  edge-node bench
  edge-node bench --rooms 1 --window 1 --seconds 5
  edge-node bench --sessions 12 --window 4096 --size 1000 --region fra
  edge-node bench --messages 100000 --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(cmd.Flags().Changed); err != nil {
				return err
			}
			return a.bench(cmd.Context(), &o)
		},
	}
	o.flags(a, cmd)
	f := cmd.Flags()
	f.StringVar(&o.run, "name", "", "name in the names of the rooms (default: one that no other run has)")
	f.IntVar(&o.rooms, "rooms", 200, "rooms to send to, in turn")
	f.IntVar(&o.sessions, "sessions", 3, "sessions that send; no more than --window are used")
	f.IntVar(&o.window, "window", 256, "sends that are unanswered at any time, of all sessions together")
	f.IntVar(&o.size, "size", 128, "bytes of each message's content")
	f.Float64Var(&o.seconds, "seconds", 10, "how long to count")
	f.IntVar(&o.messages, "messages", 0, "count until so many are acknowledged, instead of --seconds")
	f.Float64Var(&o.rate, "rate", 0, "sends that begin in a second; 0 = as many as the window lets through")
	f.DurationVar(&o.warmUp, "warm-up", 2*time.Second, "how long to send before it counts")
	return cmd
}

func (o *benchOptions) check(asked func(flag string) bool) error {
	switch {
	case o.rooms < 1 || o.rooms > maxBenchRooms:
		return usagef("--rooms is %d, not 1 to %d", o.rooms, maxBenchRooms)
	case o.sessions < 1 || o.sessions > maxSessions:
		return usagef("--sessions is %d, not 1 to %d", o.sessions, maxSessions)
	case o.window < 1 || o.window > maxWindow:
		return usagef("--window is %d, not 1 to %d", o.window, maxWindow)
	case o.size < 1 || o.size > wire.Content:
		return usagef("--size is %d, not 1 to %d", o.size, wire.Content)
	case !(o.seconds > 0 && o.seconds <= maxBenchSeconds):
		return usagef("--seconds is %v, not above 0 and up to %d", o.seconds, maxBenchSeconds)
	case o.messages < 0 || o.messages == 0 && asked("messages"):
		return usagef("--messages is %d", o.messages)
	case o.messages > 0 && asked("seconds"):
		return usagef("--seconds and --messages exclude each other")
	case o.rate != 0 && !(o.rate >= minBenchRate && o.rate <= maxBenchRate):
		return usagef("--rate is %v, not %v to %d, or 0", o.rate, minBenchRate, maxBenchRate)
	case len(o.run) > maxBenchName || o.run != printable(o.run) || asked("name") && o.run == "":
		return usagef("--name is %q, not 1 to %d bytes without control characters", o.run, maxBenchName)
	case o.warmUp < 0:
		return usagef("--warm-up is %v", o.warmUp)
	}
	o.sessions = min(o.sessions, o.window, o.rooms)
	return nil
}

// bench measures and prints what came of it.
func (a *app) bench(ctx context.Context, o *benchOptions) error {
	mesh, err := a.mesh()
	if err != nil {
		return err
	}
	clients, err := a.benchClients(ctx, mesh, o)
	defer func() {
		for _, c := range clients {
			_ = c.Close()
		}
	}()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cfg := load.Config{Targets: o.rooms, Window: o.window, Rate: o.rate, WarmUp: o.warmUp, Messages: o.messages}
	if o.messages == 0 {
		cfg.For = time.Duration(o.seconds * float64(time.Second))
	}
	names := roomNames(cmp.Or(o.run, rand.Text()), o.rooms)
	content := strings.Repeat("x", o.size)
	for _, c := range clients {
		cfg.Senders = append(cfg.Senders, func(room int, done func(error)) {
			c.Send(ctx, client.Message{Room: names[room], Content: content}, func(_ client.Ack, err error) { done(err) })
		})
	}
	var used cpuMeter
	cfg.Say = func(p load.Progress) {
		used.phase(p.Phase)
		a.benchSays(o, p)
	}
	measured, err := load.Run(ctx, cfg)
	switch {
	case errors.Is(err, context.Canceled):
		return errors.New("the bench was interrupted before it was done")
	case err != nil:
		return fmt.Errorf("the bench failed: %w", err)
	}
	return a.printBench(benchOutcome(o, measured, used))
}

// benchClients connects the sessions, each to the region's next node first.
func (a *app) benchClients(ctx context.Context, mesh *home.Context, o *benchOptions) (clients []*client.Client, err error) {
	token, err := o.tokens(mesh, edge.Claims{User: "bench"})
	if err != nil {
		return nil, err
	}
	for i := range o.sessions {
		addrs, err := mesh.AllAddrs(o.region, i)
		if err != nil {
			return clients, err
		}
		c, err := a.dial(ctx, mesh, connection{addrs: addrs, token: token, inFlight: o.window})
		if err != nil {
			return clients, err
		}
		clients = append(clients, c)
	}
	return clients, nil
}

// roomNames names the rooms of one run.
func roomNames(run string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("bench/%s/%d", run, i)
	}
	return names
}

// benchSays reports a phase, and how far the counting is. Programs that watch
// the nodes while it counts wait for these lines.
func (a *app) benchSays(o *benchOptions, p load.Progress) {
	text := ""
	switch {
	case p.Phase == load.Making:
		text = fmt.Sprintf("%.1f s, %d of %s made", p.Took.Seconds(), p.Messages, plural(o.rooms, "room"))
	case p.Phase == load.WarmingUp:
		text = fmt.Sprintf("%s made in %.1f s, warming up for %v", plural(o.rooms, "room"), p.Took.Seconds(), o.warmUp)
	case p.Phase == load.Done:
		text = "done counting"
	case p.Took == 0:
		text = "counting"
	default:
		text = fmt.Sprintf("%.1f s, %d messages, %.0f per second", p.Took.Seconds(), p.Messages, float64(p.Messages)/p.Took.Seconds())
	}
	fmt.Fprintln(a.stderr, "bench:", text)
}

// cpuMeter measures the processor time of this process while it counts.
type cpuMeter struct {
	from, used time.Duration
	known      bool
}

func (m *cpuMeter) phase(p load.Phase) {
	now, ok := processorTime()
	switch {
	case p == load.Done:
		m.used, m.known = now-m.from, ok
	case m.from == 0 && p == load.Counting:
		m.from = now
	}
}

// benchResult is what came of a bench; times of acks are in ms.
type benchResult struct {
	PerSecond float64 `json:"per_s"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
	Longest   float64 `json:"longest_ms"`
	Messages  int     `json:"messages"`
	Seconds   float64 `json:"seconds"`
	// Made is how long it took until each room had had its first message, in s.
	Made float64 `json:"made_s"`
	// CPU is the processor time of this process in s; nil = not known here.
	CPU      *float64 `json:"client_cpu_s,omitempty"`
	Size     int      `json:"size"`
	Rooms    int      `json:"rooms"`
	Sessions int      `json:"sessions"`
	Window   int      `json:"window"`
}

func benchOutcome(o *benchOptions, m load.Result, used cpuMeter) benchResult {
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	r := benchResult{
		PerSecond: float64(m.Messages) / m.Took.Seconds(), Messages: m.Messages, Seconds: m.Took.Seconds(),
		P50: ms(m.Times.Within(0.5)), P99: ms(m.Times.Within(0.99)), Longest: ms(m.Times.Longest()),
		Made: m.Made.Seconds(), Size: o.size, Rooms: o.rooms, Sessions: o.sessions, Window: o.window,
	}
	if used.known {
		s := used.used.Seconds()
		r.CPU = &s
	}
	return r
}

// printBench writes a table, or one object.
func (a *app) printBench(r benchResult) error {
	if a.json {
		return a.printJSON(r)
	}
	cpu := "-"
	if r.CPU != nil && r.Messages > 0 {
		cpu = fmt.Sprintf("%.1f", *r.CPU*1e6/float64(r.Messages))
	}
	fmt.Fprintf(a.stdout, "%s of %d bytes to %s in %.1f s, %d in flight over %s\n\n",
		plural(r.Messages, "message"), r.Size, plural(r.Rooms, "room"), r.Seconds, r.Window, plural(r.Sessions, "session"))
	w := tabwriter.NewWriter(a.stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "PER SECOND\tP50 MS\tP99 MS\tLONGEST MS\tCLIENT µS")
	fmt.Fprintf(w, "%.0f\t%.2f\t%.2f\t%.2f\t%s\n", r.PerSecond, r.P50, r.P99, r.Longest, cpu)
	return w.Flush()
}
