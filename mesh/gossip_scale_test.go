package mesh

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
)

// gossipers are nodes that only gossip: with our configuration, but without sockets
// and links.
type gossipers struct {
	t     *testing.T
	w     *gossipWorld
	world *world // for its authority
	all   []*gossiper
	// deaths are the nodes that somebody took for dead although it was there.
	deaths atomic.Int64
	meets  sync.WaitGroup
	// noLinks are no streams for probes.
	noLinks atomic.Bool
}

type gossiper struct {
	*Mesh
	port *gossipPort
	ml   *memberlist.Memberlist
}

// deathsOf counts, beside what package mesh does, who is wrongly taken for dead.
type deathsOf struct {
	*gossip
	all  *gossipers
	node string
}

func (d *deathsOf) NotifyLeave(n *memberlist.Node) {
	if d.all.w.reachable(d.node, n.Name) {
		d.all.deaths.Add(1)
	}
	d.gossip.NotifyLeave(n)
}

// newGossipers starts nodes in cities, so many per second, each of which is
// introduced to one that is there, and waits until all know all.
func newGossipers(t *testing.T, places *cities, count int, loss float64) *gossipers {
	t.Helper()
	w := &gossipWorld{cities: places, loss: loss, rand: rand.New(rand.NewPCG(1, 2)), nodes: make(map[string]*gossipPort)}
	g := &gossipers{t: t, w: w, world: &world{t: t, ca: newAuthority(t, cluster)}}
	began := time.Now()
	for range count {
		g.start()
		time.Sleep(100 * time.Millisecond)
	}
	started := time.Since(began)
	t.Logf("%d nodes, started within %v: all know all %v after the last", count, started, g.agree(8*time.Minute, g.all))
	return g
}

// start adds a node and introduces it to another one.
func (g *gossipers) start() *gossiper {
	g.t.Helper()
	i := len(g.all)
	id, addr := fmt.Sprintf("n%03d", i), fmt.Sprintf("10.0.%d.%d:7400", i/250, i%250+1)
	m, err := New(Config{
		Node: id, Region: "eu", Cluster: cluster, Advertise: addr, Version: "v1", Conn: struct{ net.PacketConn }{},
		Credentials: credentials(g.t, g.world.ca, id), Secret: gossipKey, GossipKeys: [][]byte{gossipKey},
	})
	if err != nil {
		g.t.Fatal(err)
	}
	m.gossip.say(func(self *meta) { self.instance = uint64(time.Now().UnixNano()) })
	n := &gossiper{Mesh: m, port: g.w.port(id, g.w.cities.names[i%len(g.w.cities.names)])}
	conf := m.gossipConfig(n.port)
	conf.Events = &deathsOf{gossip: m.gossip, all: g, node: id}
	conf.DisableTcpPingsForNode = func(node string) bool { return g.noLinks.Load() || !g.w.linked(id, node) }
	if n.ml, err = memberlist.Create(conf); err != nil {
		g.t.Fatal(err)
	}
	if i > 0 {
		g.meet(n, g.all[rand.IntN(i)].cfg.Node, 0)
	}
	g.all = append(g.all, n)
	return n
}

// meet introduces a node to another one after a while, as Mesh.join does, until that
// works or the node is gone.
func (g *gossipers) meet(n *gossiper, other string, after time.Duration) {
	g.meets.Go(func() {
		time.Sleep(after)
		for failures := 0; g.w.reachable(n.cfg.Node, n.cfg.Node); failures++ {
			if _, err := n.ml.Join([]string{other + "/" + nowhere}); err == nil {
				return
			}
			time.Sleep(backoff(failures, joinPause, joinPauseMax))
		}
	})
}

// agree waits until each of nodes holds exactly nodes for alive, and returns how long
// that took.
func (g *gossipers) agree(within time.Duration, nodes []*gossiper) time.Duration {
	g.t.Helper()
	there := make(map[string]bool)
	for _, n := range nodes {
		there[n.cfg.Node] = true
	}
	sees := func(n *gossiper) bool {
		alive := 0
		for _, m := range n.View().Members {
			if m.State.Here() && !there[m.ID] {
				return false
			} else if m.State.Here() {
				alive++
			}
		}
		return alive == len(there)
	}
	began := time.Now()
	for {
		blind := slices.IndexFunc(nodes, func(n *gossiper) bool { return !sees(n) })
		took := time.Since(began)
		switch {
		case blind < 0:
			return took
		case took > within:
			g.t.Errorf("%s does not see who is there after %v", nodes[blind].cfg.Node, within)
			return took
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// crash ends nodes without a word.
func (g *gossipers) crash(nodes []*gossiper) {
	g.w.mu.Lock()
	for _, n := range nodes {
		n.port.died = time.Now()
	}
	g.w.mu.Unlock()
	for _, n := range nodes {
		_ = n.ml.Shutdown()
	}
}

// stop ends all nodes; it lets the probes of memberlist end, which it does not wait for.
func (g *gossipers) stop() {
	g.crash(g.all)
	g.meets.Wait()
	time.Sleep(time.Minute)
}

// traffic returns the bytes per node and second since the last call.
func (g *gossipers) traffic(over time.Duration) (packets, streams float64) {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	per := float64(len(g.all)) * over.Seconds()
	packets, streams = float64(g.w.packets)/per, float64(g.w.streams)/per
	g.w.packets, g.w.streams = 0, 0
	return packets, streams
}

// scale is how many nodes gossip: few, or with STARLING_LONG as many as a mesh has.
func scale() int {
	if os.Getenv("STARLING_LONG") != "" {
		return 200
	}
	return 30
}

// TestGossipConverges shows how fast all learn of what changes, and that nobody is
// taken for dead meanwhile who is there. The bounds are far above what was measured.
func TestGossipConverges(t *testing.T) {
	places := theCities(t)
	synctest.Test(t, func(t *testing.T) {
		g := newGossipers(t, places, scale(), 0)
		defer g.stop()
		g.rest(time.Minute)

		g.start()
		t.Logf("a join: %v", g.agree(30*time.Second, g.all))

		g.crash(g.all[3:4])
		here := slices.Concat(g.all[:3], g.all[4:])
		t.Logf("a crash: %v", g.agree(2*time.Minute, here))
		g.judge()

		g.divide(here)

		fifth := len(here) / 5
		g.crash(here[:fifth])
		t.Logf("an outage of a fifth: %v", g.agree(3*time.Minute, here[fifth:]))
		g.judge()
	})
}

// divide parts one half of the nodes from the other, until each has given the other
// up and what it says of it is no news any more, and heals that. Each half then brings
// the other its verdicts, so that some are dead again until they have spoken for
// themselves.
func (g *gossipers) divide(here []*gossiper) {
	g.t.Helper()
	one, other := here[:len(here)/2], here[len(here)/2:]
	left := func(node string) bool { return node < other[0].cfg.Node }
	g.w.part(func(a, b string) bool { return left(a) != left(b) })
	took := g.agree(3*time.Minute, one)
	g.t.Logf("a partition: %v", took+g.agree(3*time.Minute, other))
	g.judge()
	time.Sleep(time.Minute)
	g.w.part(nil)
	began := time.Now()
	for i, n := range one { // links come back within backoffMax, and their nodes are introduced
		g.meet(n, other[i].cfg.Node, rand.N(backoffMax))
	}
	g.agree(2*time.Minute, here)
	g.t.Logf("a heal: %v; %d times one half believed the other's verdicts of itself", time.Since(began), g.deaths.Swap(0))
}

// rest logs what nodes send while nothing changes.
func (g *gossipers) rest(d time.Duration) {
	g.t.Helper()
	g.traffic(time.Second)
	time.Sleep(d)
	packets, streams := g.traffic(d)
	g.t.Logf("%v: %.0f B/s per node in packets, %.0f B/s in streams", d, packets, streams)
}

// judge fails the test if somebody was taken for dead who was there.
func (g *gossipers) judge() {
	g.t.Helper()
	if n := g.deaths.Swap(0); n > 0 {
		g.t.Errorf("%d times somebody was taken for dead who was there", n)
	}
}

// TestGossipUnderLoss shows that lost packets make nobody dead: an hour of 2 % with
// STARLING_LONG, else a short while of more, in which no link helps.
func TestGossipUnderLoss(t *testing.T) {
	places := theCities(t)
	loss, lasts := 0.05, 2*time.Minute
	if os.Getenv("STARLING_LONG") != "" {
		loss, lasts = 0.02, time.Hour
	}
	synctest.Test(t, func(t *testing.T) {
		g := newGossipers(t, places, scale(), loss)
		g.noLinks.Store(os.Getenv("STARLING_LONG") == "")
		defer g.stop()
		g.rest(lasts)
		g.judge()
		g.agree(time.Minute, g.all)
	})
}
