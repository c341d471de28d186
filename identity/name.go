package identity

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Why a certificate names no node of the cluster.
var (
	// ErrNotNode refuses a certificate that names no node, such as a client's.
	ErrNotNode = errors.New("certificate of no node")
	// ErrOtherCluster refuses a node of another cluster.
	ErrOtherCluster = errors.New("node of another cluster")
	// ErrOtherRegion refuses a node whose certificate comes from the authority of
	// another region.
	ErrOtherRegion = errors.New("node of another region")
	// ErrBadName says that a name cannot be part of a certificate.
	ErrBadName = errors.New("bad name")
)

// nameMax bounds the names of clusters, nodes and regions, in bytes: they are
// labels of DNS names in certificates.
const nameMax = 63

// Name is who a certificate is of.
type Name struct{ Node, Region string }

// ServerName is the name under which each node of a cluster can be verified,
// whatever its address.
func ServerName(cluster string) string { return cluster + ".starling" }

// nodeURI is the SPIFFE id of a node
// (https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md).
func nodeURI(cluster, node string) *url.URL {
	return &url.URL{Scheme: "spiffe", Host: cluster, Path: "/node/" + node}
}

// CheckName returns ErrBadName unless name can be part of a certificate and of
// an address of gossip: 1 to 63 letters, digits, '-', '_' or '.'.
func CheckName(what, name string) error {
	ok := len(name) > 0 && len(name) <= nameMax
	for _, r := range name {
		ok = ok && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
	}
	if !ok {
		return fmt.Errorf("%w: %s %q is not 1 to %d letters, digits, '-', '_' or '.'", ErrBadName, what, name, nameMax)
	}
	return nil
}

// NameOf returns whom a certificate names, which somebody else has verified.
func NameOf(cert *x509.Certificate, cluster string) (Name, error) {
	for _, uri := range cert.URIs {
		node, isNode := strings.CutPrefix(uri.Path, "/node/")
		if uri.Scheme != "spiffe" || !isNode || CheckName("node", node) != nil {
			continue
		}
		if uri.Host != cluster {
			return Name{}, fmt.Errorf("%w: %s", ErrOtherCluster, uri)
		}
		return Name{node, regionOf(cert)}, nil
	}
	return Name{}, fmt.Errorf("%w: %s", ErrNotNode, cert.Subject)
}

// OfChain returns whom a verified chain names, its leaf first: the authority that
// signed the leaf must be that of the leaf's region.
func OfChain(chain []*x509.Certificate, cluster string) (Name, error) {
	name, err := NameOf(chain[0], cluster)
	if err == nil && (len(chain) < 2 || regionOf(chain[1]) != name.Region) {
		err = fmt.Errorf("%w: %s of %q was not signed by the authority of its region", ErrOtherRegion, name.Node, name.Region)
	}
	return name, err
}

// Verify verifies a chain as it was sent, its leaf first, under the root that it
// ends with, and returns whom it names. The root must be the one that was pinned.
func Verify(chain []*x509.Certificate, cluster string, pin Pin, now time.Time) (Name, error) {
	if len(chain) < 2 || PinOf(chain[len(chain)-1]) != pin {
		return Name{}, ErrPin
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(chain[len(chain)-1])
	for _, c := range chain[1 : len(chain)-1] {
		between.AddCert(c)
	}
	verified, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: now, DNSName: ServerName(cluster),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return Name{}, fmt.Errorf("identity: %w", err)
	}
	return OfChain(verified[0], cluster)
}

// regionOf returns the region of a node or authority, "" for the root.
func regionOf(cert *x509.Certificate) string {
	if units := cert.Subject.OrganizationalUnit; len(units) == 1 {
		return units[0]
	}
	return ""
}
