package main

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"

	"github.com/starling-im/starling/wire"
)

// bearer is what a token says of itself. Nothing of it is proved here; it
// serves to tell the user at once what the mesh would refuse.
type bearer struct {
	App     string  `json:"app"`
	User    string  `json:"sub"`
	Expires float64 `json:"exp"` // Unix time in seconds; 0 = unknown
}

// readToken returns what a token says; nothing if it cannot be read.
func readToken(token string) (b bearer) {
	if parts := strings.Split(token, "."); len(parts) == 3 {
		if text, err := base64.RawURLEncoding.DecodeString(parts[1]); err == nil {
			_ = json.Unmarshal(text, &b)
		}
	}
	return b
}

// check returns why a token cannot serve: it has expired, or it is of another
// user or app than was asked for. "" asks for none.
func (b bearer) check(user, app string, now time.Time) error {
	expires := time.Unix(int64(b.Expires), 0)
	switch {
	case user != "" && b.User != "" && user != b.User:
		return usagef("--as and --token contradict each other: the token is of %q, not of %q", b.User, user)
	case app != "" && b.App != "" && app != b.App:
		return usagef("--app and --token contradict each other: the token is of the app %q, not of %q", b.App, app)
	case b.Expires > 0 && !now.Before(expires):
		return wire.Errorf(wire.CodeTokenExpired, "the token was good until %s", expires.Local().Format(time.DateTime))
	}
	return nil
}
