package starling

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/starling-im/starling/directory"
	"github.com/starling-im/starling/identity"
	"github.com/starling-im/starling/wire"
)

// NewRegion is what PUT /v1/region takes on the admin socket: the authority of a region
// that the node is to sign for from now on.
type NewRegion struct {
	Chain string `json:"chain"` // PEM
	Key   string `json:"key"`   // PEM
	// Again: the cluster may have the region already, and the authority replaces
	// that which the node has.
	Again bool `json:"again,omitzero"`
}

// querySignsHere asks a signer whether it signs for a REGION.
const querySignsHere = "signs.here"

// regionBytes bounds the question, and regionWithin the time for it.
const (
	regionBytes  = 64 << 10
	regionWithin = 5 * time.Second
)

// serveRegion answers PUT /v1/region: with no content, or with a wire.Error as JSON.
func (n *Node) serveRegion(w http.ResponseWriter, q *http.Request) {
	ctx, cancel := context.WithTimeout(q.Context(), regionWithin)
	defer cancel()
	var r NewRegion
	err := json.NewDecoder(io.LimitReader(q.Body, regionBytes)).Decode(&r)
	if err != nil {
		err = wire.Errorf(wire.CodeBadRequest, "%v", err)
	} else {
		err = n.takeRegion(ctx, r)
	}
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	e := wire.AsError(err)
	n.log.Warn("audit: refused the authority of a region", "code", e.Code, "reason", e.Message)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusConflict)
	_ = json.NewEncoder(w).Encode(e)
}

// takeRegion makes this node sign for a region, or returns a *wire.Error.
func (n *Node) takeRegion(ctx context.Context, r NewRegion) error {
	a, err := identity.Load([]byte(r.Chain), []byte(r.Key))
	if err != nil {
		return wire.Errorf(wire.CodeBadRequest, "%v", err)
	}
	self, known := n.dir.state().Node(n.cfg.Node)
	switch err := a.Under(n.credentials.identity().Root); {
	case err != nil:
		return wire.Errorf(wire.CodeForbidden, "%v", err)
	case a.Region() == "":
		return wire.Errorf(wire.CodeBadRequest, "the root itself is for no node: it makes authorities of regions")
	case !known:
		return wire.Errorf(wire.CodeUnavailable, "the node does not know the directory yet")
	case !self.Signer:
		return wire.Errorf(wire.CodeBadRequest, "%s signs no certificates, and nobody would ask it: name a node that does (edge-node node show)", n.cfg.Node)
	case !r.Again && n.hasRegion(ctx, a.Region()):
		return wire.Errorf(wire.CodeExists, "the cluster has the region %q already", a.Region())
	}
	if err := saveAuthority(filepath.Join(n.cfg.Data, SignerFolder), a); err != nil {
		return wire.Errorf(wire.CodeInternal, "the authority could not be kept: %v", err)
	}
	n.credentials.sign(a)
	n.log.Warn("audit: signs for a region", "region", a.Region())
	return nil
}

// saveAuthority keeps an authority where credentials.load finds it. The key comes last,
// since that is looked for.
func saveAuthority(dir string, a *identity.Authority) error {
	key, err := a.KeyPEM()
	if err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(dir, a.Region()+".key")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := replaceFile(filepath.Join(dir, a.Region()+".crt"), a.PEM()); err != nil {
		return err
	}
	return replaceFile(filepath.Join(dir, a.Region()+".key"), key)
}

// hasRegion reports whether the cluster has a region: a node or a group is in it, or
// somebody signs for it.
func (n *Node) hasRegion(ctx context.Context, region string) bool {
	in := func(g directory.Group) bool { return g.Region == region }
	if slices.ContainsFunc(n.dir.state().Groups(), in) || n.strange([]string{region}) == "" || n.credentials.signer(region) != nil {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, gatherWithin)
	defer cancel()
	for _, d := range n.dir.state().Nodes() {
		var signs bool
		if d.Signer && d.ID != n.cfg.Node && n.links.get(d.ID) != nil && n.askNode(ctx, d.ID, &signs, querySignsHere, region) == nil && signs {
			return true
		}
	}
	return false
}

// signer is the authority of a region, nil where this node does not sign for it.
func (c *credentials) signer(region string) *identity.Authority {
	all := c.signers.Load()
	if all == nil {
		return nil
	}
	return (*all)[region]
}

// sign takes the authority of a region into use.
func (c *credentials) sign(a *identity.Authority) {
	c.signing.Lock()
	defer c.signing.Unlock()
	all := map[string]*identity.Authority{}
	if now := c.signers.Load(); now != nil {
		all = maps.Clone(*now)
	}
	all[a.Region()] = a
	c.signers.Store(&all)
}
