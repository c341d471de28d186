package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/starling-im/starling/cmd/edge-node/internal/home"
	"github.com/starling-im/starling/directory"
	"github.com/starling-im/starling/geo"
	"github.com/starling-im/starling/identity"
	"github.com/starling-im/starling/wire"
)

// context is how the other commands find the mesh.
func (p *devPlan) context(name string, o devOptions) *home.Context {
	c := &home.Context{
		Name: name, Cluster: p.Cluster, Instance: rand.Text(), App: devApp, CA: string(p.root.RootPEM()),
		ServerName: identity.ServerName(p.Cluster), WAN: o.wan, Keys: p.Keys, Tokens: make(map[string]string),
	}
	if o.data == "" {
		c.Temporary = p.dir
	}
	for _, n := range p.nodes {
		c.Nodes = append(c.Nodes, home.Node{ID: n.ID, Region: n.Region, Addr: n.Addr})
	}
	return c
}

// takeOver makes sure that the context may be replaced: it is of a mesh that
// dev made and that answers no more. What such a mesh left behind, since it
// was killed, is removed.
func (a *app) takeOver(ctx context.Context) error {
	old, err := a.mesh()
	if errors.Is(err, home.ErrNone) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w; remove it, or use --context NAME", err)
	}
	switch {
	case old.Cluster != devCluster:
		return fmt.Errorf("context %q is of the mesh %q, which dev did not make: use --context NAME", a.context, old.Cluster)
	case a.answers(ctx, old):
		return fmt.Errorf("the mesh of context %q is running: stop that one, or use --context NAME", a.context)
	}
	removeTemporary(old.Temporary)
	return nil
}

// answersWithin is how long a mesh has to say that it is there.
const answersWithin = 2 * time.Second

// answers reports whether a node of a mesh lets an operator in, or has a
// reason not to.
func (a *app) answers(ctx context.Context, mesh *home.Context) bool {
	if !listens(ctx, mesh) {
		return false
	}
	token, err := mint(mesh, directory.SystemApp, operator)
	if err != nil {
		return false
	}
	addrs, err := mesh.AllAddrs("", 0)
	if err != nil {
		return false
	}
	c, err := a.dial(ctx, mesh, connection{addrs: addrs, token: token, within: answersWithin})
	if err == nil {
		_ = c.Close()
	}
	var said *wire.Error
	return err == nil || errors.As(err, &said)
}

// listens is false if no node's TCP port is open, which a machine tells at
// once, other than of UDP.
func listens(ctx context.Context, mesh *home.Context) bool {
	d := net.Dialer{Timeout: answersWithin}
	for _, n := range mesh.Nodes {
		c, err := d.DialContext(ctx, "tcp", n.Addr)
		if err == nil {
			_ = c.Close()
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return true
		}
	}
	return false
}

// temporaryPrefix begins the names of dev's temporary folders.
const temporaryPrefix = "starling-dev-"

// removeTemporary removes a folder that dev made for a mesh that is dead.
func removeTemporary(dir string) {
	if dir == "" || !strings.HasPrefix(filepath.Base(dir), temporaryPrefix) {
		return
	}
	unlock, err := lockFile(filepath.Join(dir, "dev.lock"))
	if err != nil {
		return // gone, or in use after all
	}
	unlock()
	_ = os.RemoveAll(dir)
}

// warnOf says what is odd about a mesh that is started all the same.
func (a *app) warnOf(plan *devPlan) {
	for _, r := range plan.Regions {
		if _, ok := geo.Pops().Place(r); !ok {
			a.warn(fmt.Sprintf("no place known for %s: distances are unknown", r))
		}
	}
	if weak := fragile(plan.configs[0]); weak != "" {
		a.warn(weak)
	}
}
