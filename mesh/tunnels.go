package mesh

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

const (
	// tunnelHops is how many nodes may pass a packet on: a parent of the one end, and
	// one of the other.
	tunnelHops = 2
	// tunnelQueue bounds the packets that wait for a neighbour, or for QUIC.
	tunnelQueue = 256
	// packetMax bounds a packet with its two ids, in bytes.
	packetMax = 3 + 2*nameMax + 1452
	// pipeIdle is how long a stream for tunnels stays open without packets.
	pipeIdle = 30 * time.Second
	// routeFresh is how long a route is taken for good after a packet came over it.
	// Then packets go over all routes, until one comes again.
	routeFresh = 300 * time.Millisecond
	// routesMax bounds the nodes that packets go to in one more way than one, and
	// routesKnown those whose route is remembered.
	routesMax   = 3
	routesKnown = 4096
)

// tunnels sends packets to nodes that UDP does not reach, and passes on those of others.
type tunnels struct {
	m         *Mesh
	conn      *tunnelConn
	transport *quic.Transport

	mu     sync.Mutex
	ctx    context.Context    // of Run; nil before
	pipes  map[string][]*pipe // by neighbour; the first is used
	routes map[string]route
}

// route is how a node was last heard: from which neighbour, and when.
type route struct {
	via   string
	heard time.Time
}

func newTunnels(m *Mesh) *tunnels {
	t := &tunnels{m: m, pipes: make(map[string][]*pipe), routes: make(map[string]route)}
	t.conn = newTunnelConn(m.cfg.Node, func(p packet) { t.forward(p, "") })
	t.transport = &quic.Transport{Conn: t.conn, ConnectionIDLength: 8, StatelessResetKey: m.cfg.resetKey(), ConnContext: m.beginHandshake}
	return t
}

// listen lets packets through until ctx ends, and listens for links.
func (t *tunnels) listen(ctx context.Context) (*quic.Listener, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ctx = ctx
	return t.transport.Listen(t.m.nodesTLS(ALPNLink, alpnOutbound, alpnJoin), listenConfig(func(*quic.Conn) bool { return true }))
}

// end has nothing more begin as a part of Run: memberlist goes on dialling for a moment.
func (t *tunnels) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ctx = nil
}

func (t *tunnels) close() {
	_ = t.transport.Close()
	_ = t.conn.Close()
}

// running runs f as a part of Run, unless that is over or has not begun.
func (m *Mesh) running(f func(context.Context)) bool {
	m.tunnels.mu.Lock()
	defer m.tunnels.mu.Unlock()
	ctx := m.tunnels.ctx
	if ctx == nil || ctx.Err() != nil {
		return false
	}
	m.wg.Go(func() { f(ctx) })
	return true
}

// pass takes a packet that a neighbour has sent, for this node or for another.
func (t *tunnels) pass(p packet, from string) {
	t.heard(p.from, from)
	switch {
	case p.to == t.m.cfg.Node:
		if !t.conn.receive(p) {
			t.m.meter.tunnel.Add(1)
		}
	case p.hops > 0:
		p.hops--
		t.forward(p, from)
	}
}

// heard remembers over whom a node is heard. The first one stays as long as it is good.
func (t *tunnels) heard(node, via string) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok := t.routes[node]
	if ok && r.via != via && now.Sub(r.heard) < routeFresh {
		return
	}
	if !ok && len(t.routes) >= routesKnown {
		clear(t.routes)
	}
	t.routes[node] = route{via, now}
}

// forward sends a packet on, not back to the neighbour that it came from.
func (t *tunnels) forward(p packet, from string) {
	for _, via := range t.next(p.to, from) {
		if pipe := t.pipe(via); pipe != nil && !pipe.put(p) {
			t.m.meter.tunnel.Add(1)
		}
	}
}

// next returns the neighbours that a packet to a node goes to now: the node itself, or
// the one over which it was heard just now, or all that may do.
func (t *tunnels) next(node, from string) []string {
	if t.isNeighbour(node) {
		return []string{node}
	}
	t.mu.Lock()
	r := t.routes[node]
	t.mu.Unlock()
	if r.via != from && time.Since(r.heard) < routeFresh && t.isNeighbour(r.via) {
		return []string{r.via}
	}
	return slices.DeleteFunc(t.between(node), func(via string) bool { return via == from })
}

// reaches reports whether there is a way to a node through others.
func (t *tunnels) reaches(node string) bool { return len(t.between(node)) > 0 }

// between returns the neighbours that may pass packets on to a node: its parents that
// are neighbours, else the parents of this node, which are neighbours of those.
func (t *tunnels) between(node string) []string {
	to, _ := t.m.View().Member(node)
	if !to.Outbound && !t.m.cfg.Outbound {
		return nil // both can be dialled; if neither can dial, the network is cut
	}
	var all []string
	for _, parents := range [][]string{to.Parents, t.m.gossip.parents()} {
		for _, id := range parents {
			if id != node && t.isNeighbour(id) && !slices.Contains(all, id) {
				all = append(all, id)
			}
		}
		if len(all) > 0 {
			break
		}
	}
	return all[:min(len(all), routesMax)]
}

// isNeighbour reports whether this node reaches another one by itself.
func (t *tunnels) isNeighbour(node string) bool {
	if t.carrierTo(node) != nil {
		return true
	}
	l := t.m.table.to(node)
	return l != nil && !l.tunnelled()
}

// pipe returns what carries packets to a neighbour, nil if there is nothing.
func (t *tunnels) pipe(node string) *pipe {
	l := t.m.table.to(node)
	t.mu.Lock()
	defer t.mu.Unlock()
	if all := t.pipes[node]; len(all) > 0 {
		return all[0]
	}
	if l == nil || l.tunnelled() || t.ctx == nil || t.ctx.Err() != nil {
		return nil
	}
	p := newPipe(node, nil)
	t.pipes[node] = []*pipe{p}
	ctx := t.ctx
	t.m.wg.Go(func() { t.overLink(ctx, p, l) })
	return p
}

// drop ends a pipe.
func (t *tunnels) drop(p *pipe) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pipes[p.node] = slices.DeleteFunc(t.pipes[p.node], func(q *pipe) bool { return q == p }); len(t.pipes[p.node]) == 0 {
		delete(t.pipes, p.node)
	}
}

// over says how packets to a node go: "tcp", or "through" another node.
func (t *tunnels) over(node string) string {
	if t.carrierTo(node) != nil {
		return PathTCP
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.routes[node]; r.via != "" {
		return "through " + r.via
	}
	return "through others"
}
