package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/cmd/edge-node/internal/home"
	"github.com/starling-im/starling/cmd/edge-node/internal/trace"
	"github.com/starling-im/starling/edge"
	"github.com/starling-im/starling/room"
)

const (
	// traceAgain is the pause between two questions for hops, of which there are at most
	// traceAsks: until two answers are the same.
	traceAgain = 50 * time.Millisecond
	traceAsks  = 20
	// traceType is the type of the messages, and their content.
	traceType = "trace"
)

const traceLong = `Send a message to a room and say how long each hop and each way took: from the
sender to the edge, to the leader of the room's group, until it had its turn, until a
quorum had it on disk, to each node, by Raft or from another node, and to a client there.

It follows the room at one node of each region first, then at the others, 16 in all. Two
messages of type "trace" stay in the room: the first makes the ways known, the second is
traced. A room that nothing was said in yet is refused, unless --create says that it may
be made. Each line has what the step took and when it was over, in milliseconds since
the sending; the steps of a branch add up to that. Clocks of nodes that are off are
corrected as netcheck finds them.

It has three parts, each of which may take the time of --within: the nodes let it in and
it follows the room there; all have the first message; all have the second. The exit
status is 1 if a client does not have the message, also since its node does not answer.

With --id nothing is sent: it shows what the nodes remember of a trace that an app has
put into its message, or that trace itself has made. Then the times count from when the
first node took the message, and end when nodes had written it to their clients.

The keys of an operator must be at hand. The nodes remember hops for a while, in memory.
With --otlp the steps also go to a collector of OpenTelemetry (OTLP over HTTP, as JSON),
under the same trace id.`

// traceOptions are the flags of trace.
type traceOptions struct {
	userFlags
	from    string
	regions []string
	create  bool
	id      string
	otlp    string
	within  time.Duration
}

func (a *app) traceCommand() *cobra.Command {
	o := traceOptions{}
	cmd := &cobra.Command{
		Use: "trace {ROOM | --id HEX}", Short: "Send a message, and say where its time goes", GroupID: groupMesh,
		Long: traceLong,
		Example: `  edge-node trace lobby
  edge-node trace drill --create
  edge-node trace lobby --from sin --region fra,iad
  edge-node trace --id 0af7651916cd43dd8448eb211c80319c
  edge-node trace lobby --json
  edge-node trace lobby --otlp http://127.0.0.1:4318`,
		Args: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("id") {
				return noArgs(cmd, args)
			}
			return needs("ROOM")(cmd, args)
		},
		ValidArgsFunction: a.completeRoom,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(cmd.Flags().Changed); err != nil {
				return err
			}
			if len(args) == 0 {
				return a.traceOf(cmd.Context(), &o)
			}
			return a.trace(cmd.Context(), &o, args[0])
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.app, "app", "", "app (tenant) to work in (default: that of the context)")
	f.StringVar(&o.name, "as", traceType, "the user who sends and follows")
	f.StringVar(&o.from, "from", "", "region where the message is sent, and nowhere else (default: any, that of the context's first node first)")
	f.StringSliceVar(&o.regions, "region", nil, "follow the room in these regions alone")
	f.BoolVar(&o.create, "create", false, "make the room if it is not there yet")
	f.StringVar(&o.id, "id", "", "show this trace, 32 hex digits, and send nothing")
	f.StringVar(&o.otlp, "otlp", "", "http[s]://host:port of a collector of OpenTelemetry that gets the steps too")
	f.DurationVar(&o.within, "within", 10*time.Second, "how long each part may take: to come in and follow, the first message, the second")
	for _, flag := range []string{"from", "region"} {
		must(cmd.RegisterFlagCompletionFunc(flag, a.fromContext((*home.Context).Regions)))
	}
	must(cmd.RegisterFlagCompletionFunc("app", a.fromContext(appsOf)))
	return cmd
}

// check finds what is wrong with the flags without asking a mesh.
func (o *traceOptions) check(changed func(flag string) bool) error {
	for _, flag := range []string{"app", "as", "from", "region", "create", "within"} {
		if changed("id") && changed(flag) {
			return usagef("--id and --%s exclude each other: with --id nothing is sent", flag)
		}
	}
	switch id, err := hex.DecodeString(o.id); {
	case changed("id") && (err != nil || len(id) != room.TraceBytes):
		return usagef("--id is %q, not %d hex digits", o.id, 2*room.TraceBytes)
	case strings.TrimSpace(o.name) == "":
		return usagef("--as is %q, no name", o.name)
	case o.within <= 0:
		return usagef("--within is %v, not above 0", o.within)
	case o.otlp == "":
		return nil
	}
	addr, err := trace.OTLPAddr(o.otlp)
	if err != nil {
		return usagef("--otlp: %v", err)
	}
	o.otlp = addr
	return nil
}

// trace sends a message, shows what became of it, and exports that.
func (a *app) trace(ctx context.Context, o *traceOptions, room string) error {
	mesh, err := a.mesh()
	if err != nil {
		return err
	}
	m, err := a.traced(ctx, mesh, o, room)
	if err != nil {
		return err
	}
	if m.Hops, err = a.hopsOf(ctx, mesh, m.Trace); err != nil {
		return err
	}
	if err := a.showTrace(ctx, m, o.otlp); err != nil {
		return err
	}
	var lack []string
	for _, c := range m.Clients {
		if c.Got == 0 {
			lack = append(lack, c.Node)
		}
	}
	if len(lack) > 0 {
		return fmt.Errorf("no client has the message at %s", strings.Join(lack, ", "))
	}
	return nil
}

// traceOf shows what the nodes remember of a trace: of each of its messages, the first one
// first.
func (a *app) traceOf(ctx context.Context, o *traceOptions) error {
	mesh, err := a.mesh()
	if err != nil {
		return err
	}
	clocks := a.clocks(ctx, mesh)
	hops, err := a.hopsOf(ctx, mesh, strings.ToLower(o.id))
	if err != nil {
		return err
	}
	if len(hops) == 0 {
		return fmt.Errorf("no node remembers the trace %s: each keeps its newest, in memory", o.id)
	}
	known := <-clocks
	for _, m := range trace.Remembered(strings.ToLower(o.id), hops, known) {
		if err := a.showTrace(ctx, m, o.otlp); err != nil {
			return err
		}
	}
	return nil
}

// showTrace prints a trace, and exports it to a collector if there is one.
func (a *app) showTrace(ctx context.Context, m *trace.Message, otlp string) error {
	err := a.printTrace(m)
	if err == nil && otlp != "" {
		err = m.Export(ctx, otlp)
	}
	return err
}

func (a *app) printTrace(m *trace.Message) error {
	if !a.json {
		shown := *m
		shown.Room, shown.User = printable(m.Room), printable(m.User)
		shown.Hops = slices.Clone(m.Hops)
		for i := range shown.Hops {
			shown.Hops[i].User = printable(shown.Hops[i].User)
		}
		return shown.Draw(a.stdout)
	}
	return a.printJSON(struct {
		*trace.Message
		Total float64     `json:"total_ms"`
		Tree  *trace.Step `json:"tree"`
	}{m, m.Total(), m.Tree()})
}

// traced sends a message that is traced to clients at nodes, and waits until they have it.
func (a *app) traced(ctx context.Context, mesh *home.Context, o *traceOptions, room string) (*trace.Message, error) {
	token, err := mint(mesh, o.appOf(mesh), edge.Claims{User: o.name})
	if err != nil {
		return nil, err
	}
	looking, cancel := context.WithTimeout(ctx, o.within)
	defer cancel()
	clocks := a.clocks(looking, mesh)
	sender, readers, err := a.traceClients(ctx, mesh, o, room, token)
	defer closeReaders(readers)
	if err != nil {
		return nil, err
	}
	defer sender.Close()
	m := &trace.Message{Room: room, User: o.name, Clients: make([]trace.Client, len(readers))}
	for i, r := range readers {
		m.Clients[i] = trace.Client{Node: r.name(), Region: r.node.Region}
	}
	if err := a.sendTraced(ctx, sender, readers, o.within, &trace.Message{Room: room, Clients: slices.Clone(m.Clients)}); err != nil {
		return nil, err
	}
	id := [16]byte{}
	_, _ = rand.Read(id[:]) // never fails
	m.Trace = hex.EncodeToString(id[:])
	err = a.sendTraced(ctx, sender, readers, o.within, m)
	m.Clocks = <-clocks
	return m, err
}

// sendTraced sends a message, and notes when each reader has it. Those that do not have
// it in time are no error.
func (a *app) sendTraced(ctx context.Context, sender *client.Client, readers []traceReader, within time.Duration, m *trace.Message) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	id, err := traceMessage(m)
	if err != nil {
		return err
	}
	m.ID = id.ID
	var reading sync.WaitGroup
	for i, r := range readers {
		if r.err != nil {
			continue
		}
		reading.Go(func() {
			for e, err := range r.follow.Events(ctx) {
				if err != nil {
					return
				}
				if e.ID == m.ID {
					m.Clients[i].Got = time.Now().UnixMicro()
					return
				}
			}
		})
	}
	m.Sent = time.Now().UnixMicro()
	ack, err := sender.Publish(ctx, id)
	m.Acked, m.Seq = time.Now().UnixMicro(), ack.Seq
	if err != nil {
		cancel()
	}
	reading.Wait()
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("the message is not acknowledged after %v; --within gives it more time", within)
	}
	return err
}

func traceMessage(m *trace.Message) (client.Message, error) {
	is := client.Message{Room: m.Room, ID: "trace-" + rand.Text(), Type: traceType, Content: traceType}
	id, err := hex.DecodeString(m.Trace)
	copy(is.Trace[:], id)
	return is, err
}

// clocks looks at the clocks of all nodes, and says once how far they are from this one.
func (a *app) clocks(ctx context.Context, mesh *home.Context) <-chan []trace.Clock {
	nodes := mesh.Nodes[:min(len(mesh.Nodes), netcheckMax)]
	answer := make(chan []trace.Clock, 1)
	go func() {
		var mu sync.Mutex
		var asking sync.WaitGroup
		clocks := []trace.Clock{}
		for _, n := range nodes {
			asking.Go(func() {
				p, err := probeUDP(ctx, n.Addr)
				if err != nil {
					return
				}
				ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
				mu.Lock()
				defer mu.Unlock()
				clocks = append(clocks, trace.Clock{Node: p.Node, Ahead: ms(p.Clock), Within: ms(p.RTT/2 + time.Microsecond)})
			})
		}
		asking.Wait()
		slices.SortFunc(clocks, func(x, y trace.Clock) int { return cmp.Compare(x.Node, y.Node) })
		answer <- clocks
	}()
	return answer
}

// hopsOf asks all nodes for the hops of a trace, until they have no more to tell.
func (a *app) hopsOf(ctx context.Context, mesh *home.Context, id string) (hops []starling.TraceHop, err error) {
	err = a.asOperator(ctx, mesh, func(ctx context.Context, c *client.Client) error {
		var before []byte
		for range traceAsks {
			answer, err := c.Query(ctx, "trace", id)
			if err != nil {
				return err
			}
			if bytes.Equal(answer, before) {
				break
			}
			before = answer
			select {
			case <-time.After(traceAgain):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if err := json.Unmarshal(before, &hops); err != nil {
			return fmt.Errorf("the node's answer is no list of hops: %w", err)
		}
		return nil
	})
	return hops, err
}
