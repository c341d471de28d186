package identity

import (
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"
)

// at is some moment: nothing here looks at a clock.
var at = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// chainOf is the chain of a node as an asker without a certificate gets it.
func chainOf(t *testing.T, a *Authority, key *ecdsa.PrivateKey, region string, life time.Duration) string {
	t.Helper()
	text, err := a.Sign(Request{Node: "n", Region: region, Hosts: []string{"n.example", "10.0.0.1"}, Key: key.Public(), Life: life}, at)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestVerify(t *testing.T) {
	root := must(NewRoot("c", at))
	fra := must(root.ForRegion("fra", at))
	key := must(NewKey())
	good := chainOf(t, fra, key, "fra", time.Hour)
	other := must(NewRoot("c", at))
	twin := must(must(NewRoot("d", at)).ForRegion("fra", at))
	for _, c := range []struct {
		name    string
		chain   string
		cluster string
		pin     Pin
		at      time.Time
		want    error
	}{
		{"good", good + string(root.RootPEM()), "c", root.Pin(), at, nil},
		{"another root", good + string(other.RootPEM()), "c", root.Pin(), at, ErrPin},
		{"another pin", good + string(root.RootPEM()), "c", other.Pin(), at, ErrPin},
		{"no root", good, "c", root.Pin(), at, ErrPin},
		{"a root alone", string(root.RootPEM()), "c", root.Pin(), at, ErrPin},
		{"a chain under another root", chainOf(t, twin, key, "fra", time.Hour) + string(root.RootPEM()), "c", root.Pin(), at, errAny},
		{"another cluster", good + string(root.RootPEM()), "d", root.Pin(), at, errAny},
		{"expired", good + string(root.RootPEM()), "c", root.Pin(), at.Add(2 * time.Hour), errAny},
	} {
		name, err := Verify(must(ParseChain([]byte(c.chain))), c.cluster, c.pin, c.at)
		switch {
		case c.want == errAny && err == nil, c.want != errAny && !errors.Is(err, c.want):
			t.Errorf("%s: %v, not %v", c.name, err, c.want)
		case err == nil && name != (Name{"n", "fra"}):
			t.Errorf("%s: it names %+v", c.name, name)
		}
	}
}

// errAny stands for an error of package x509.
var errAny = errors.New("any")

func TestAuthoritiesKeepToTheirRegion(t *testing.T) {
	root := must(NewRoot("c", at))
	fra := must(root.ForRegion("fra", at))
	key := must(NewKey())
	if _, err := fra.Sign(Request{Node: "n", Region: "iad", Key: key.Public()}, at); !errors.Is(err, ErrOtherRegion) {
		t.Errorf("fra signs a node of iad: %v", err)
	}
	if _, err := root.Sign(Request{Node: "n", Region: "fra", Key: key.Public()}, at); !errors.Is(err, ErrOtherRegion) {
		t.Errorf("the root signs a node: %v", err)
	}
	if _, err := fra.ForRegion("iad", at); err == nil {
		t.Error("fra makes the authority of iad")
	}
	// One that breaks the rule is not believed: the leaf says iad, its authority fra.
	liar := *fra
	liar.chain = append([]*x509.Certificate{}, fra.chain...)
	forged := *fra.chain[0]
	forged.Subject.OrganizationalUnit = []string{"iad"}
	liar.chain[0] = &forged
	text := must(liar.Sign(Request{Node: "n", Region: "iad", Key: key.Public()}, at))
	chain := must(ParseChain([]byte(string(text))))
	chain[1] = fra.chain[0]
	if _, err := OfChain(append(chain, fra.chain[1]), "c"); !errors.Is(err, ErrOtherRegion) {
		t.Errorf("a node of iad that fra signed: %v", err)
	}
	if _, err := NewRoot("a/b", at); !errors.Is(err, ErrBadName) {
		t.Errorf("a bad name: %v", err)
	}
}

func TestAuthorityComesBackAsWritten(t *testing.T) {
	fra := must(must(NewRoot("c", at)).ForRegion("fra", at))
	again := must(Load(fra.PEM(), must(fra.KeyPEM())))
	if again.Cluster() != "c" || again.Region() != "fra" || again.Pin() != fra.Pin() {
		t.Errorf("%s %s", again.Cluster(), again.Region())
	}
	if _, err := Load(fra.PEM(), must(EncodeKey(must(NewKey())))); err == nil {
		t.Error("a key of somebody else is taken")
	}
}

func TestRenewal(t *testing.T) {
	fra := must(must(NewRoot("c", at)).ForRegion("fra", at))
	for life, want := range map[time.Duration]time.Duration{time.Minute: 40 * time.Second, 0: 20 * 24 * time.Hour} {
		leaf := must(ParseChain([]byte(chainOf(t, fra, must(NewKey()), "fra", life))))[0]
		if got := RenewAt(leaf).Sub(at); got != want {
			t.Errorf("a life of %v is renewed after %v, not %v", life, got, want)
		}
	}
	// No certificate outlives the authority that signed it.
	late := at.Add(regionLife - time.Hour)
	leaf := must(ParseChain(must(fra.Sign(Request{Node: "n", Region: "fra", Key: must(NewKey()).Public()}, late))))[0]
	if !leaf.NotAfter.Equal(fra.chain[0].NotAfter) {
		t.Errorf("good until %v, and the authority until %v", leaf.NotAfter, fra.chain[0].NotAfter)
	}
}

func TestTokens(t *testing.T) {
	pin := must(NewRoot("c", at)).Pin()
	token := NewToken("c", "fra", pin)
	text := token.String()
	again, err := ParseToken(" " + text + "\n")
	if err != nil || again.String() != text || again.Pin != pin || again.Region != "fra" || again.Cluster != "c" {
		t.Fatalf("%+v, %v", again, err)
	}
	if !Proves(again.Secret, token.Hash()) || Proves(NewToken("c", "fra", pin).Secret, token.Hash()) {
		t.Error("a token is proven by its own secret, and no other")
	}
	parts := strings.Split(text, ":")
	for _, bad := range []string{"", "hello", strings.Join(parts[:5], ":"), text + ":x", strings.Replace(text, "sjt1", "sjt2", 1),
		strings.Replace(text, ":fra:", ":f/a:", 1), text[:len(text)-4], strings.Join([]string{parts[0], parts[1], parts[2], parts[3], "AAAA", parts[5]}, ":")} {
		if _, err := ParseToken(bad); !errors.Is(err, ErrBadToken) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestSigningRequests(t *testing.T) {
	key := must(NewKey())
	request := must(SigningRequest(key, "n"))
	if got := must(ParseSigningRequest(request)); !got.Equal(key.Public()) {
		t.Error("another key came out")
	}
	request[len(request)-1] ^= 1
	if _, err := ParseSigningRequest(request); err == nil {
		t.Error("a request with a broken signature is taken")
	}
}
