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
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/cmd/edge-node/internal/home"
	"github.com/starling-im/starling/cmd/edge-node/internal/trace"
	"github.com/starling-im/starling/edge"
)

const (
	// traceNodes bounds the nodes at which the room is followed.
	traceNodes = 16
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
traced. Each line has what the step took and when it was over, in milliseconds since
the sending; the steps of a branch add up to that. Clocks of nodes that are off are
corrected as netcheck finds them.

The keys of an operator must be at hand. The nodes remember hops for a while, in memory.
With --otlp the steps also go to a collector of OpenTelemetry (OTLP over HTTP, as JSON),
under the same trace id.`

// traceOptions are the flags of trace.
type traceOptions struct {
	userFlags
	from   string
	otlp   string
	within time.Duration
}

func (a *app) traceCommand() *cobra.Command {
	o := traceOptions{}
	cmd := &cobra.Command{
		Use: "trace ROOM", Short: "Send a message, and say where its time goes", GroupID: groupMesh,
		Long:    traceLong,
		Example: "  edge-node trace lobby\n  edge-node trace lobby --from sin --region fra\n  edge-node trace lobby --json\n  edge-node trace lobby --otlp http://127.0.0.1:4318",
		Args:    needs("ROOM"), ValidArgsFunction: a.completeRoom,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.within <= 0 {
				return usagef("--within is %v, not above 0", o.within)
			}
			if o.otlp != "" {
				addr, err := trace.OTLPAddr(o.otlp)
				if err != nil {
					return usagef("--otlp: %v", err)
				}
				o.otlp = addr
			}
			return a.trace(cmd.Context(), &o, args[0])
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.app, "app", "", "app (tenant) to work in (default: that of the context)")
	f.StringVar(&o.name, "as", traceType, "the user who sends and follows")
	f.StringVar(&o.from, "from", "", "region where the message is sent (default: that of the context's first node)")
	f.StringVar(&o.region, "region", "", "follow the room in this region alone")
	f.StringVar(&o.otlp, "otlp", "", "http[s]://host:port of a collector of OpenTelemetry that gets the steps too")
	f.DurationVar(&o.within, "within", 10*time.Second, "how long to wait until all have the message")
	for _, flag := range []string{"from", "region"} {
		must(cmd.RegisterFlagCompletionFunc(flag, a.fromContext((*home.Context).Regions)))
	}
	must(cmd.RegisterFlagCompletionFunc("app", a.fromContext(appsOf)))
	return cmd
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
	if err := a.showTrace(m); err != nil {
		return err
	}
	if o.otlp != "" {
		if err := m.Export(ctx, o.otlp); err != nil {
			return err
		}
	}
	if late := slices.IndexFunc(m.Clients, func(c trace.Client) bool { return c.Got == 0 }); late >= 0 {
		return fmt.Errorf("the client at %s does not have the message after %v", m.Clients[late].Node, o.within)
	}
	return nil
}

func (a *app) showTrace(m *trace.Message) error {
	if !a.json {
		m.Room = printable(m.Room)
		return m.Draw(a.stdout)
	}
	return a.printJSON(struct {
		*trace.Message
		Total float64     `json:"total_ms"`
		Tree  *trace.Step `json:"tree"`
	}{m, m.Total(), m.Tree()})
}

// traced sends a message that is traced to clients at nodes, and waits until they have it.
func (a *app) traced(ctx context.Context, mesh *home.Context, o *traceOptions, room string) (*trace.Message, error) {
	addrs, err := mesh.AllAddrs(o.from, 0)
	if err != nil {
		return nil, err
	}
	token, err := mint(mesh, o.appOf(mesh), edge.Claims{User: o.name})
	if err != nil {
		return nil, err
	}
	sender, err := a.dial(ctx, mesh, connection{addrs: addrs, token: token})
	if err != nil {
		return nil, err
	}
	defer sender.Close()
	ctx, cancel := context.WithTimeout(ctx, dialWithin+2*o.within)
	defer cancel()
	readers, err := a.traceReaders(ctx, mesh, o, room, token)
	defer closeReaders(readers)
	if err != nil {
		return nil, err
	}
	m := &trace.Message{Room: room, User: o.name, Clients: make([]trace.Client, len(readers))}
	for i, r := range readers {
		m.Clients[i] = trace.Client{Node: r.node.ID, Region: r.node.Region}
	}
	clocks := a.clocks(ctx, mesh)
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

// traceReader is a client that follows the room at one node.
type traceReader struct {
	node   home.Node
	client *client.Client
	follow *client.Follow
}

func closeReaders(readers []traceReader) {
	for _, r := range readers {
		_ = r.client.Close()
	}
}

// traceReaders follow the room at nodes. One that does not answer is passed over.
func (a *app) traceReaders(ctx context.Context, mesh *home.Context, o *traceOptions, room string, token func(context.Context) (string, error)) ([]traceReader, error) {
	nodes := traceAt(mesh.Nodes, o.region)
	if len(nodes) == 0 {
		return nil, fmt.Errorf("context %q has no region %q", mesh.Name, o.region)
	}
	all := make([]traceReader, len(nodes))
	var dialling sync.WaitGroup
	for i, node := range nodes {
		dialling.Go(func() {
			c, err := a.dial(ctx, mesh, connection{addrs: []string{node.Addr}, token: token})
			if err != nil {
				return
			}
			f, err := c.FollowFromHead(ctx, room)
			if err != nil {
				_ = c.Close()
				return
			}
			all[i] = traceReader{node, c, f}
		})
	}
	dialling.Wait()
	readers := slices.DeleteFunc(slices.Clone(all), func(r traceReader) bool { return r.client == nil })
	for i, r := range all {
		if r.client == nil {
			a.warn(fmt.Sprintf("the room cannot be followed at %s", cmp.Or(nodes[i].ID, nodes[i].Addr)))
		}
	}
	if len(readers) == 0 {
		return nil, errors.New("the room cannot be followed at any node")
	}
	return readers, nil
}

// traceAt chooses nodes: one of each region, then the others.
func traceAt(nodes []home.Node, region string) []home.Node {
	var first, more []home.Node
	seen := map[string]bool{}
	for _, n := range nodes {
		switch {
		case region != "" && n.Region != region:
		case seen[n.Region]:
			more = append(more, n)
		default:
			seen[n.Region] = true
			first = append(first, n)
		}
	}
	all := append(first, more...)
	return all[:min(len(all), traceNodes)]
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
