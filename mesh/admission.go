package mesh

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/tls"
	"fmt"

	"github.com/starling-im/starling/identity"
)

// Admission says whom the cluster knows. The zero Admission knows nothing yet, and
// lets in everybody who has a certificate.
type Admission struct {
	// Nodes are those of the cluster, by id; nil = not known.
	Nodes map[string]Admitted
	// Revoked are nodes whose certificates are good for nothing any more.
	Revoked map[string]bool
}

// Admitted is a node that the cluster knows.
type Admitted struct {
	Region string
	// Key is the one that the node keeps for life; nil = not known, and not checked.
	Key *ecdsa.PublicKey
}

// check returns why a name that a certificate gives to a key is not let in.
func (a *Admission) check(name identity.Name, key crypto.PublicKey) error {
	is, ok := a.Nodes[name.Node]
	switch {
	case a.Revoked[name.Node]:
		return fmt.Errorf("%w: %s", ErrRevoked, name.Node)
	case a.Nodes == nil:
		return nil
	case !ok:
		return fmt.Errorf("%w: %s", ErrNotMember, name.Node)
	case is.Region != name.Region:
		return fmt.Errorf("%w: %s is of %q, not of %q", ErrOtherRegion, name.Node, is.Region, name.Region)
	case is.Key != nil && !is.Key.Equal(key):
		return fmt.Errorf("%w: %s comes with another key", ErrOtherKey, name.Node)
	}
	return nil
}

// checkMeta returns why what is said of a node is not believed. With ErrNotMember
// it may be soon.
func (a *Admission) checkMeta(cluster, node string, said meta) error {
	is, ok := a.Nodes[node]
	switch {
	case a.Revoked[node]:
		return fmt.Errorf("%w: %s", ErrRevoked, node)
	case a.Nodes == nil:
		return nil
	case !ok:
		return fmt.Errorf("%w: %s", ErrNotMember, node)
	case is.Region != said.region:
		return fmt.Errorf("%w: %s is of %q, not of %q", ErrForged, node, is.Region, said.region)
	case is.Key != nil && !said.signedBy(cluster, node, is.Key):
		return fmt.Errorf("%w: what is said of %s, at %s, is not signed with its key", ErrForged, node, said.addr)
	}
	return nil
}

// Admit replaces whom the cluster knows. Links to nodes that are not let in any more
// are cut, and those that were heard of too early are let in.
func (m *Mesh) Admit(a Admission) {
	m.admitted.Store(&a)
	m.cutNotAdmitted()
	m.table.review(func(id string, said meta) error { return a.checkMeta(m.cfg.Cluster, id, said) })
}

// cutNotAdmitted ends the links to nodes that are not let in.
func (m *Mesh) cutNotAdmitted() {
	a := m.admitted.Load()
	for _, l := range m.table.links() {
		cert := l.conn.ConnectionState().TLS.PeerCertificates[0]
		name, err := identity.NameOf(cert, m.cfg.Cluster)
		if err == nil {
			err = a.check(name, cert.PublicKey)
		}
		if err != nil {
			m.refuse(l.conn.RemoteAddr(), err)
			_ = l.conn.CloseWithError(closeNotAdmitted, err.Error())
		}
	}
	for _, c := range m.tunnels.carriers() {
		if err := a.check(c.name, c.conn.ConnectionState().PeerCertificates[0].PublicKey); err != nil {
			m.refuse(c.conn.RemoteAddr(), err)
			_ = c.conn.Close()
		}
	}
}

// Renew replaces the certificate of this node: handshakes from now on use the new
// one, and links stay.
func (m *Mesh) Renew(cert tls.Certificate) error {
	if err := m.cfg.checkCert(cert); err != nil {
		return err
	}
	m.cert.Store(&cert)
	return nil
}
