package mesh

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/starling-im/starling/internal/simnet"
)

// admitAll tells all nodes of each other, with their keys.
func admitAll(nodes ...*node) {
	a := Admission{Nodes: map[string]Admitted{}}
	for _, n := range nodes {
		a.Nodes[n.cfg.Node] = Admitted{Region: "eu", Key: n.cert.Load().Leaf.PublicKey.(*ecdsa.PublicKey)}
	}
	for _, n := range nodes {
		n.Admit(a)
	}
}

// TestForgedOrigin has somebody who knows the key of gossip speak in another node's
// name, as that node did and with other words.
func TestForgedOrigin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, simnet.Options{})
		a, b, c := w.three()
		admitAll(a, b, c)
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		said := meta{instance: uint64(time.Now().UnixNano()), region: "eu", addr: "10.0.0.66:7400"}
		for name, text := range map[string]func() ([]byte, error){
			"another key":  func() ([]byte, error) { return said.encode(cluster, "c", key) },
			"no signature": func() ([]byte, error) { return append(said.body(), 0), nil },
			"another node": func() ([]byte, error) { return said.encode(cluster, "b", b.cert.Load().PrivateKey.(*ecdsa.PrivateKey)) },
			"another region": func() ([]byte, error) {
				m := said
				m.region = "us"
				return m.encode(cluster, "c", c.cert.Load().PrivateKey.(*ecdsa.PrivateKey))
			},
		} {
			forged, err := text()
			if err != nil {
				t.Fatal(err)
			}
			if err := a.gossip.NotifyAlive(&memberlist.Node{Name: "c", Meta: forged}); !errors.Is(err, ErrForged) {
				t.Errorf("%s: %v", name, err)
			}
		}
		a.waitRefused(time.Second, ErrForged)
		if m, _ := a.View().Member("c"); m.Addr == said.addr {
			t.Errorf("c is believed to be at %s", m.Addr)
		}
		honest, err := said.encode(cluster, "c", c.cert.Load().PrivateKey.(*ecdsa.PrivateKey))
		if err != nil {
			t.Fatal(err)
		}
		if err := a.gossip.NotifyAlive(&memberlist.Node{Name: "c", Meta: honest}); err != nil {
			t.Errorf("what c says itself: %v", err)
		}
	})
}

// TestRenewKeepsLinks renews a certificate: the links stay, and the next one is made
// with the new certificate.
func TestRenewKeepsLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, simnet.Options{})
		a, b, _ := w.three()
		before := a.table.to("b")
		next := credentials(t, w.ca, "b").Cert
		if err := b.Renew(next); err != nil {
			t.Fatal(err)
		}
		if err := b.Renew(credentials(t, w.ca, "c").Cert); !errors.Is(err, ErrOtherNode) {
			t.Errorf("the certificate of another node: %v", err)
		}
		time.Sleep(time.Minute)
		if a.table.to("b") != before || before.conn.Context().Err() != nil {
			t.Error("the link is not the one from before")
		}
		_ = before.conn.CloseWithError(closeReplaced, "a test")
		a.wait(10*time.Second, "another link", func(v *View) bool { l := a.table.to("b"); return l != nil && l != before })
		if got := a.table.to("b").conn.ConnectionState().TLS.PeerCertificates[0]; !got.Equal(next.Leaf) {
			t.Error("the new link has the old certificate")
		}
	})
}

// TestRevokedIsCutOff revokes a node that has links, and lets in one that was heard of
// before the cluster knew it.
func TestRevokedIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, simnet.Options{})
		a, b, c := w.three()
		admitAll(a, b)
		a.wait(time.Second, "the end of the link to c", func(v *View) bool { m, _ := v.Member("c"); return m.State == Unknown && !m.Linked })
		admitAll(a, b, c)
		a.wait(10*time.Second, "c again", linked("b", "c"))
		a.Admit(Admission{Nodes: a.admitted.Load().Nodes, Revoked: map[string]bool{"c": true}})
		a.wait(time.Second, "the end of the link to c", func(v *View) bool { m, _ := v.Member("c"); return !m.Linked })
		a.waitRefused(5*time.Second, ErrRevoked)
	})
}

// TestKeysChangeWhileAway has a node come back with keys of gossip that the others have
// forgotten, at an address where nobody looks for it.
func TestKeysChangeWhileAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, simnet.Options{})
		a, b, c := w.three()
		c.shutdown()
		a.wait(time.Second, "the end of c", is("c", Left))
		next := []byte("another key, of thirty-two bytes")
		for i, keys := range [][][]byte{{gossipKey, next}, {next, gossipKey}, {next}} {
			for _, n := range []*node{a, b} {
				if err := n.SetGossipKeys(uint64(i+1), keys); err != nil {
					t.Fatal(err)
				}
			}
		}
		b.wait(time.Minute, "the version of the keys", func(v *View) bool { m, _ := v.Member("a"); return m.Keys == 3 })
		back := start(t, w.config("c", "10.0.0.9:7400", addrA))
		back.wait(20*time.Second, "the others", linked("a", "b"))
		a.wait(20*time.Second, "c", linked("b", "c"))
		for _, n := range []*node{a, b, back} {
			if got := n.keyring.GetKeys(); len(got) != 1 || string(got[0]) != string(next) {
				t.Errorf("%s has the keys %q", n.cfg.Node, got)
			}
		}
	})
}

// TestSaysItAgain has memberlist's queue lose what a node says of itself, twice.
func TestSaysItAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, simnet.Options{})
		m, err := New(w.config("a", addrA))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		said := 0
		m.gossip.say(func(self *meta) { self.keys = 1 })
		m.gossip.tell(ctx, func(time.Duration) error {
			if said++; said < 3 {
				return errors.New("timeout")
			}
			cancel()
			return nil
		})
		if said != 3 {
			t.Errorf("it was said %d times", said)
		}
	})
}
