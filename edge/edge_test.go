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
	ended := func(error) {}
	enter := func(ip string) *place {
		t.Helper()
		p, err := d.enter(addr(ip), overQUIC, ended)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	refused := func(ip, why string, limit uint64) {
		t.Helper()
		if _, err := d.enter(addr(ip), overQUIC, ended); wire.Code(err) != wire.CodeTooMany || wire.AsError(err).Limit != limit {
			t.Errorf("%s: %v, want %s of %d", why, err, wire.CodeTooMany, limit)
		}
	}
	settle := func(p *place, app, name, id string) error {
		return p.settle(session{Identity{App: app, User: name}, id})
	}
	first := enter("192.0.2.1")
	second := enter("192.0.2.1")
	refused("192.0.2.1", "a third stranger of one address", 2)
	if err := settle(first, "demo", "alice", "1"); err != nil {
		t.Fatal(err)
	}
	third := enter("192.0.2.1")
	enter("2001:db8::1")
	fifth := enter("2001:db8::2")
	refused("2001:db8:1::1", "a sixth connection", 5)
	fifth.leave()
	enter("2001:db8::3")
	if n := d.Sessions(); n != 5 || d.Stats().QUIC != 5 {
		t.Errorf("%d connections are counted, %d over QUIC, want 5", n, d.Stats().QUIC)
	}

	if err := settle(second, "demo", "alice", "2"); wire.Code(err) != wire.CodeTooMany || wire.AsError(err).Limit != 1 {
		t.Errorf("a second connection of a user: %v", err)
	}
	if err := settle(third, "other", "alice", "3"); err != nil {
		t.Errorf("a user of that name in another app: %v", err)
	}
	first.leave()
	if err := settle(second, "demo", "alice", "2"); err != nil {
		t.Errorf("after the first has left: %v", err)
	}
}
