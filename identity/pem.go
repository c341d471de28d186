package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

const (
	pemCertificate = "CERTIFICATE"
	pemKey         = "PRIVATE KEY"
)

// EncodeKey returns the PEM of a private key.
func EncodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("identity: key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}), nil
}

func encodeChain(chain []*x509.Certificate) (text []byte) {
	for _, c := range chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: c.Raw})...)
	}
	return text
}

// ParseChain reads all certificates of a PEM, at least one.
func ParseChain(text []byte) (chain []*x509.Certificate, err error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != pemCertificate {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("identity: certificate: %w", err)
		}
		chain = append(chain, c)
	}
	if len(chain) == 0 {
		return nil, errors.New("identity: no certificate in the PEM")
	}
	return chain, nil
}

// Credentials are what a node proves itself with, and whom it believes.
type Credentials struct {
	Cert  tls.Certificate
	Root  *x509.Certificate
	Roots *x509.CertPool // Root alone
}

// NewCredentials reads credentials from the PEM of the root, of the node's chain and
// of its key.
func NewCredentials(rootPEM, chainPEM, keyPEM []byte) (Credentials, error) {
	cert, err := tls.X509KeyPair(chainPEM, keyPEM)
	if err != nil {
		return Credentials{}, fmt.Errorf("identity: %w", err)
	}
	root, err := ParseChain(rootPEM)
	if err != nil {
		return Credentials{}, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(root[0])
	return Credentials{cert, root[0], roots}, nil
}

// RenewAt returns when a certificate is to be renewed: after two thirds of its life.
func RenewAt(cert *x509.Certificate) time.Time {
	issued := cert.NotBefore.Add(backdate)
	return issued.Add(cert.NotAfter.Sub(issued) * 2 / 3)
}

// SigningRequest returns a PKCS #10 request, which proves that whoever asks has the
// key (RFC 2986). What the certificate says is up to the signer.
func SigningRequest(key crypto.Signer, node string) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: node}}, key)
	if err != nil {
		return nil, fmt.Errorf("identity: request: %w", err)
	}
	return der, nil
}

// ParseSigningRequest returns the key of a request that is signed with it.
func ParseSigningRequest(der []byte) (*ecdsa.PublicKey, error) {
	r, err := x509.ParseCertificateRequest(der)
	if err == nil {
		err = r.CheckSignature()
	}
	if err != nil {
		return nil, fmt.Errorf("identity: request: %w", err)
	}
	key, ok := r.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve.Params().BitSize != 256 {
		return nil, errors.New("identity: request: the key is not ECDSA over P-256")
	}
	return key, nil
}
