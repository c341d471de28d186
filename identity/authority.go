package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"slices"
	"time"
)

// How long certificates are good for.
const (
	rootLife   = 10 * 365 * 24 * time.Hour
	regionLife = 5 * 365 * 24 * time.Hour
	// NodeLife is that of a node's certificate unless its signer is told otherwise.
	// It is renewed after two thirds of it, and so a node may be cut off for ten days.
	NodeLife = 30 * 24 * time.Hour
	// backdate lets a certificate work on a machine whose clock is a little late.
	backdate = time.Hour
)

// Authority signs: that of the root the authorities of regions, and that of a
// region the certificates of its nodes.
type Authority struct {
	chain []*x509.Certificate // its own first, the root's last
	key   crypto.Signer
}

// NewRoot makes the root of a cluster, good for ten years.
func NewRoot(cluster string, now time.Time) (*Authority, error) {
	if err := CheckName("cluster", cluster); err != nil {
		return nil, err
	}
	return newAuthority(nil, pkix.Name{CommonName: cluster + " root", Organization: []string{cluster}}, now.Add(rootLife), now)
}

// ForRegion makes the authority of a region, good for five years. Only the root can.
func (a *Authority) ForRegion(region string, now time.Time) (*Authority, error) {
	if err := CheckName("region", region); err != nil {
		return nil, err
	}
	if a.Region() != "" {
		return nil, fmt.Errorf("identity: the authority of %s cannot make that of %s", a.Region(), region)
	}
	subject := pkix.Name{CommonName: a.Cluster() + " " + region, Organization: []string{a.Cluster()}, OrganizationalUnit: []string{region}}
	return newAuthority(a, subject, now.Add(regionLife), now)
}

func newAuthority(parent *Authority, subject pkix.Name, until, now time.Time) (*Authority, error) {
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: subject, NotBefore: now.Add(-backdate), NotAfter: until,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true,
		MaxPathLen: 1,
	}
	a := &Authority{key: key}
	signer, by := template, crypto.Signer(key)
	if parent != nil {
		template.MaxPathLen, template.MaxPathLenZero = 0, true
		signer, by, a.chain = parent.chain[0], parent.key, parent.chain
	}
	cert, err := sign(template, signer, key.Public(), by)
	if err != nil {
		return nil, err
	}
	a.chain = append([]*x509.Certificate{cert}, a.chain...)
	return a, nil
}

// ErrNoAuthorities says that a root is of a release in which it signed nodes itself.
var ErrNoAuthorities = errors.New("identity: a root that can sign no authorities of regions")

// Load reads an authority from the PEM of its chain and of its key.
func Load(chainPEM, keyPEM []byte) (*Authority, error) {
	pair, err := tls.X509KeyPair(chainPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("identity: authority: %w", err)
	}
	chain, err := ParseChain(chainPEM)
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	a := &Authority{chain, key}
	switch {
	case !ok || !chain[0].IsCA || len(chain[0].Subject.Organization) == 0:
		return nil, errors.New("identity: not the certificate and key of an authority of a cluster")
	case a.Region() == "" && chain[0].MaxPathLenZero:
		return nil, ErrNoAuthorities
	}
	return a, nil
}

// ErrOtherRoot says that an authority is not under the root of a cluster.
var ErrOtherRoot = errors.New("identity: an authority of another cluster's root")

// Under returns ErrOtherRoot unless the authority is that root's, or the root.
func (a *Authority) Under(root *x509.Certificate) error {
	own := a.chain[0]
	if !own.Equal(root) && own.CheckSignatureFrom(root) != nil {
		return fmt.Errorf("%w: %s", ErrOtherRoot, own.Subject.CommonName)
	}
	return nil
}

// Cluster returns the name of the cluster.
func (a *Authority) Cluster() string { return a.chain[0].Subject.Organization[0] }

// Region returns the region whose nodes the authority signs, "" for the root.
func (a *Authority) Region() string { return regionOf(a.chain[0]) }

// PEM returns the authority's certificate and those above it.
func (a *Authority) PEM() []byte { return encodeChain(a.chain) }

// RootPEM returns the certificate of the root.
func (a *Authority) RootPEM() []byte { return encodeChain(a.chain[len(a.chain)-1:]) }

// Pin returns the pin of the root, which is in every token.
func (a *Authority) Pin() Pin { return PinOf(a.chain[len(a.chain)-1]) }

// KeyPEM returns the private key.
func (a *Authority) KeyPEM() ([]byte, error) { return EncodeKey(a.key) }

// Request is what a certificate of a node is to say.
type Request struct {
	Node, Region string
	// Hosts are names and IP addresses at which the node can be verified, besides
	// its id, localhost and the ServerName of its cluster.
	Hosts []string
	Key   crypto.PublicKey
	Life  time.Duration // 0 = NodeLife
}

// Sign returns the PEM of a node's certificate and of those above it but for the
// root, which whoever is shown them has.
func (a *Authority) Sign(r Request, now time.Time) ([]byte, error) {
	err := errors.Join(CheckName("node", r.Node), CheckName("region", r.Region))
	switch {
	case err != nil:
		return nil, err
	case a.Region() == "" || a.Region() != r.Region:
		return nil, fmt.Errorf("%w: the authority of %q cannot sign a node of %q", ErrOtherRegion, a.Region(), r.Region)
	case r.Life == 0:
		r.Life = NodeLife
	}
	until := now.Add(r.Life)
	if last := a.chain[0].NotAfter; until.After(last) {
		until = last
	}
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: r.Node, Organization: []string{a.Cluster()}, OrganizationalUnit: []string{r.Region}},
		NotBefore:    now.Add(-backdate), NotAfter: until,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{r.Node, "localhost", ServerName(a.Cluster())},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		URIs:        []*url.URL{nodeURI(a.Cluster(), r.Node)},
	}
	for _, host := range r.Hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if !slices.Contains(template.DNSNames, host) {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	cert, err := sign(template, a.chain[0], r.Key, a.key)
	if err != nil {
		return nil, err
	}
	return encodeChain([]*x509.Certificate{cert, a.chain[0]}), nil
}

func sign(template, parent *x509.Certificate, key crypto.PublicKey, by crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, by)
	if err != nil {
		return nil, fmt.Errorf("identity: certificate of %s: %w", template.Subject, err)
	}
	return x509.ParseCertificate(der)
}

// NewKey makes a private key: ECDSA over P-256, since browsers refuse Ed25519.
func NewKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("identity: key: %w", err)
	}
	return key, nil
}

func serial() *big.Int {
	var b [16]byte
	rand.Read(b[:])
	b[0] = b[0]&0x7f | 0x40 // positive, and of a fixed length
	return new(big.Int).SetBytes(b[:])
}
