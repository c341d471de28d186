package mesh

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
)

const (
	caLife   = 10 * 365 * 24 * time.Hour
	nodeLife = 365 * 24 * time.Hour
	// backdate lets a certificate work on a machine whose clock is a little late.
	backdate = time.Hour
)

// ServerName is the name under which each node of a cluster can be verified,
// whatever its address.
func ServerName(cluster string) string { return cluster + ".starling" }

// nodeURI is the SPIFFE id of a node.
func nodeURI(cluster, node string) *url.URL {
	return &url.URL{Scheme: "spiffe", Host: cluster, Path: "/node/" + node}
}

// checkName returns ErrBadName unless name can be part of a certificate and of
// an address of gossip: 1 to 63 letters, digits, '-', '_' or '.'.
func checkName(what, name string) error {
	ok := len(name) > 0 && len(name) <= nameMax
	for _, r := range name {
		ok = ok && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
	}
	if !ok {
		return fmt.Errorf("%w: %s %q is not 1 to %d letters, digits, '-', '_' or '.'", ErrBadName, what, name, nameMax)
	}
	return nil
}

// CA signs the identities of a cluster's nodes.
type CA struct {
	cluster string
	cert    *x509.Certificate
	key     crypto.Signer
}

// NewCA makes the CA of a cluster, valid for ten years.
func NewCA(cluster string, now time.Time) (*CA, error) {
	if err := checkName("cluster", cluster); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("mesh: CA key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: cluster + " CA", Organization: []string{cluster}},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("mesh: CA certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("mesh: CA certificate: %w", err)
	}
	return &CA{cluster: cluster, cert: cert, key: key}, nil
}

// LoadCA reads a CA from the PEM of its certificate and of its key.
func LoadCA(certPEM, keyPEM []byte) (*CA, error) {
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("mesh: CA: %w", err)
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok || !pair.Leaf.IsCA || len(pair.Leaf.Subject.Organization) == 0 {
		return nil, errors.New("mesh: not the certificate and key of a cluster's CA")
	}
	return &CA{cluster: pair.Leaf.Subject.Organization[0], cert: pair.Leaf, key: key}, nil
}

// Cluster returns the name of the cluster whose nodes the CA signs.
func (ca *CA) Cluster() string { return ca.cluster }

// PEM returns the certificate of the CA.
func (ca *CA) PEM() []byte { return encodePEM("CERTIFICATE", ca.cert.Raw) }

// KeyPEM returns the private key of the CA.
func (ca *CA) KeyPEM() ([]byte, error) { return keyPEM(ca.key) }

// Issue makes the identity of a node, valid for one year. It can be verified
// as the node's id, as localhost, as the ServerName of the cluster and as each
// of hosts (names or IP addresses).
func (ca *CA) Issue(node, region string, hosts []string, now time.Time) (certPEM, key []byte, err error) {
	if err := errors.Join(checkName("node", node), checkName("region", region)); err != nil {
		return nil, nil, err
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("mesh: key of %s: %w", node, err)
	}
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: node, Organization: []string{ca.cluster}, OrganizationalUnit: []string{region}},
		NotBefore:    now.Add(-backdate),
		NotAfter:     now.Add(nodeLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:     []string{node, "localhost", ServerName(ca.cluster)},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		URIs:         []*url.URL{nodeURI(ca.cluster, node)},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if !slices.Contains(template.DNSNames, host) {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, private.Public(), ca.key)
	if err != nil {
		return nil, nil, fmt.Errorf("mesh: certificate of %s: %w", node, err)
	}
	key, err = keyPEM(private)
	return encodePEM("CERTIFICATE", der), key, err
}

// Identity is what a node proves itself with, and what it believes.
type Identity struct {
	Cert  tls.Certificate
	Roots *x509.CertPool
}

// NewIdentity reads an identity from PEM.
func NewIdentity(caPEM, certPEM, keyPEM []byte) (Identity, error) {
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return Identity{}, fmt.Errorf("mesh: identity: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(caPEM) {
		return Identity{}, errors.New("mesh: identity: no certificate of a CA in the PEM")
	}
	return Identity{Cert: cert, Roots: roots}, nil
}

// LoadIdentity reads an identity from PEM files.
func LoadIdentity(caFile, certFile, keyFile string) (Identity, error) {
	var pems [3][]byte
	for i, name := range []string{caFile, certFile, keyFile} {
		b, err := os.ReadFile(name)
		if err != nil {
			return Identity{}, fmt.Errorf("mesh: identity: %w", err)
		}
		pems[i] = b
	}
	return NewIdentity(pems[0], pems[1], pems[2])
}

// nodeOf returns the node that a verified certificate names.
func nodeOf(cert *x509.Certificate, cluster string) (string, error) {
	for _, uri := range cert.URIs {
		node, isNode := strings.CutPrefix(uri.Path, "/node/")
		if uri.Scheme != "spiffe" || !isNode || checkName("node", node) != nil {
			continue
		}
		if uri.Host != cluster {
			return "", fmt.Errorf("%w: %s", ErrOtherCluster, uri)
		}
		return node, nil
	}
	return "", fmt.Errorf("%w: %s", ErrNotNode, cert.Subject)
}

func serial() *big.Int {
	var b [16]byte
	rand.Read(b[:])
	b[0] = b[0]&0x7f | 0x40 // positive, and of a fixed length
	return new(big.Int).SetBytes(b[:])
}

func keyPEM(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("mesh: key: %w", err)
	}
	return encodePEM("PRIVATE KEY", der), nil
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
