package starling

import (
	"context"
	"net"
	"net/http"

	"github.com/starling-im/starling/directory"
	"github.com/starling-im/starling/mesh"
	"github.com/starling-im/starling/relay"
	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// ID returns the node's id.
func (n *Node) ID() string { return n.cfg.Node }

// HoldDirectory calls hold before each change that the node's copy of the
// directory takes in. To be called before Run.
func (n *Node) HoldDirectory(hold func()) { n.dir.hold = hold }

// MakeWithoutAsking makes rooms where they belong now, whatever may be where they
// belonged before. To be called before Run.
func (n *Node) MakeWithoutAsking() {
	n.places.ask = func(context.Context, uint32, room.ID, uint64) (found, error) { return found{}, nil }
}

// Change changes the directory.
func (n *Node) Change(ctx context.Context, id string, c directory.Change) error {
	<-n.ready
	return n.dir.change(ctx, id, "operator", c)
}

// Directory returns the node's copy.
func (n *Node) Directory() *directory.State { return n.dir.state() }

// FirstRoot returns the first voters of the directory's group.
func (n *Node) FirstRoot() []string { return n.root.first }

// Operate asks the node as an operator.
func (n *Node) Operate(ctx context.Context, what string, args ...string) ([]byte, error) {
	<-n.ready
	return n.query(ctx, relay.Peer{App: directory.SystemApp, User: "op", Operator: true}, &wire.Query{What: what, Args: args})
}

// Entries returns the index of the last applied entry of a group on this node.
func (n *Node) Entries(group uint32) uint64 {
	for _, s := range n.host.Status() {
		if s.ID == group {
			return s.Applied
		}
	}
	return 0
}

// OnAggregate calls each for each aggregate that the node sends. To be called before Run.
func (n *Node) OnAggregate(each func(node string, about relay.Subject)) { n.aggregated = each }

// Signals returns the counts of what became of signals.
func (n *Node) Signals() relay.SignalStats { return n.signals.Stats() }

// ServeHTTP has the node serve its TCP port on l. To be called before Run.
func (n *Node) ServeHTTP(l net.Listener) { n.env.HTTP = l }

// Metrics answers GET /metrics.
func (n *Node) Metrics() http.Handler { return n.serveMetrics() }

// OnFed calls each for each frame of events that comes to the node from another one that
// it follows. To be called before Run.
func (n *Node) OnFed(each func(from string, events [][]byte)) { n.fed = each }

// OnWritten calls each for each write of frames of events to another node, with its size and
// that of what waits before it, in bytes. To be called before Run.
func (n *Node) OnWritten(each func(to string, bytes int)) { n.written = each }

// Traffic returns what has gone between the node and others.
func (n *Node) Traffic() []mesh.Traffic { return n.mesh.Stats().Traffic }

// Serve serves a user over conn as a door does, who may follow as much as he likes.
func (n *Node) Serve(ctx context.Context, conn net.Conn, app, user string) error {
	<-n.ready
	return relay.NewSession(relay.SessionConfig{
		Peer: relay.Peer{App: app, User: user}, Frames: wire.NewReader(conn, wire.ClientFrame), Replies: conn,
		Hub: n.hub, Backend: (*backend)(n), Limits: relay.Limits{Follows: linkFollows, Asks: linkAsks},
	}).Run(ctx)
}

// Histories returns the sessions for pages that are open.
func (n *Node) Histories() int {
	n.histories.mu.Lock()
	defer n.histories.mu.Unlock()
	return len(n.histories.all)
}

// WithoutHistories makes the node one of an older release. To be called before Run.
func (n *Node) WithoutHistories() { n.mesh.Handle(mesh.StreamHistory, nil) }
