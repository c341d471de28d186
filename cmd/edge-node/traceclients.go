package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/cmd/edge-node/internal/home"
	"github.com/starling-im/starling/wire"
)

// traceNodes bounds the nodes at which the room of a trace is followed.
const traceNodes = 16

// senderAt returns where a message is to be sent: in the region that was asked for.
func senderAt(mesh *home.Context, from string) ([]string, error) {
	all, err := mesh.AllAddrs(from, 0)
	if err != nil || from == "" {
		return all, err
	}
	return mesh.Addrs(from, 0), nil
}

// traceClients are who sends and who follows: all come in at the same time.
func (a *app) traceClients(ctx context.Context, mesh *home.Context, o *traceOptions, room string, token func(context.Context) (string, error)) (sender *client.Client, readers []traceReader, err error) {
	addrs, err := senderAt(mesh, o.from)
	if err != nil {
		return nil, nil, err
	}
	nodes := traceAt(mesh.Nodes, o.regions)
	for _, region := range o.regions {
		if !slices.Contains(mesh.Regions(), region) {
			return nil, nil, fmt.Errorf("context %q has no region %q; it has %s", mesh.Name, region, strings.Join(mesh.Regions(), ", "))
		}
	}
	late := time.AfterFunc(lateAfter, func() {
		fmt.Fprintf(a.stderr, "edge-node: waiting: not all nodes have answered yet; --within gives them %v\n", o.within)
	})
	defer late.Stop()
	var sending error
	var dialling sync.WaitGroup
	dialling.Go(func() {
		sender, sending = a.dial(ctx, mesh, connection{addrs: addrs, token: token, within: o.within})
	})
	readers = a.traceReaders(ctx, mesh, o, nodes, room, token)
	dialling.Wait()
	switch {
	case sending == nil:
		err = refuseRoom(readers, o.create, room)
	case o.from != "":
		err = fmt.Errorf("the message cannot be sent from %s: name another region with --from, or give it more time with --within: %w", o.from, sending)
	default:
		err = fmt.Errorf("the message cannot be sent: give it more time with --within: %w", sending)
	}
	if err != nil && sender != nil {
		_ = sender.Close()
	}
	return sender, readers, err
}

// refuseRoom says why no message is sent to a room: it is followed nowhere, or it is not
// there and must not be made.
func refuseRoom(readers []traceReader, create bool, room string) error {
	some := false
	for _, r := range readers {
		if r.err == nil {
			some = true
			if create || r.follow.Head() > 0 {
				return nil
			}
		}
	}
	if !some {
		return errors.New("the room cannot be followed at any node: --within gives them more time")
	}
	return fmt.Errorf("there is no room %q: look for its name with edge-node rooms, or say --create", room)
}

// traceReader is a client that follows the room at one node, or why there is none.
type traceReader struct {
	node   home.Node
	client *client.Client
	follow *client.Follow
	err    error
}

// name is that of the reader's node.
func (r traceReader) name() string { return cmp.Or(r.node.ID, r.node.Addr) }

func closeReaders(readers []traceReader) {
	for _, r := range readers {
		if r.client != nil {
			_ = r.client.Close()
		}
	}
}

// traceReaders follow the room at nodes.
func (a *app) traceReaders(ctx context.Context, mesh *home.Context, o *traceOptions, nodes []home.Node, room string, token func(context.Context) (string, error)) []traceReader {
	ctx, cancel := context.WithTimeoutCause(ctx, o.within, fmt.Errorf("%w within %v", errNoAnswer, o.within))
	defer cancel()
	readers := make([]traceReader, len(nodes))
	var dialling sync.WaitGroup
	for i, node := range nodes {
		dialling.Go(func() {
			r := traceReader{node: node}
			r.client, r.err = a.dial(ctx, mesh, connection{addrs: []string{node.Addr}, token: token, within: o.within})
			if r.err == nil {
				r.follow, r.err = r.client.FollowFromHead(ctx, room)
			}
			readers[i] = r
		})
	}
	dialling.Wait()
	for _, r := range readers {
		if r.err != nil {
			a.warn(fmt.Sprintf("the room cannot be followed at %s: %s", r.name(), r.why()))
		}
	}
	return readers
}

// why says shortly why there is no client.
func (r traceReader) why() string {
	var said *wire.Error
	switch {
	case errors.As(r.err, &said):
		return said.Error()
	case errors.Is(r.err, errNoAnswer):
		return errNoAnswer.Error()
	}
	return oneLine(r.err)
}

// traceAt chooses nodes of regions, none = all: one of each, then the others.
func traceAt(nodes []home.Node, regions []string) []home.Node {
	var first, more []home.Node
	seen := map[string]bool{}
	for _, n := range nodes {
		switch {
		case len(regions) > 0 && !slices.Contains(regions, n.Region):
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
