package identity

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// Pin is the SHA-256 of a root's certificate. Whoever holds it can tell the nodes of
// that cluster from all others before they have a certificate themselves, as with
// the tokens of k3s (https://docs.k3s.io/cli/token).
type Pin [sha256.Size]byte

// PinOf returns the pin of a root.
func PinOf(root *x509.Certificate) Pin { return sha256.Sum256(root.Raw) }

var (
	// ErrPin says that who answered is not of the cluster of the token.
	ErrPin = errors.New("a node of another cluster than the token's")
	// ErrBadToken says that a text is no token.
	ErrBadToken = errors.New("not a join token")
)

// Token lets one new node into a region of a cluster.
type Token struct {
	Cluster, Region string
	ID              string
	Secret          []byte // 16 bytes
	Pin             Pin
}

// The lengths of a token's parts.
const (
	tokenPrefix = "sjt1"
	secretBytes = 16
)

// NewToken makes a token.
func NewToken(cluster, region string, pin Pin) Token {
	secret := make([]byte, secretBytes)
	rand.Read(secret)
	return Token{Cluster: cluster, Region: region, ID: strings.ToLower(rand.Text()[:10]), Secret: secret, Pin: pin}
}

// String returns the text of a token, which is a secret. Its parts are divided by
// colons, which no name has.
func (t Token) String() string {
	b64 := base64.RawURLEncoding.EncodeToString
	return strings.Join([]string{tokenPrefix, t.Cluster, t.Region, t.ID, b64(t.Secret), b64(t.Pin[:])}, ":")
}

// ParseToken reads a token; the error is ErrBadToken.
func ParseToken(text string) (Token, error) {
	parts := strings.Split(strings.TrimSpace(text), ":")
	if len(parts) != 6 || parts[0] != tokenPrefix {
		return Token{}, fmt.Errorf("%w: it does not have the form %s:CLUSTER:REGION:ID:SECRET:PIN", ErrBadToken, tokenPrefix)
	}
	secret, err := base64.RawURLEncoding.DecodeString(parts[4])
	pin, pinErr := base64.RawURLEncoding.DecodeString(parts[5])
	err = errors.Join(err, pinErr, CheckName("cluster", parts[1]), CheckName("region", parts[2]), CheckName("id", parts[3]))
	if err == nil && (len(secret) != secretBytes || len(pin) != sha256.Size) {
		err = errors.New("a part is too short or too long")
	}
	if err != nil {
		return Token{}, fmt.Errorf("%w: %w", ErrBadToken, err)
	}
	return Token{parts[1], parts[2], parts[3], secret, Pin(pin)}, nil
}

// Hash is what the cluster keeps of a token: it proves the secret without
// holding it.
func (t Token) Hash() []byte {
	h := sha256.Sum256(t.Secret)
	return h[:]
}

// Proves reports whether a secret is that of a hash.
func Proves(secret, hash []byte) bool {
	h := sha256.Sum256(secret)
	return hmac.Equal(h[:], hash)
}
