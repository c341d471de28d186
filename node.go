package starling

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/starling-im/starling/consensus"
	"github.com/starling-im/starling/directory"
	"github.com/starling-im/starling/edge"
	"github.com/starling-im/starling/geo"
	"github.com/starling-im/starling/mesh"
	"github.com/starling-im/starling/relay"
)

// Env is what a node gets from the process that it runs in.
type Env struct {
	// Conn is the one UDP socket of the node; Run closes it.
	Conn net.PacketConn
	// HTTP is the TCP port: it serves /healthz and /metrics, and links where UDP does not
	// get through; nil = none. Run closes it.
	HTTP net.Listener
	// DialTCP connects to other nodes by TCP where UDP does not get through, or as the
	// proxy of the configuration wants it; nil = links are over UDP only.
	DialTCP func(ctx context.Context, addr string) (net.Conn, error)
	// Admin is the socket of commands on the same machine, see AdminSocket; nil =
	// none. Run closes it.
	Admin net.Listener
	// FS holds the data; nil = the operating system's.
	FS      consensus.FS
	Log     *slog.Logger
	Version string
}

// Node is one member of the mesh. Use New, then Run.
type Node struct {
	cfg         Config
	env         Env
	log         *slog.Logger
	logs        *logs
	conn        net.PacketConn // env.Conn, perhaps with delays
	credentials credentials
	secret      []byte // that all nodes of the cluster share
	mesh        *mesh.Mesh
	host        *consensus.Host
	hub         *relay.Hub
	// admission bounds the sends of all clients together.
	admission  *relay.Admission
	signals    *relay.Signals
	door       *edge.Door
	links      *links
	histories  *histories
	dir        *keeper
	places     *places
	settler    settler
	reconciler *reconciler
	hints      hints
	hashes     hashes
	flights    flights
	departures departures
	drain      *drain
	ways       ways
	tracer     *tracer
	root       root
	// aggregated is called for each aggregate that goes to a node; for tests.
	aggregated func(node string, about relay.Subject)
	sent       counters // events that relay sessions sent to other nodes
	// unsent is the most bytes that ever waited for one client.
	unsent atomic.Int64
	fail   context.CancelCauseFunc
	ready  chan struct{} // closed when host is set
	since  int64         // when the node was made, Unix ms
}

// New checks the configuration and returns a node that is not running.
func New(cfg Config, env Env) (*Node, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if env.Log == nil {
		env.Log = slog.New(slog.DiscardHandler)
	}
	n := &Node{cfg: cfg, env: env, logs: newLogs(), ready: make(chan struct{}), since: time.Now().UnixMilli()}
	n.log = slog.New(n.logs.handler(env.Log.Handler())).With("node", cfg.Node)
	n.flights.abroad = make(chan struct{}, 1)
	n.tracer = newTracer(cfg.Node, cfg.Region)
	n.hub = relay.NewHub(relay.HubConfig{Feed: (*feed)(n), Traced: n.tracer.wrote})
	n.admission = relay.NewAdmission(cfg.admission())
	n.signals = n.newSignals()
	n.dir = newKeeper(n)
	n.places = newPlaces(n)
	n.settler.node = n
	n.root.node, n.root.first = n, cfg.directoryVoters()
	n.reconciler = newReconciler(n)
	n.ways.begin()
	n.links = newLinks(n)
	n.histories = newHistories(n)
	n.drain = newDrain(n)
	var err error
	if n.secret, err = readKey(cfg.GossipKey); err != nil {
		return nil, err
	}
	n.door = edge.New(edge.Config{
		Node: cfg.Node, Region: cfg.Region, SystemApp: directory.SystemApp, Secret: n.secret, Serve: n.serveSession, Closed: n.drain.closed,
		Key: n.dir.key, InFlight: cfg.sessionLimits().InFlight, TokenLife: cfg.tokenLife(), Log: n.log,
	})
	if err := n.dir.load(); err != nil {
		return nil, err
	}
	m, err := n.newMesh()
	if err != nil {
		return nil, err
	}
	n.mesh = m
	return n, nil
}

func (n *Node) newMesh() (*mesh.Mesh, error) {
	if err := n.credentials.load(n.cfg); err != nil {
		return nil, &ConfigError{"tls", err.Error()}
	}
	conn := n.env.Conn
	if n.cfg.WAN {
		conn = newWAN(conn, n.cfg)
	}
	n.conn = conn
	m, err := mesh.New(mesh.Config{
		Node: n.cfg.Node, Region: n.cfg.Region, Cluster: n.cfg.Cluster, Advertise: n.cfg.addr(),
		Conn: conn, Credentials: n.credentials.identity(), Secret: n.secret, GossipKeys: n.gossipKeys(n.dir.state()),
		Peers: n.firstMembers(), Seeds: n.cfg.Seeds, Enroll: n.enroll,
		Outbound: n.cfg.Reachability == ReachOutbound, DialTCP: n.env.DialTCP, TCPOnly: n.cfg.Proxy != "",
		Version: n.env.Version, Clients: n.door.ServeQUIC, Log: n.log,
	})
	if err != nil {
		return nil, err
	}
	m.Handle(mesh.StreamRaft, func(_ context.Context, node string, s *mesh.Stream) { n.serveRaft(node, s, (*consensus.Host).Serve) })
	m.Handle(mesh.StreamSnapshot, func(_ context.Context, node string, s *mesh.Stream) {
		n.serveRaft(node, s, (*consensus.Host).ServeSnapshot)
	})
	m.Handle(mesh.StreamRelay, n.serveRelay)
	m.Handle(mesh.StreamHistory, n.serveHistory)
	return m, nil
}

// Run runs the node until ctx ends or it has drained, which is a clean stop and returns
// nil, or until it must not go on: then the error says why.
func (n *Node) Run(ctx context.Context) error {
	ctx, n.fail = context.WithCancelCause(ctx)
	defer n.fail(nil)
	n.admit(directory.New(geo.Rank), n.dir.state())
	defer n.conn.Close()
	if n.env.HTTP != nil {
		defer n.env.HTTP.Close()
	}
	host, err := consensus.Open(consensus.Config{
		Node: n.cfg.Node, Dir: n.cfg.Data, FS: n.env.FS, NoSync: n.cfg.NoSync,
		Machine: n.newMachine, Dial: n.dialRaft, Join: n.join, Left: n.departures.left, Nodes: n.names, RTT: n.mesh.LeastRTT, Log: n.log,
		Fatal: func(err error) {
			n.fail(fmt.Errorf("the disk failed, and a node that is unsure of its log must not go on: %w", err))
		},
	})
	if err != nil {
		return err
	}
	n.host = host
	n.places.begin(ctx)
	n.histories.begin(ctx)
	close(n.ready)

	var parts sync.WaitGroup
	parts.Go(func() {
		if err := n.mesh.Run(ctx); err != nil && ctx.Err() == nil {
			n.fail(err)
		}
	})
	parts.Go(func() { n.links.run(ctx) })
	parts.Go(func() { n.signals.Run(ctx) })
	parts.Go(func() { n.dir.run(ctx) })
	parts.Go(func() { n.root.run(ctx) })
	parts.Go(func() { n.keepCertificate(ctx) })
	parts.Go(func() { n.reconciler.run(ctx) })
	parts.Go(func() { n.drain.run(ctx) })
	parts.Go(func() { n.keepLeaving(ctx) })
	parts.Go(func() { n.askWays(ctx) })
	parts.Go(func() { n.flights.run(ctx, n.way, n.seekLeader) })
	if n.env.HTTP != nil {
		parts.Go(func() { n.serveHTTP(ctx) })
	}
	if n.env.Admin != nil {
		parts.Go(func() { n.serveAdmin(ctx) })
	}
	<-ctx.Done()
	n.hub.Close()
	parts.Wait() // clients are gone: nobody reads or proposes any more
	n.places.running.Wait()
	n.histories.running.Wait()
	err = host.Close()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.Is(cause, errGone) {
		return cause
	}
	return err
}

// Stats are a node's own figures.
type Stats struct {
	// Ready: the node knows the directory, so it can tell who its clients are, and
	// it does not drain.
	Ready    bool `json:"ready"`
	Draining bool `json:"draining,omitzero"`
	Sessions int  `json:"sessions"`
	// MaxUnsentBytes is the most that ever waited for one client.
	MaxUnsentBytes int64 `json:"max_unsent_bytes"`
	// TailBytes is what followed rooms keep in memory.
	TailBytes int64 `json:"tail_bytes"`
}

// Stats returns the node's figures of now.
func (n *Node) Stats() Stats {
	draining := n.drain.closed() != nil
	return Stats{
		Ready: n.dir.state().Version() > 0 && !draining, Draining: draining, Sessions: n.door.Sessions(),
		MaxUnsentBytes: n.unsent.Load(), TailBytes: n.hub.Bytes(),
	}
}

// serveSession returns what serves a client that the door let in.
func (n *Node) serveSession(c edge.Client) (run func(context.Context) error) {
	var events func(context.Context) (relay.Stream, error)
	if c.Events != nil {
		events = func(ctx context.Context) (relay.Stream, error) { return c.Events(ctx) }
	}
	return relay.NewSession(relay.SessionConfig{
		Peer:   relay.Peer{App: c.App, User: c.User, ActAs: c.ActAs, Operator: c.Operator},
		Frames: c.Frames, Replies: c.Commands, Until: c.Until,
		Events: events, Datagram: c.Datagram,
		Going: n.drain.going, Goaway: n.drain.goaway,
		Hub: n.hub, Backend: (*backend)(n), Limits: n.cfg.sessionLimits(), Admission: n.admission, Signals: n.signals,
		Sent: func(_, unsent int) { n.noteUnsent(int64(unsent)) },
	}).Run
}

func (n *Node) noteUnsent(bytes int64) {
	for {
		most := n.unsent.Load()
		if bytes <= most || n.unsent.CompareAndSwap(most, bytes) {
			return
		}
	}
}

// serveRaft serves a stream of Raft messages, once there is a host.
func (n *Node) serveRaft(node string, s *mesh.Stream, serve func(*consensus.Host, string, consensus.Stream) error) {
	defer s.Close()
	<-n.ready
	if err := serve(n.host, node, s); err != nil {
		n.log.Debug("raft stream ended", "peer", node, "err", err)
	}
}

func (n *Node) dialRaft(ctx context.Context, node string, snapshot bool) (consensus.Stream, error) {
	kind := mesh.StreamRaft
	if snapshot {
		kind = mesh.StreamSnapshot
	}
	return n.mesh.Open(ctx, node, kind)
}
