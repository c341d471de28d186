package edge

import (
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/starling-im/starling/wire"
)

// doorOf is that of a node of a cluster which knows the keys.
func doorOf(cluster string, all ...Key) *Door {
	return New(Config{SystemApp: "starling", Secret: []byte(strings.Repeat(cluster, 32)), Key: keys(all...)})
}

// A resume token is good on each node of the cluster for the same user, device,
// grants and time, and nowhere else.
func TestResume(t *testing.T) {
	expires := time.Now().Add(time.Minute).Truncate(time.Second)
	token := mint(t, key, Claims{User: "alice", ActAs: "*", Expires: expires})
	here := doorOf("c", key)
	first, err := here.caller(&wire.Hello{Token: token, Device: "phone"})
	if err != nil {
		t.Fatal(err)
	}
	resume := here.welcome(1, first).GetWelcome().ResumeToken
	there := doorOf("c", key)
	second, err := there.caller(&wire.Hello{Resume: resume, Device: "phone"})
	if err != nil {
		t.Fatal(err)
	}
	if second.Identity != first.Identity || !second.ActAs || second.session != first.session || !second.until().Equal(expires.Add(wire.ClockSkew)) {
		t.Errorf("resumed as %+v until %v, session %s", second.Identity, second.until(), second.session)
	}
	third, err := here.caller(&wire.Hello{Resume: there.resumeToken(second), Device: "phone"})
	if err != nil || third.session != first.session || !third.until().Equal(first.until()) {
		t.Errorf("resumed again: %+v, %v", third, err)
	}

	other := key
	other.Secret = []byte(strings.Repeat("x", 32))
	moved := key
	moved.App = "else"
	late := *first
	late.claims.Expires = time.Now().Add(-time.Minute)
	unsigned := jwt.NewWithClaims(jwt.SigningMethodNone, resumeClaims{jwtClaims: jwtClaims{App: "demo"}, Device: "phone", Session: "s"})
	unsigned.Header["kid"] = key.ID
	none, err := unsigned.SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	byApp := *first // what the owner of the app's key can make
	forged := New(Config{Secret: []byte("?"), Key: there.cfg.Key}).resumeToken(&byApp)
	for _, c := range []struct {
		name           string
		door           *Door
		resume, device string
	}{
		{"another device", there, resume, "laptop"},
		{"no device", there, resume, ""},
		{"another cluster", doorOf("d", key), resume, "phone"},
		{"a cluster without a secret", New(Config{Key: there.cfg.Key}), resume, "phone"},
		{"the key was taken from the app", doorOf("c"), resume, "phone"},
		{"the key has another secret", doorOf("c", other), resume, "phone"},
		{"the key is of another app", doorOf("c", moved), resume, "phone"},
		{"expired", there, here.resumeToken(&late), "phone"},
		{"signed without the cluster", there, forged, "phone"},
		{"a token of the app", there, token, ""},
		{"alg none", there, none, "phone"},
		{"too long", there, strings.Repeat("a", resumeBytes+1), "phone"},
		{"garbage", there, "a.b.c", "phone"},
	} {
		if _, err := c.door.caller(&wire.Hello{Resume: c.resume, Token: token, Device: c.device}); wire.Code(err) != wire.CodeUnauthenticated {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := there.caller(&wire.Hello{Token: resume, Device: "phone"}); wire.Code(err) != wire.CodeUnauthenticated {
		t.Errorf("as a token: %v", err)
	}
	starting := New(Config{Secret: here.cfg.Secret, Key: func(string) (Key, bool, bool) { return Key{}, false, false }})
	if _, err := starting.caller(&wire.Hello{Resume: resume, Device: "phone"}); wire.Code(err) != wire.CodeOverloaded {
		t.Errorf("a node that starts: %v", err)
	}
}

func TestDeviceIsShort(t *testing.T) {
	hello := &wire.Hello{Token: mint(t, key, Claims{User: "alice", Expires: time.Now().Add(time.Minute)}), Device: strings.Repeat("d", 129)}
	if _, err := doorOf("c", key).caller(hello); wire.Code(err) != wire.CodeBadRequest {
		t.Errorf("a device's name of 129 bytes: %v", err)
	}
}
