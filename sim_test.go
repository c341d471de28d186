package starling_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/edge"
	"github.com/starling-im/starling/geo"
	"github.com/starling-im/starling/identity"
	"github.com/starling-im/starling/internal/simdisk"
	"github.com/starling-im/starling/internal/simnet"
)

// world is a mesh of some regions, mostly one node each, in one bubble: real nodes
// over a simulated network with the measured round-trip times, on disks that
// can forget what was not synced.
type world struct {
	t     *testing.T
	net   *simnet.Net
	dir   string
	root  *identity.Authority
	roots *x509.CertPool
	key   edge.Key
	peers []starling.Peer
	disks map[string]*simdisk.Disk
	sync  bool
	// before is called with each node before it runs, survive is their policy.
	before  func(*starling.Node)
	survive geo.Survive
	// replaceAfter is their grace for nodes that are gone.
	replaceAfter time.Duration
	// actAs is the grant of tokens.
	actAs string
	// costs are those of nodes' links, by node.
	costs map[string][]starling.Cost

	nodes map[string]*running
	next  int // the next client's address
}

type running struct {
	node *starling.Node
	conn io.Closer
	stop func()
	done chan error
}

// newWorld makes a world with a node for each of the regions, of which one may be
// named several times; start its nodes.
func newWorld(t *testing.T, regions ...string) *world {
	root, err := identity.NewRoot("sim", time.Now())
	ok(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(root.RootPEM())
	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	w := &world{
		t: t, dir: t.TempDir(), root: root, roots: roots, sync: true,
		key:   edge.Key{ID: "demo-1", App: "demo", Secret: secret},
		disks: make(map[string]*simdisk.Disk), nodes: make(map[string]*running),
	}
	of := make(map[string]int)
	for i, r := range regions {
		of[r]++
		p := starling.Peer{ID: fmt.Sprintf("%s-%d", r, of[r]), Region: r, Addr: fmt.Sprintf("10.0.%d.1:7400", i)}
		w.peers = append(w.peers, p)
		w.disks[p.ID] = simdisk.New(uint64(i))
		w.issue(p)
	}
	w.write("gossip.key", []byte(base64.StdEncoding.EncodeToString(secret)))
	w.write("ca.pem", root.RootPEM())
	w.net = simnet.New(t, simnet.Options{Latency: w.latency})
	return w
}

func (w *world) issue(p starling.Peer) {
	authority, err := w.root.ForRegion(p.Region, time.Now())
	ok(w.t, err)
	key, err := identity.NewKey()
	ok(w.t, err)
	chain, err := authority.Sign(identity.Request{Node: p.ID, Region: p.Region, Key: key.Public(), Life: 10 * 365 * 24 * time.Hour}, time.Now())
	ok(w.t, err)
	text, err := identity.EncodeKey(key)
	ok(w.t, err)
	w.write(p.ID+".pem", chain)
	w.write(p.ID+".key", text)
}

func (w *world) write(name string, data []byte) { ok(w.t, os.WriteFile(w.path(name), data, 0o600)) }

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// host returns the IP address of a node.
func (w *world) host(id string) string {
	for _, p := range w.peers {
		if p.ID == id {
			host, _, _ := net.SplitHostPort(p.Addr)
			return host
		}
	}
	return ""
}

// region returns where an address is: clients sit beside the node of their
// region.
func (w *world) region(addr netip.Addr) string { return w.peers[addr.As4()[2]].Region }

// latency is half the measured round-trip time between two addresses; nodes of
// one region are no farther apart than the rooms of a building.
func (w *world) latency(from, to netip.Addr) time.Duration {
	if w.region(from) == w.region(to) && from.As4()[2] != to.As4()[2] {
		return 250 * time.Microsecond
	}
	rtt, _ := geo.Pops().RTT(w.region(from), w.region(to))
	return rtt / 2
}

// start starts a node on its disk.
func (w *world) start(id string) {
	var self starling.Peer
	for _, p := range w.peers {
		if p.ID == id {
			self = p
		}
	}
	cfg := starling.DefaultConfig()
	cfg.Cluster, cfg.Node, cfg.Region, cfg.Listen = "sim", self.ID, self.Region, self.Addr
	cfg.Data, cfg.Peers = w.path(id), w.peers
	cfg.TLS = starling.TLS{CA: w.path("ca.pem"), Cert: w.path(id + ".pem"), Key: w.path(id + ".key")}
	cfg.GossipKey, cfg.GroupsPerRegion, cfg.Limits, cfg.NoSync = w.path("gossip.key"), 1, starling.Bench, !w.sync
	cfg.Costs = w.costs[id]
	cfg.Survive = cmp.Or(string(w.survive), cfg.Survive)
	if w.replaceAfter > 0 {
		cfg.ReplaceAfter = w.replaceAfter.String()
	}
	cfg.Apps = []starling.App{{Name: "demo", Open: true, Keys: []starling.AppKey{{ID: w.key.ID, Secret: base64.StdEncoding.EncodeToString(w.key.Secret)}}}}
	ok(w.t, os.MkdirAll(cfg.Data, 0o700))
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	conn := w.net.Conn(self.Addr)
	n, err := starling.New(cfg, starling.Env{Conn: conn, FS: w.disks[id], Log: log})
	ok(w.t, err)
	if w.before != nil {
		w.before(n)
	}
	ctx, stop := context.WithCancel(w.t.Context())
	r := &running{node: n, conn: conn, stop: stop, done: make(chan error, 1)}
	w.nodes[id] = r
	go func() { r.done <- n.Run(ctx) }()
}

// stop stops a node and waits for its end.
func (w *world) stop(id string) {
	r := w.nodes[id]
	delete(w.nodes, id)
	r.stop()
	ok(w.t, <-r.done)
}

// kill ends a node as kill -9 and a power loss do: nothing leaves it any more,
// and of its disk what was synced is left, and keep percent of the rest.
func (w *world) kill(id string, keep int) {
	r := w.nodes[id]
	_ = r.conn.Close()
	w.disks[id] = w.disks[id].PowerLoss(keep)
	w.stop(id)
}

// died waits for the end of a node that cannot go on, and returns why.
func (w *world) died(id string, within time.Duration) error {
	r := w.nodes[id]
	select {
	case err := <-r.done:
		delete(w.nodes, id)
		r.stop()
		return err
	case <-time.After(within):
		return nil
	}
}

// stopAll stops every node that runs.
func (w *world) stopAll() {
	for id := range w.nodes {
		w.stop(id)
	}
}

// dial connects a user of the demo app, who sits in the first of the regions,
// to the nodes of those regions in turn.
func (w *world) dial(user string, regions ...int) *client.Client {
	w.next++
	conn := w.net.Conn(fmt.Sprintf("10.0.%d.%d:9000", regions[0], 10+w.next))
	tr := &quic.Transport{Conn: conn}
	var addrs []string
	for _, r := range regions {
		addrs = append(addrs, w.peers[r].Addr)
	}
	c, err := client.Dial(w.t.Context(), client.Config{
		Addrs: addrs, RootCAs: w.roots, ServerName: identity.ServerName("sim"), InFlight: 256,
		Token: func(context.Context) (string, error) {
			return edge.Mint(w.key, edge.Claims{User: user, ActAs: w.actAs, Expires: time.Now().Add(time.Hour)})
		},
		Dial: func(ctx context.Context, addr string, t *tls.Config, q *quic.Config) (*quic.Conn, error) {
			return tr.Dial(ctx, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)), t, q)
		},
	})
	ok(w.t, err)
	w.t.Cleanup(func() { _ = tr.Close() })
	return c
}

// observer follows a room and checks that it sees 1, 2, 3 …
type observer struct {
	mu   sync.Mutex
	seen []string // seen[seq-1] is the event's id and content
	bad  error
	done chan struct{}
}

func (w *world) observe(ctx context.Context, c *client.Client, room string) *observer {
	o := &observer{done: make(chan struct{})}
	f, err := c.Follow(ctx, room, 0)
	ok(w.t, err)
	go func() {
		defer close(o.done)
		for {
			e, err := f.Next(ctx)
			if err != nil {
				return
			}
			o.mu.Lock()
			if want := uint64(len(o.seen) + 1); e.Seq != want && o.bad == nil {
				o.bad = fmt.Errorf("seq %d where %d belongs", e.Seq, want)
			}
			o.seen = append(o.seen, e.ID+" "+e.Content)
			o.mu.Unlock()
		}
	}()
	return o
}

func (o *observer) events(t *testing.T) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	ok(t, o.bad)
	return append([]string(nil), o.seen...)
}

// Three regions chat while one is cut off and comes back: everybody sees one
// order without a gap, and every send ends acknowledged.
func TestOneOrderThroughPartitionAndHeal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "fra", "iad", "sin")
		for _, p := range w.peers {
			w.start(p.ID)
		}
		const perRegion = 300
		ctx, cancel := context.WithCancel(t.Context())
		var observers []*observer
		var senders sync.WaitGroup
		for i := range w.peers {
			c := w.dial(fmt.Sprint("user-", i), i)
			observers = append(observers, w.observe(ctx, c, "lobby"))
			senders.Go(func() {
				for k := range perRegion {
					_, err := c.Publish(ctx, client.Message{Room: "lobby", ID: fmt.Sprintf("%d-%d", i, k), Content: fmt.Sprint("hello ", k)})
					if err != nil {
						t.Errorf("send %d-%d: %v", i, k, err)
					}
				}
			})
			t.Cleanup(func() { _ = c.Close() })
		}
		time.Sleep(10 * time.Second) // of virtual time: the chat is under way
		w.net.Cut([]string{"10.0.0.1"}, []string{"10.0.1.1", "10.0.2.1"})
		time.Sleep(20 * time.Second)
		w.net.Heal()
		senders.Wait()
		const all = 3 * perRegion
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
			if len(observers[0].events(t)) >= all && len(observers[1].events(t)) >= all && len(observers[2].events(t)) >= all {
				break
			}
		}
		first := observers[0].events(t)
		for i, o := range observers {
			seen := o.events(t)
			if len(seen) != all {
				t.Errorf("%s saw %d events, want %d", w.peers[i].Region, len(seen), all)
			}
			for k := range seen {
				if seen[k] != first[k] {
					t.Fatalf("seq %d is %q in %s and %q in %s", k+1, seen[k], w.peers[i].Region, first[k], w.peers[0].Region)
				}
			}
		}
		cancel()
		for _, o := range observers {
			<-o.done
		}
		w.stopAll()
	})
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
