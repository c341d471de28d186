package mesh

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/starling-im/starling/geo"
	"github.com/starling-im/starling/identity"
)

// gossip is what memberlist calls; each of its methods only reads or changes
// the table, because memberlist holds its lock meanwhile.
type gossip struct {
	m       *Mesh
	locator *geo.Locator

	mu      sync.Mutex
	self    meta
	changed chan struct{} // has room for one: self is to be told to the others
}

func newGossip(m *Mesh) *gossip {
	var outbound byte
	if m.cfg.Outbound {
		outbound = flagOutbound
	}
	return &gossip{m: m, locator: geo.NewLocator(m.cfg.Node), changed: make(chan struct{}, 1), self: meta{region: m.cfg.Region, addr: m.cfg.Advertise, version: m.cfg.Version, flags: outbound}}
}

// say changes what this node says of itself. It does not wait until others know.
func (g *gossip) say(change func(*meta)) {
	g.mu.Lock()
	change(&g.self)
	g.mu.Unlock()
	select {
	case g.changed <- struct{}{}:
	default:
	}
}

// SetDraining tells all that this node goes away soon, or that it does not after all:
// whoever chooses a node takes another one meanwhile. It does not wait until others know.
func (m *Mesh) SetDraining(draining bool) {
	m.gossip.say(func(self *meta) {
		if self.flags &^= flagDraining; draining {
			self.flags |= flagDraining
		}
	})
	m.table.setSelf(m.gossip.state())
}

// state is that of this node.
func (g *gossip) state() State {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.self.state()
}

// tell tells the others what this node says of itself, each time that it changes, and
// again where memberlist has not sent it in time: its queue loses a message now and then
// when several of one length come together (hashicorp/memberlist#263).
func (g *gossip) tell(ctx context.Context, update func(within time.Duration) error) {
	for {
		select {
		case <-g.changed:
		case <-ctx.Done():
			return
		}
		for ctx.Err() == nil {
			err := update(tellWithin)
			if err == nil {
				break
			}
			g.m.log.Debug("saying again what this node says of itself", "err", err)
		}
	}
}

// keys is the version of the keys of gossip that this node has.
func (g *gossip) keys() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.self.keys
}

// instance is that of this process.
func (g *gossip) instance() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.self.instance
}

// startGossip starts memberlist on a transport.
func (m *Mesh) startGossip(t memberlist.Transport) (*memberlist.Memberlist, error) {
	m.gossip.say(func(self *meta) { self.instance = uint64(time.Now().UnixNano()) })
	ml, err := memberlist.Create(m.gossipConfig(t))
	if err != nil {
		return nil, fmt.Errorf("mesh: gossip: %w", err)
	}
	return ml, nil
}

func (m *Mesh) gossipConfig(t memberlist.Transport) *memberlist.Config {
	g := m.gossip
	conf := memberlist.DefaultLANConfig()
	conf.Name = m.cfg.Node
	conf.Transport = t
	conf.Keyring = m.keyring
	conf.UDPBufferSize = gossipPacket
	conf.TCPTimeout = dialWithin
	conf.GossipInterval, conf.GossipNodes = gossipEvery, gossipNodes
	conf.PushPullInterval = exchangeEvery
	conf.EnableCompression = false // probes and acks do not become smaller, and cost twice as much
	conf.Logger = log.New(&gossipLog{m}, "", 0)
	conf.Delegate, conf.Events, conf.Alive, conf.Ping = g, g, g, g
	// No label: it would be the first byte of a packet, and look like QUIC's.
	conf.Label = ""
	// A probe over QUIC only says more than one by packet if there is a link.
	conf.DisableTcpPingsForNode = func(node string) bool { return m.table.to(node) == nil }
	return conf
}

// NotifyAlive keeps out those that this node cannot understand, and notices
// another process with this node's id.
func (g *gossip) NotifyAlive(n *memberlist.Node) error {
	if err := identity.CheckName("node", n.Name); err != nil {
		return err
	}
	said, err := decodeMeta(n.Meta)
	if err != nil {
		return err
	}
	if n.Name != g.m.cfg.Node {
		return g.believe(n.Name, said)
	}
	if said.instance > g.instance() {
		err := fmt.Errorf("%w: another process runs with it at %s", ErrSameNode, said.addr)
		g.m.refuse(addressed(said.addr), err)
		return err // and do not argue: the others take the later one
	}
	return nil
}

// believe refuses what was said of a node by others. What is said of a node that the
// cluster does not know yet is kept, and shown when it does.
func (g *gossip) believe(node string, said meta) error {
	err := g.m.admitted.Load().checkMeta(g.m.cfg.Cluster, node, said)
	switch {
	case errors.Is(err, ErrForged):
		g.m.refuse(addressed(said.addr), err)
		return err
	case errors.Is(err, ErrRevoked):
		return err
	}
	return nil
}

func (g *gossip) NotifyJoin(n *memberlist.Node) {
	g.m.log.Info("member alive", "peer", n.Name)
	g.NotifyUpdate(n)
}

func (g *gossip) NotifyLeave(n *memberlist.Node) {
	g.m.log.Info("member gone", "peer", n.Name)
	g.locator.Forget(n.Name)
	g.m.table.gone(n.Name)
}

func (g *gossip) NotifyUpdate(n *memberlist.Node) {
	if said, err := decodeMeta(n.Meta); err == nil {
		g.m.table.alive(n.Name, said, g.m.admitted.Load().checkMeta(g.m.cfg.Cluster, n.Name, said) == nil)
	}
}

// NodeMeta is what this node says of itself. Without a signature others take it for
// forged, which is better than a node that does not start.
func (g *gossip) NodeMeta(int) []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	key, _ := g.m.cert.Load().PrivateKey.(crypto.Signer)
	b, err := g.self.encode(g.m.cfg.Cluster, g.m.cfg.Node, key)
	if err != nil {
		g.m.log.Error("this node cannot sign what it says of itself", "err", err)
	}
	return b
}

func (g *gossip) NotifyMsg([]byte)                {}
func (g *gossip) GetBroadcasts(_, _ int) [][]byte { return nil }
func (g *gossip) LocalState(bool) []byte          { return nil }
func (g *gossip) MergeRemoteState([]byte, bool)   {}

// join introduces this node: to the seeds while it is alone, and to each node
// that it has a link to but that gossip does not hold for alive, as after a cut
// that lasted so long that both sides gave each other up.
func (m *Mesh) join(ctx context.Context, ml *memberlist.Memberlist) {
	failures := 0
	for ctx.Err() == nil {
		view := m.View()
		targets := m.strangers(view)
		if len(targets) == 0 {
			select {
			case <-view.Next():
			case <-ctx.Done():
			}
			continue
		}
		if _, err := ml.Join(targets); err != nil {
			m.log.Debug("nobody let this node join yet", "asked", targets, "err", err)
			failures++
			name, _, _ := strings.Cut(targets[0], "/")
			if err := m.learnKeys(ctx, m.where(name)); err != nil {
				m.log.Debug("nobody told the keys of gossip", "asked", name, "err", err)
			}
		} else {
			failures = 0
		}
		select {
		case <-time.After(backoff(failures, joinPause, joinPauseMax)):
		case <-ctx.Done():
		}
	}
}

// strangers returns whom to introduce this node to, in the form NAME/ADDRESS of
// memberlist, where gossipNet looks only at the name.
func (m *Mesh) strangers(view *View) []string {
	var targets []string
	alone := true
	for _, p := range view.Members {
		if p.ID == m.cfg.Node {
			continue
		}
		alone = alone && !p.State.Here()
		if p.Linked && !p.State.Here() && p.State != Left {
			targets = append(targets, p.ID)
		}
	}
	if alone && len(targets) == 0 {
		targets = append(targets, m.seeds...)
	}
	rand.Shuffle(len(targets), func(i, j int) { targets[i], targets[j] = targets[j], targets[i] })
	targets = targets[:min(len(targets), joinAtOnce)]
	for i := range targets {
		targets[i] += "/" + nowhere
	}
	return targets
}

// gossipLog turns memberlist's lines into slog's. Its lines about gossip that
// cannot be decrypted are the only sign of a peer with another key.
type gossipLog struct{ m *Mesh }

func (l *gossipLog) Write(line []byte) (int, error) {
	text := string(bytes.TrimSpace(line))
	level, text, _ := strings.Cut(strings.TrimPrefix(text, "["), "] ")
	text = strings.TrimPrefix(text, "memberlist: ")
	switch {
	case strings.Contains(text, "no installed keys could decrypt"), strings.HasPrefix(text, "Decrypt packet failed"):
		_, from, _ := strings.Cut(text, "from=")
		l.m.refuse(addressed(from), fmt.Errorf("%w: %s", ErrGossipKey, text))
	case strings.HasPrefix(text, "handler queue full"):
		l.m.meter.dropped.Add(1)
	case strings.HasPrefix(text, "Failed fallback TCP ping"): // what follows from it is said elsewhere
		l.m.log.Debug("gossip: " + text)
	case level == "WARN" || level == "ERR":
		l.m.log.Warn("gossip: " + text)
	default:
		l.m.log.Debug("gossip: " + text)
	}
	return len(line), nil
}

// leave says goodbye; it is not an error if nobody could be told.
func leave(ml *memberlist.Memberlist) error {
	return errors.Join(ml.Leave(leaveWithin), ml.Shutdown())
}
