package edge

import (
	"errors"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/starling-im/starling/wire"
)

// Key signs and verifies the tokens of one app.
type Key struct {
	ID     string // goes into the token's header as kid
	App    string
	Secret []byte // of HMAC-SHA256; at least 32 bytes
}

// Claims are what a token says of its bearer, beside the app of its key.
type Claims struct {
	User string
	// ActAs is "*" if the bearer may speak for any user of the app.
	ActAs string
	// Role is "operator" if the bearer may ask about the mesh.
	Role    string
	Expires time.Time
}

// Operator is the role that may ask about the mesh. Only tokens of the system
// app can carry it.
const Operator = "operator"

// minSecret is the least size of a secret in bytes: that of the hash.
const minSecret = 32

type jwtClaims struct {
	App   string `json:"app"`
	ActAs string `json:"act_as,omitempty"`
	Role  string `json:"role,omitempty"`
	jwt.RegisteredClaims
}

// Mint makes a token: a JWT signed with HS256.
func Mint(k Key, c Claims) (string, error) {
	if len(k.Secret) < minSecret {
		return "", wire.Errorf(wire.CodeBadRequest, "the secret of key %q has %d bytes, at least %d are needed", k.ID, len(k.Secret), minSecret)
	}
	if c.User == "" {
		return "", wire.Errorf(wire.CodeBadRequest, "a token needs a user")
	}
	t := jwt.NewWithClaims(jwt.SigningMethodHS256, jwtClaims{
		App: k.App, ActAs: c.ActAs, Role: c.Role,
		RegisteredClaims: jwt.RegisteredClaims{Subject: c.User, ExpiresAt: jwt.NewNumericDate(c.Expires)},
	})
	t.Header["kid"] = k.ID
	return t.SignedString(k.Secret)
}

// Verify checks a token against the keys that find returns and gives its
// claims and app. A token that lives longer than life is refused, because
// nothing else ends it. Every refusal is unauthenticated, or token_expired.
func Verify(token string, life time.Duration, find func(kid string) (Key, bool)) (Claims, string, error) {
	if token == "" {
		return Claims{}, "", wire.Errorf(wire.CodeUnauthenticated, "no token was given")
	}
	var c jwtClaims
	_, err := jwt.ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) {
		kid, _ := t.Header["kid"].(string)
		k, ok := find(kid)
		if !ok || k.App != c.App {
			return nil, errors.New("unknown key")
		}
		return k.Secret, nil
	}, jwt.WithValidMethods([]string{"HS256"}), jwt.WithExpirationRequired(), jwt.WithLeeway(wire.ClockSkew))
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return Claims{}, "", wire.Errorf(wire.CodeTokenExpired, "the token has expired; get a new one")
	case err != nil:
		return Claims{}, "", wire.Errorf(wire.CodeUnauthenticated, "the token is not valid here")
	case time.Until(c.ExpiresAt.Time) > life+wire.ClockSkew:
		return Claims{}, "", wire.Errorf(wire.CodeUnauthenticated, "the token lives longer than %v", life)
	case c.Subject == "":
		return Claims{}, "", wire.Errorf(wire.CodeUnauthenticated, "the token names no user")
	}
	return Claims{User: c.Subject, ActAs: c.ActAs, Role: c.Role, Expires: c.ExpiresAt.Time}, c.App, nil
}
