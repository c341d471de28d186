package mesh

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/starling-im/starling/identity"
	"github.com/starling-im/starling/internal/simnet"
)

const cluster = "test"

var gossipKey = []byte("0123456789abcdef0123456789abcdef")

// world is a mesh in a bubble.
type world struct {
	t   *testing.T
	net *simnet.Net
	ca  *identity.Authority // of the region eu
}

func newWorld(t *testing.T, opts simnet.Options) *world {
	return &world{t: t, net: simnet.New(t, opts), ca: newAuthority(t, cluster)}
}

// newAuthority is that of the region eu of a new cluster.
func newAuthority(t *testing.T, cluster string) *identity.Authority {
	t.Helper()
	root, err := identity.NewRoot(cluster, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	eu, err := root.ForRegion("eu", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return eu
}

// credentials are those of a node, signed by an authority.
func credentials(t *testing.T, ca *identity.Authority, node string) identity.Credentials {
	t.Helper()
	return credentialsAt(t, ca, node, time.Now())
}

func credentialsAt(t *testing.T, ca *identity.Authority, node string, at time.Time) identity.Credentials {
	t.Helper()
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	chain, err := ca.Sign(identity.Request{Node: node, Region: "eu", Key: key.Public()}, at)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := identity.EncodeKey(key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := identity.NewCredentials(ca.RootPEM(), chain, pem)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// node is one process of a node.
type node struct {
	*Mesh
	t    *testing.T
	stop context.CancelFunc
	done chan struct{}

	mu      sync.Mutex
	refused []error
}

// config is that of a node at an address, which knows the seeds.
func (w *world) config(id, addr string, seeds ...string) Config {
	return Config{
		Node: id, Region: "eu", Cluster: cluster, Advertise: addr, Version: "v1",
		Conn: w.net.Conn(addr), Credentials: credentials(w.t, w.ca, id), Secret: gossipKey, GossipKeys: [][]byte{gossipKey}, Seeds: seeds,
	}
}

// start runs a node until the end of the test, or until kill or shutdown.
func start(t *testing.T, cfg Config, prepare ...func(*Mesh)) *node {
	t.Helper()
	n := &node{t: t, done: make(chan struct{})}
	cfg.Refused = func(_ net.Addr, err error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.refused = append(n.refused, err)
	}
	if os.Getenv("MESH_TEST_LOG") != "" {
		cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", cfg.Node)
	}
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.Mesh = m
	for _, p := range prepare {
		p(m)
	}
	var ctx context.Context
	ctx, n.stop = context.WithCancel(context.Background())
	go func() {
		defer close(n.done)
		if err := m.Run(ctx); err != nil {
			t.Errorf("%s: %v", cfg.Node, err)
		}
	}()
	t.Cleanup(n.shutdown)
	return n
}

// inHandshake is how many handshakes the node counts.
func (n *node) inHandshake() int {
	n.handshakes.mu.Lock()
	defer n.handshakes.mu.Unlock()
	if (n.handshakes.all == 0) != (len(n.handshakes.from) == 0) {
		n.t.Errorf("%d handshakes from %v", n.handshakes.all, n.handshakes.from)
	}
	return n.handshakes.all
}

// shutdown ends the node cleanly, and in time.
func (n *node) shutdown() {
	began := time.Now()
	n.stop()
	<-n.done
	if took := time.Since(began); took > 1500*time.Millisecond {
		n.t.Errorf("%s took %v to shut down", n.cfg.Node, took)
	}
}

// kill takes the socket away, so that nobody hears of the end.
func (n *node) kill() {
	_ = n.cfg.Conn.Close()
	n.shutdown()
}

// wait waits until a view satisfies want.
func (n *node) wait(within time.Duration, what string, want func(*View) bool) {
	n.t.Helper()
	timeout := time.After(within)
	for {
		v := n.View()
		if want(v) {
			return
		}
		select {
		case <-v.Next():
		case <-timeout:
			n.t.Fatalf("%s: not within %v: %s\n%+v", n.cfg.Node, within, what, v.Members)
		}
	}
}

// waitRefused waits until a peer was refused for the reason want.
func (n *node) waitRefused(within time.Duration, want error) {
	n.t.Helper()
	for began := time.Now(); time.Since(began) < within; time.Sleep(10 * time.Millisecond) {
		n.mu.Lock()
		for _, err := range n.refused {
			if errors.Is(err, want) {
				n.mu.Unlock()
				return
			}
		}
		n.mu.Unlock()
	}
	n.t.Fatalf("%s: refused %v, not %v", n.cfg.Node, n.refused, want)
}

// linked is a view of alive members with links.
func linked(ids ...string) func(*View) bool {
	return func(v *View) bool {
		for _, id := range ids {
			if m, ok := v.Member(id); !ok || m.State != Alive || !m.Linked {
				return false
			}
		}
		return true
	}
}

// is is a view in which a member has a state.
func is(id string, s State) func(*View) bool {
	return func(v *View) bool { m, ok := v.Member(id); return ok && m.State == s }
}

// echo answers what it reads until the stream ends.
func echo(_ context.Context, _ string, s *Stream) {
	buf := make([]byte, 4096)
	for {
		n, err := s.Read(buf)
		if n > 0 {
			if _, err := s.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
