package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-im/starling/bench/internal/talk"
)

// harmOptions are the flags of the command harm and what is below it.
type harmOptions struct {
	rounds   int
	clients  int
	others   int
	rate     float64 // of messages, per s
	seconds  float64 // that count
	protocol string
	json     bool
	dir      string
	edgeNode string
}

// A harm is what some may do to others.
type harm struct {
	name, short, long string
	usual             harmOptions
	begin             func(ctx context.Context, m *machine, dir string, o harmOptions) (*trial, error)
}

// A trial measures half rounds: without the harm, and with it.
type trial struct {
	half func(ctx context.Context, harmed bool) ([]figure, error)
	stop func()
}

// A figure is one of a round. The ratio of those with the harm to those without is
// told of figures that are compared.
type figure struct {
	name     string
	value    float64
	compared bool
}

var harms = []harm{
	{
		"death", "One of three nodes dies, and its clients come to the others",
		`All --clients are on the node that is killed, and move to the two others, which have --others followers of another room.
The nodes that die lead neither room.`,
		harmOptions{rounds: 9, clients: 10_000, others: 400, rate: 20, seconds: 5}, beginDeath,
	},
	{
		"stalled", "Of the followers of a room, one in twenty reads no more",
		`All --clients follow one room of one node, at --rate messages/s. Those who stall take in 4 KiB, and 512 KiB more wait for
each. Later they read on, and get all.`,
		harmOptions{rounds: 9, clients: 10_000, rate: 5, seconds: 5}, beginStalled(false),
	},
	{
		"deaf", "The same over QUIC, with windows of 1 GiB, and not even acknowledging packets",
		`As stalled, over QUIC.`,
		harmOptions{rounds: 9, clients: 1000, rate: 20, seconds: 5, protocol: talk.StarlingQUIC}, beginStalled(true),
	},
	{
		"flood", "One session sends fifty times as much as it may",
		`Of --clients sessions that publish to one room each gets acks of --rate messages/s in all; another sends 1,000 a second to
the same room, with limits as in production.`,
		harmOptions{rounds: 9, clients: 40, rate: 200, seconds: 5}, beginFlood,
	},
	{
		"publishers", "Very many publish to one room, beside one that is quiet",
		`All --clients publish to one room, two messages a second each, with limits as in production. What is compared are the
deliveries in another room, in which --others listen to 10 messages/s.`,
		harmOptions{rounds: 9, clients: 1000, others: 20, rate: 2, seconds: 5}, beginPublishers,
	},
	{
		"followers", "A room has more to deliver than the node can, beside one that is quiet",
		`All --clients follow one room of one node, at --rate messages/s. What is compared are the deliveries in another room, in
which --others listen to 10 messages/s.`,
		harmOptions{rounds: 9, clients: 10_000, others: 20, rate: 100, seconds: 5}, beginFollowers,
	},
}

func harmCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "harm", Short: "Measure what some clients, or a dead node, cost the others",
		Long: `Measure what some clients, or a dead node, cost the others, round by round: a half without (A) and one with it (B), in turn.

Nodes, clients and speakers share this machine. Clients over WebSocket on TLS; more than a process may have files for are spread over two processes.`,
		Example: "  go run . harm stalled\n  go run . harm death --rounds 1 --clients 2000 --json",
	}
	for _, h := range harms {
		cmd.AddCommand(h.command())
	}
	return cmd
}

func (h harm) command() *cobra.Command {
	o := h.usual
	if o.protocol == "" {
		o.protocol = talk.StarlingWS
	}
	cmd := &cobra.Command{
		Use: h.name, Short: h.short, Long: h.short + ".\n" + h.long, Example: "  go run . harm " + h.name + " --rounds 3", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			return h.run(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.rounds, "rounds", o.rounds, "rounds, of two halves each")
	f.IntVar(&o.clients, "clients", o.clients, "how many clients")
	f.IntVar(&o.others, "others", o.others, "how many others, where they are not among the clients")
	f.Float64Var(&o.rate, "rate", o.rate, "messages per second")
	f.Float64Var(&o.seconds, "seconds", o.seconds, "how long to count in each half")
	f.StringVar(&o.protocol, "protocol", o.protocol, talk.StarlingWS+" or "+talk.StarlingQUIC)
	f.BoolVar(&o.json, "json", false, "write a JSON object per round instead of a table")
	f.StringVar(&o.dir, "dir", "", "folder for what nodes keep (default: the system's temporary folder)")
	f.StringVar(&o.edgeNode, "edge-node", "", "measure this program (default: build the one in the folder above)")
	return cmd
}

func (o *harmOptions) check() error {
	switch {
	case o.rounds < 1 || o.rounds > maxRounds:
		return fmt.Errorf("--rounds is %d, not 1 to %d", o.rounds, maxRounds)
	case o.clients < 20 || o.clients > 2*maxClients:
		return fmt.Errorf("--clients is %d, not 20 to %d", o.clients, 2*maxClients)
	case o.others < 0 || o.others > maxClients:
		return fmt.Errorf("--others is %d, not 0 to %d", o.others, maxClients)
	case !(o.rate >= 0.1 && o.rate <= 10_000):
		return fmt.Errorf("--rate is %v, not 0.1 to 10000", o.rate)
	case !(o.seconds >= 0.1 && o.seconds <= 600):
		return fmt.Errorf("--seconds is %v, not 0.1 to 600", o.seconds)
	case o.protocol != talk.StarlingWS && o.protocol != talk.StarlingQUIC:
		return fmt.Errorf("--protocol is %q, not %s or %s", o.protocol, talk.StarlingWS, talk.StarlingQUIC)
	}
	return nil
}

// run measures all rounds of a harm.
func (h harm) run(ctx context.Context, o harmOptions, out, progress io.Writer) error {
	m, err := newMachine(ctx, o.dir, o.edgeNode, true, progress)
	if err != nil {
		return err
	}
	defer m.clean()
	work := filepath.Join(m.dir, "mesh")
	if err := os.Mkdir(work, 0o700); err != nil {
		return err
	}
	t, err := h.begin(ctx, m, work, o)
	if err != nil {
		return err
	}
	defer t.stop()
	var rows [][]figure
	for round := range o.rounds {
		row, err := t.round(ctx, round)
		if err != nil {
			return fmt.Errorf("round %d: %w", round+1, err)
		}
		rows = append(rows, row)
		fmt.Fprintf(progress, "bench: %s, round %d of %d: %s\n", h.name, round+1, o.rounds, inWords(row))
		if o.json {
			if err := json.NewEncoder(out).Encode(asObject(h.name, round, row)); err != nil {
				return err
			}
		}
	}
	if o.json {
		return nil
	}
	return printHarm(out, h.name, rows)
}

// round measures both halves, each first in every other round.
func (t *trial) round(ctx context.Context, round int) (row []figure, err error) {
	var halves [2][]figure
	for i := range halves {
		harmed := (i + round) % 2
		if halves[harmed], err = t.half(ctx, harmed == 1); err != nil {
			return nil, err
		}
	}
	for i, b := range halves[1] {
		if !b.compared {
			row = append(row, b)
			continue
		}
		a := halves[0][i]
		row = append(row, figure{name: a.name + "_a", value: a.value}, figure{name: a.name + "_b", value: b.value}, figure{name: a.name + "_ratio", value: b.value / a.value})
	}
	return row, nil
}

func inWords(row []figure) string {
	var all []string
	for _, f := range row {
		all = append(all, fmt.Sprintf("%s %.4g", f.name, f.value))
	}
	return strings.Join(all, ", ")
}

func asObject(name string, round int, row []figure) map[string]any {
	all := map[string]any{"measure": name, "round": round + 1}
	for _, f := range row {
		all[f.name] = f.value
	}
	return all
}

// printHarm prints a line for each figure: the median, least and most of all rounds.
func printHarm(out io.Writer, name string, rows [][]figure) error {
	t := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintf(t, "%s\tmedian\tleast\tmost\trounds\n", strings.ToUpper(name))
	for i, f := range rows[0] {
		var values []float64
		for _, row := range rows {
			values = append(values, row[i].value)
		}
		slices.Sort(values)
		fmt.Fprintf(t, "%s\t%.4g\t%.4g\t%.4g\t%d\n", f.name, values[len(values)/2], values[0], values[len(values)-1], len(values))
	}
	return t.Flush()
}

// catchUpWithin bounds how long what was said may take to reach all.
const catchUpWithin = 60 * time.Second

// errLost is what no measurement outlives.
var errLost = errors.New("a client missed a message, or had one twice")

// whole checks that nothing was lost.
func (t tale) whole() error {
	for i, b := range t.Bands {
		if b.Lost+b.Repeated > 0 {
			return fmt.Errorf("%w: band %d, %d lost, %d twice", errLost, i, b.Lost, b.Repeated)
		}
	}
	return nil
}

// in is the time within which a share of a band's deliveries were there, in ms.
func (b bandTale) in(share float64) float64 {
	return float64(b.Times.Within(share)) / float64(time.Millisecond)
}
