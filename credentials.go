package starling

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/starling-im/starling/directory"
	"github.com/starling-im/starling/identity"
	"github.com/starling-im/starling/mesh"
	"github.com/starling-im/starling/wire"
)

// credentials are what this node proves itself with, and what it signs others with.
type credentials struct {
	now     atomic.Pointer[identity.Credentials]
	signers atomic.Pointer[map[string]*identity.Authority] // by region, never changed; none on most nodes
	signing sync.Mutex                                     // for those who replace signers
}

// SignerFolder holds the authorities of the regions that a node signs for, in the
// folder of its data: REGION.crt and REGION.key.
const SignerFolder = "signer"

func (c *credentials) load(cfg Config) error {
	var pems [3][]byte
	for i, name := range []string{cfg.TLS.CA, cfg.TLS.Cert, cfg.TLS.Key} {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		pems[i] = b
	}
	is, err := identity.NewCredentials(pems[0], pems[1], pems[2])
	if err != nil {
		return err
	}
	c.now.Store(&is)
	keys, err := filepath.Glob(filepath.Join(cfg.Data, SignerFolder, "*.key"))
	if err != nil {
		return err
	}
	for _, name := range keys {
		key, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		chain, err := os.ReadFile(name[:len(name)-len(".key")] + ".crt")
		if err != nil {
			return err
		}
		a, err := identity.Load(chain, key)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		c.sign(a)
	}
	return nil
}

func (c *credentials) identity() identity.Credentials { return *c.now.Load() }

func (c *credentials) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return &c.now.Load().Cert, nil
}

// publicKey is this node's, as the directory writes it.
func publicKey(key crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	return base64.StdEncoding.EncodeToString(der), err
}

// nodeKey reads a key of the directory, nil if there is none.
func nodeKey(text string) *ecdsa.PublicKey {
	der, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(der) == 0 {
		return nil
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil
	}
	ec, _ := key.(*ecdsa.PublicKey)
	return ec
}

// firstMembers are the nodes that are known before gossip has told of any: those of
// the configuration, and those that have come since.
func (n *Node) firstMembers() (peers []mesh.Member) {
	configured := map[string]bool{n.cfg.Node: true}
	for _, p := range n.cfg.Peers {
		if p.ID != n.cfg.Node {
			configured[p.ID] = true
			peers = append(peers, mesh.Member{ID: p.ID, Region: p.Region, Addr: p.Addr})
		}
	}
	for _, d := range n.dir.state().Nodes() {
		if !configured[d.ID] {
			peers = append(peers, mesh.Member{ID: d.ID, Region: d.Region, Addr: d.Addr})
		}
	}
	return peers
}

// errRevoked ends a node that was revoked.
var errRevoked = wire.Errorf(wire.CodeRevoked, "this node was revoked, and no other speaks with it any more: it can come back as a new node, with another id, an empty data folder and a new join token")

// admit tells the mesh whom the directory knows, and with which keys they gossip, where
// that is not as it was.
func (n *Node) admit(was, s *directory.State) {
	if s.Version() == 0 {
		return
	}
	if k := s.GossipKeys(); k.Version != was.GossipKeys().Version {
		if err := n.mesh.SetGossipKeys(k.Version, n.gossipKeys(s)); err != nil {
			n.log.Error("the keys of gossip could not be changed", "err", err)
		}
	}
	if was.Version() > 0 && slices.Equal(was.Nodes(), s.Nodes()) && slices.Equal(was.Revoked(), s.Revoked()) {
		return
	}
	a := mesh.Admission{Nodes: map[string]mesh.Admitted{}, Revoked: map[string]bool{}}
	for _, d := range s.Nodes() {
		a.Nodes[d.ID] = mesh.Admitted{Region: d.Region, Key: nodeKey(d.Key)}
	}
	for _, id := range s.Revoked() {
		a.Revoked[id] = true
	}
	n.mesh.Admit(a)
	if a.Revoked[n.cfg.Node] {
		n.fail(errRevoked)
	}
}

// gossipKeys are those of the directory; as long as it has none, the secret is the key.
func (n *Node) gossipKeys(s *directory.State) (keys [][]byte) {
	if s.GossipKeys().Version == 0 {
		return [][]byte{n.secret}
	}
	for _, text := range s.GossipKeys().Keys {
		key, _ := base64.StdEncoding.DecodeString(text) // checked when it was written
		keys = append(keys, key)
	}
	return keys
}

const (
	// renewAgain is the pause after a renewal failed, at least; renewWithin bounds one.
	renewAgain  = time.Second
	renewWithin = 5 * time.Second
)

// keepCertificate renews this node's certificate until ctx ends. Where there is no
// signer, as with certificates that were made by hand, there is nothing to do.
func (n *Node) keepCertificate(ctx context.Context) {
	for ctx.Err() == nil {
		leaf := n.credentials.identity().Cert.Leaf
		if pause := time.Until(identity.RenewAt(leaf)); pause > 0 {
			wait(ctx, pause)
			continue
		}
		if err := n.renew(ctx); err != nil && ctx.Err() == nil {
			left := time.Until(leaf.NotAfter)
			n.log.Warn("the certificate could not be renewed yet", "good_until", leaf.NotAfter, "err", err)
			wait(ctx, min(max(renewAgain, left/20), time.Hour))
		}
	}
}

// renew gets a new certificate for the same key, from itself if it is a signer.
func (n *Node) renew(ctx context.Context) error {
	key, ok := n.credentials.identity().Cert.PrivateKey.(crypto.Signer)
	if !ok {
		return errors.New("the private key cannot sign")
	}
	csr, err := identity.SigningRequest(key, n.cfg.Node)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, renewWithin)
	defer cancel()
	var chain []byte
	if n.credentials.signer(n.cfg.Region) != nil {
		chain, err = n.signHere(n.cfg.Node, csr)
	} else {
		var answer []byte
		if answer, err = n.askSigners(ctx, querySignHere, base64.StdEncoding.EncodeToString(csr)); err == nil {
			err = json.Unmarshal(answer, &chain)
		}
	}
	if err != nil {
		return err
	}
	return n.useCertificate(chain, key)
}

// useCertificate takes a new certificate into use, and keeps it.
func (n *Node) useCertificate(chain []byte, key crypto.Signer) error {
	pem, err := identity.EncodeKey(key)
	if err != nil {
		return err
	}
	cert, err := tls.X509KeyPair(chain, pem)
	if err != nil {
		return err
	}
	if err := n.mesh.Renew(cert); err != nil {
		return err
	}
	now := n.credentials.identity()
	now.Cert = cert
	n.credentials.now.Store(&now)
	n.log.Info("the certificate is renewed", "good_until", cert.Leaf.NotAfter)
	return replaceFile(n.cfg.TLS.Cert, chain)
}

// replaceFile writes a file beside the old one and puts it in its place, so that
// there is always a whole one.
func replaceFile(name string, b []byte) error {
	if err := os.WriteFile(name+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// querySignHere asks a signer to renew the certificate of the node that asks: CSR.
const querySignHere = "sign.here"

// signHere signs the certificate of a node of the directory, for the key that this
// knows it by.
func (n *Node) signHere(node string, csr []byte) ([]byte, error) {
	d, ok := n.dir.state().Node(node)
	authority := n.credentials.signer(d.Region)
	key, err := identity.ParseSigningRequest(csr)
	switch {
	case err != nil:
		return nil, wire.Errorf(wire.CodeBadRequest, "%v", err)
	case n.dir.state().IsRevoked(node):
		return nil, wire.Errorf(wire.CodeRevoked, "node %q was revoked", node)
	case !ok || authority == nil:
		return nil, wire.Errorf(wire.CodeNotFound, "%s does not sign for region %q", n.cfg.Node, d.Region)
	}
	if registered := nodeKey(d.Key); registered != nil && !registered.Equal(key) {
		return nil, wire.Errorf(wire.CodeForbidden, "node %q is known by another key", node)
	}
	chain, err := authority.Sign(identity.Request{Node: node, Region: d.Region, Hosts: hostOf(d.Addr), Key: key, Life: n.cfg.certLife()}, time.Now())
	if err != nil {
		return nil, err
	}
	n.log.Info("audit: signed a certificate", "peer", node, "region", d.Region, "life", n.cfg.CertLife)
	return chain, nil
}
