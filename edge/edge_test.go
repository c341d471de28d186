package edge

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/starling-im/starling/wire"
)

var key = Key{ID: "k", App: "demo", Secret: []byte(strings.Repeat("s", 32))}

func find(kid string) (Key, bool) { return key, kid == key.ID }

func mint(t *testing.T, k Key, c Claims) string {
	t.Helper()
	token, err := Mint(k, c)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestVerify(t *testing.T) {
	in := func(d time.Duration) time.Time { return time.Now().Add(d) }
	other := key
	other.Secret = []byte(strings.Repeat("x", 32))
	foreign := key
	foreign.App = "else"
	unsigned, err := jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims{"app": "demo", "sub": "mallory", "exp": in(time.Minute).Unix()}).
		SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	forever := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"app": "demo", "sub": "mallory"})
	forever.Header["kid"] = key.ID
	endless, err := forever.SignedString(key.Secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, token, want string }{
		{"good", mint(t, key, Claims{User: "alice", Expires: in(time.Minute)}), ""},
		{"just expired, within what clocks may differ", mint(t, key, Claims{User: "alice", Expires: in(-wire.ClockSkew / 2)}), ""},
		{"expired", mint(t, key, Claims{User: "alice", Expires: in(-time.Minute)}), wire.CodeTokenExpired},
		{"longer than a token may live", mint(t, key, Claims{User: "alice", Expires: in(2 * time.Hour)}), wire.CodeUnauthenticated},
		{"without an end", endless, wire.CodeUnauthenticated},
		{"another secret", mint(t, other, Claims{User: "alice", Expires: in(time.Minute)}), wire.CodeUnauthenticated},
		{"another app's name", mint(t, foreign, Claims{User: "alice", Expires: in(time.Minute)}), wire.CodeUnauthenticated},
		{"alg none", unsigned, wire.CodeUnauthenticated},
		{"none", "", wire.CodeUnauthenticated},
		{"garbage", "a.b.c", wire.CodeUnauthenticated},
	} {
		claims, app, err := Verify(c.token, time.Hour, find)
		if wire.Code(err) != c.want {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if err == nil && (claims.User != "alice" || app != "demo") {
			t.Errorf("%s: %+v of %q", c.name, claims, app)
		}
	}
}

func TestMintRefuses(t *testing.T) {
	for name, k := range map[string]Key{"short secret": {ID: "k", App: "demo", Secret: []byte("short")}} {
		if _, err := Mint(k, Claims{User: "alice"}); wire.Code(err) != wire.CodeBadRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Mint(key, Claims{}); wire.Code(err) != wire.CodeBadRequest {
		t.Errorf("no user: %v", err)
	}
}

// The operator's role counts in tokens of the system app alone.
func TestOperatorsAreOfTheSystemApp(t *testing.T) {
	for _, system := range []string{"demo", "starling"} {
		d := New(Config{SystemApp: system, Key: func(string) (Key, bool, bool) { return key, true, true }})
		id, err := d.verify(mint(t, key, Claims{User: "root", Role: Operator, Expires: time.Now().Add(time.Minute)}))
		if err != nil || id.Operator != (system == "demo") {
			t.Errorf("system app %q: %+v, %v", system, id, err)
		}
	}
}

func addr(ip string) net.Addr { return &net.UDPAddr{IP: net.ParseIP(ip), Port: 1} }

func TestPlaces(t *testing.T) {
	d := New(Config{Connections: 5, PerAddress: 2, PerUser: 1})
	enter := func(ip string) (known, leave func()) {
		t.Helper()
		known, leave, err := d.enter(addr(ip))
		if err != nil {
			t.Fatal(err)
		}
		return known, leave
	}
	refused := func(ip, why string) {
		t.Helper()
		if _, _, err := d.enter(addr(ip)); wire.Code(err) != wire.CodeTooMany {
			t.Errorf("%s: %v, want %s", why, err, wire.CodeTooMany)
		}
	}
	known, _ := enter("192.0.2.1")
	enter("192.0.2.1")
	refused("192.0.2.1", "a third stranger of one address")
	known()
	enter("192.0.2.1")
	enter("2001:db8::1")
	_, leave := enter("2001:db8::2")
	refused("2001:db8:1::1", "a sixth connection")
	leave()
	enter("2001:db8::3")
	if n := d.Sessions(); n != 5 {
		t.Errorf("%d connections are counted, want 5", n)
	}

	alice := Identity{App: "demo", User: "alice"}
	gone, err := d.enterUser(alice)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.enterUser(alice); wire.Code(err) != wire.CodeTooMany {
		t.Errorf("a second connection of a user: %v", err)
	}
	if _, err := d.enterUser(Identity{App: "other", User: "alice"}); err != nil {
		t.Errorf("a user of that name in another app: %v", err)
	}
	gone()
	if _, err := d.enterUser(alice); err != nil {
		t.Errorf("after the first has left: %v", err)
	}
}
