package edge

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// A caller is a client that has proved who it is, with a token or with what an
// earlier session gave it.
type caller struct {
	Identity
	claims  Claims
	key     Key // that signed its token
	device  string
	session string
}

// until is when the caller's session ends.
func (c *caller) until() time.Time {
	return c.claims.Expires.Add(wire.ClockSkew) // as Verify allows for
}

// resumeClaims are those of a resume token: what its session was granted, and
// whose it was.
type resumeClaims struct {
	jwtClaims
	Device  string `json:"device,omitempty"`
	Session string `json:"session"`
}

// resumeBytes bounds a resume token. A session whose own would be longer gets none.
const resumeBytes = 4 << 10

// caller finds out who says Hello. A resume token counts instead of the token.
func (d *Door) caller(h *wire.Hello) (*caller, error) {
	if len(h.GetDevice()) > room.NameBytes {
		return nil, wire.Errorf(wire.CodeBadRequest, "the device's name has more than %d bytes", room.NameBytes)
	}
	if h.GetResume() != "" {
		return d.resumed(h)
	}
	c, err := d.verify(h.GetToken())
	if err != nil {
		return nil, err
	}
	c.device, c.session = h.GetDevice(), rand.Text()
	return c, nil
}

// resumed takes a resume token. Every refusal is unauthenticated: the client
// then comes with a token.
func (d *Door) resumed(h *wire.Hello) (*caller, error) {
	var c resumeClaims
	var key Key
	ready := true
	err := errors.New("longer than any that is given")
	if len(h.Resume) <= resumeBytes && len(d.cfg.Secret) > 0 {
		_, err = jwt.ParseWithClaims(h.Resume, &c, func(t *jwt.Token) (any, error) {
			kid, _ := t.Header["kid"].(string)
			var ok bool
			if key, ok, ready = d.cfg.Key(kid); !ok || key.App != c.App {
				return nil, errors.New("unknown key")
			}
			return resumeKey(d.cfg.Secret, key), nil
		}, jwt.WithValidMethods([]string{"HS256"}), jwt.WithExpirationRequired(), jwt.WithLeeway(wire.ClockSkew))
	}
	switch {
	case !ready:
		return nil, errStarting()
	case err != nil || c.Device != h.Device || c.Subject == "" || c.Session == "":
		return nil, wire.Errorf(wire.CodeUnauthenticated, "the session cannot be resumed here")
	}
	claims := Claims{User: c.Subject, ActAs: c.ActAs, Role: c.Role, Expires: c.ExpiresAt.Time}
	return &caller{Identity: d.identity(claims, c.App), claims: claims, key: key, device: c.Device, session: c.Session}, nil
}

// resumeToken lets a caller come back to any node, as long as its token lets it
// in. It is signed by the cluster and by the app's key together: who knows one
// of the two cannot make it, and once the key is taken from the app it is worthless.
func (d *Door) resumeToken(c *caller) string {
	if len(d.cfg.Secret) == 0 {
		return ""
	}
	t := jwt.NewWithClaims(jwt.SigningMethodHS256, resumeClaims{
		jwtClaims: jwtClaims{
			App: c.App, ActAs: c.claims.ActAs, Role: c.claims.Role,
			RegisteredClaims: jwt.RegisteredClaims{Subject: c.User, ExpiresAt: jwt.NewNumericDate(c.claims.Expires)},
		},
		Device: c.device, Session: c.session,
	})
	t.Header["typ"], t.Header["kid"] = "resume", c.key.ID
	signed, err := t.SignedString(resumeKey(d.cfg.Secret, c.key))
	if err != nil || len(signed) > resumeBytes {
		return ""
	}
	return signed
}

func resumeKey(cluster []byte, k Key) []byte {
	key, err := hkdf.Key(sha256.New, append(cluster[:len(cluster):len(cluster)], k.Secret...), nil, "starling resume "+k.ID, 32)
	if err != nil {
		panic(err) // only for a length that SHA-256 cannot give
	}
	return key
}
