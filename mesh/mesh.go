package mesh

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/quic-go/quic-go"

	"github.com/starling-im/starling/identity"
)

// Config says who a node is and whom it trusts.
type Config struct {
	// Node, Region and Cluster are 1 to 63 letters, digits, '-', '_' or '.'.
	Node, Region, Cluster string
	// Advertise is the host:port at which others reach this node.
	Advertise string
	// Conn is the one socket. It is the caller's to close, after Run.
	Conn net.PacketConn
	// Credentials name the node as a SPIFFE id, and say whose peers it believes.
	// Renew replaces the certificate.
	Credentials identity.Credentials
	// Secret is that of the cluster: 32 bytes. The keys that all nodes share for
	// ever are derived from it.
	Secret []byte
	// GossipKeys are 16, 24 or 32 bytes each: gossip is sent with the first, and
	// understood with each. SetGossipKeys replaces them.
	GossipKeys [][]byte
	// Seeds are addresses of nodes that may know the mesh. Peers are nodes that
	// a link is kept to even before gossip has told of them; their addresses
	// are seeds too.
	Seeds []string
	Peers []Member
	// Outbound says that nobody can dial this node: it dials all others, and those that
	// neither it nor they can dial are reached over nodes that it has a link to.
	Outbound bool
	// DialTCP connects to a node's port by TCP, for links where UDP does not get through;
	// nil = they are over UDP only. TCPOnly: UDP is not tried.
	DialTCP func(ctx context.Context, addr string) (net.Conn, error)
	TCPOnly bool
	// Version is the version of the program, for others to see.
	Version string
	// Clients serves one client's connection and closes it, from a goroutine that begin
	// runs if it likes; ctx ends with the mesh, which waits.
	Clients func(ctx context.Context, c *quic.Conn, begin func(func()))
	// Enroll answers who wants to become a node, and has no certificate yet. nil =
	// nobody can here.
	Enroll func(ctx context.Context, remote net.Addr, request []byte) []byte
	// Refused is told of each peer that was refused; err is one of this package's.
	Refused func(remote net.Addr, err error)
	Log     *slog.Logger
}

func (c Config) check() error {
	err := errors.Join(identity.CheckName("cluster", c.Cluster), identity.CheckName("node", c.Node), identity.CheckName("region", c.Region))
	switch {
	case err != nil:
		return err
	case c.Conn == nil:
		return errors.New("mesh: Config.Conn is missing")
	case c.TCPOnly && c.DialTCP == nil:
		return errors.New("mesh: Config.TCPOnly without DialTCP")
	case c.Outbound && len(c.Advertise) > metaAddrOutbound:
		return fmt.Errorf("mesh: Config.Advertise of an outbound node is longer than %d bytes", metaAddrOutbound)
	case len(c.Advertise) > metaAddr || len(c.Version) > nameMax:
		return fmt.Errorf("mesh: Config.Advertise or Version is longer than %d or %d bytes", metaAddr, nameMax)
	case len(c.Secret) != 32:
		return fmt.Errorf("%w: Config.Secret has %d bytes, not 32", ErrGossipKey, len(c.Secret))
	case len(c.GossipKeys) == 0:
		return fmt.Errorf("%w: Config.GossipKeys are missing", ErrGossipKey)
	case c.Credentials.Roots == nil:
		return fmt.Errorf("%w: Config.Credentials are missing", ErrNoCertificate)
	}
	if _, _, err := net.SplitHostPort(c.Advertise); err != nil {
		return fmt.Errorf("mesh: Config.Advertise %q: %w", c.Advertise, err)
	}
	return c.checkCert(c.Credentials.Cert)
}

// checkCert makes sure that a certificate is this node's.
func (c Config) checkCert(cert tls.Certificate) error {
	if cert.Leaf == nil {
		return fmt.Errorf("%w: there is none", ErrNoCertificate)
	}
	name, err := identity.NameOf(cert.Leaf, c.Cluster)
	switch {
	case err != nil:
		return err
	case name.Node != c.Node:
		return fmt.Errorf("%w: the certificate is of %s, not of %s", ErrOtherNode, name.Node, c.Node)
	case name.Region != c.Region:
		return fmt.Errorf("%w: the certificate is for %q, not for %q", ErrOtherRegion, name.Region, c.Region)
	}
	return nil
}

// Mesh is one node's part in the mesh. Its methods are safe for concurrent use.
type Mesh struct {
	cfg      Config
	log      *slog.Logger
	seeds    []string
	handlers map[byte]Handler
	table    *table
	resolver resolver
	cert     atomic.Pointer[tls.Certificate]
	admitted atomic.Pointer[Admission]
	gossip   *gossip
	keyring  *memberlist.Keyring
	tunnels  *tunnels

	transport  *quic.Transport
	wg         sync.WaitGroup // all of Run's goroutines
	large      sync.Map       // *quic.Conn of links, whose windows may grow
	handshakes handshakes
	tickets    tickets
	meter      meter

	mu            sync.Mutex // guards what follows, and the attempts
	refusals      int        // since the last line about them
	refusalLogged time.Time
}

// New checks the configuration. It starts nothing.
func New(cfg Config) (*Mesh, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	m := &Mesh{cfg: cfg, log: cfg.Log, handlers: make(map[byte]Handler), seeds: slices.Clone(cfg.Seeds)}
	var peers []Member
	for _, p := range cfg.Peers {
		if p.ID == cfg.Node {
			continue
		}
		if err := identity.CheckName("peer", p.ID); err != nil {
			return nil, err
		}
		peers, m.seeds = append(peers, p), append(m.seeds, p.Addr)
	}
	m.seeds = slices.DeleteFunc(m.seeds, func(addr string) bool { return addr == "" || addr == cfg.Advertise })
	slices.Sort(m.seeds)
	m.seeds = slices.Compact(m.seeds)
	m.table = newTable(m.Self(), peers)
	m.cert.Store(&cfg.Credentials.Cert)
	m.admitted.Store(&Admission{})
	m.gossip = newGossip(m)
	ring, err := memberlist.NewKeyring(cfg.GossipKeys, cfg.GossipKeys[0])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrGossipKey, err)
	}
	m.keyring = ring
	m.tickets.secret = cfg.Secret
	m.transport = m.newTransport()
	m.tunnels = newTunnels(m)
	return m, nil
}

// Self is this node.
func (m *Mesh) Self() Member {
	return Member{ID: m.cfg.Node, Region: m.cfg.Region, Addr: m.cfg.Advertise, State: Alive, Version: m.cfg.Version, Outbound: m.cfg.Outbound}
}

// View returns the mesh as it is known now.
func (m *Mesh) View() *View { return m.table.view.Load() }

// Handle sets who serves the streams of a kind that others open. It must be
// called before Run.
func (m *Mesh) Handle(kind byte, h Handler) { m.handlers[kind] = h }

// Run takes part in the mesh until ctx ends, and then says goodbye. It returns
// within 1.5 s of that, after the last of its goroutines; only a probe of
// memberlist's may be in its last wait. An error means that it could not start.
func (m *Mesh) Run(ctx context.Context) error {
	net := newGossipNet(m)
	defer net.stop()
	m.handlers[StreamGossip], m.handlers[StreamKeys] = net.serve, m.serveKeys
	m.handlers[StreamTunnel] = m.tunnels.serve
	listener, err := m.transport.Listen(m.listenTLS(), listenConfig(m.isLink))
	if err != nil {
		return fmt.Errorf("mesh: listen: %w", err)
	}
	defer m.transport.Close()
	tunnelled, err := m.tunnels.listen(ctx)
	if err != nil {
		return fmt.Errorf("mesh: listen: %w", err)
	}
	defer m.tunnels.close()
	hintBuffers(m.cfg.Conn, m.log)
	ml, err := m.startGossip(net)
	if err != nil {
		return err
	}

	m.wg.Go(func() { net.receive(m.transport) })
	m.wg.Go(func() { net.receive(m.tunnels.transport) })
	m.wg.Go(func() { m.accept(ctx, tunnelled) })
	for range accepters {
		m.wg.Go(func() { m.accept(ctx, listener) })
	}
	m.wg.Go(func() { m.keepLinks(ctx) })
	m.wg.Go(func() { m.join(ctx, ml) })
	m.wg.Go(func() { m.gossip.tell(ctx, ml.UpdateNode) })
	m.wg.Go(func() { m.measure(ctx) })

	<-ctx.Done()
	if err := leave(ml); err != nil {
		m.log.Debug("left without everybody knowing", "err", err)
	}
	_ = listener.Close()
	_ = tunnelled.Close()
	m.tunnels.end()
	m.wg.Wait()
	return nil
}

func (m *Mesh) isLink(c *quic.Conn) bool {
	_, ok := m.large.Load(c)
	return ok
}

func (m *Mesh) measure(ctx context.Context) {
	ticker := time.NewTicker(measureEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			m.table.measure()
			m.meter.keep(m.table)
		case <-ctx.Done():
			return
		}
	}
}
