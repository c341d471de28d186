package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/identity"
	"github.com/starling-im/starling/wire"
)

// TestClusterRegion adds regions to a cluster of one, before it runs and while it does,
// and a node comes in there.
func TestClusterRegion(t *testing.T) {
	t.Parallel()
	c := newJoiner(t)
	fra, drawer := c.data("fra-1"), c.data("drawer")
	output(t, c.home, "", "cluster", "init", fra, "--regions", "fra", "--listen", c.addr(1))
	output(t, c.home, "", "cluster", "init", c.data("other"), "--regions", "fra")
	if err := os.Rename(filepath.Join(fra, offlineFolder), drawer); err != nil {
		t.Fatal(err)
	}
	others := filepath.Join(c.data("other"), offlineFolder)
	refused := func(says string, args ...string) {
		t.Helper()
		cmd := program(t, c.home, append([]string{"cluster", "region"}, args...)...)
		cmd.Stderr = nil
		said, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(said), says) {
			t.Errorf("%q: %v, %s; want %q", args, err, said, says)
		}
	}

	// It does not run yet.
	refused(errNoRoot.Error(), "gru", "--data", fra)
	refused(identity.ErrOtherRoot.Error(), "gru", "--data", fra, "--offline", others)
	refused(errRegionThere.Error(), "fra", "--data", fra, "--offline", drawer)
	refused(errNoSigner.Error(), "gru", "--data", c.data("nobody"), "--offline", drawer)
	output(t, c.home, "", "cluster", "region", "gru", "--data", fra, "--offline", drawer)
	c.run("fra-1", "--data", fra)
	waitFor(t, "the first node", func() bool { return c.try("members", "--data", fra) == nil })
	c.token("fra-1", "gru")

	// It runs.
	refused(wire.CodeForbidden, "sin", "--data", fra, "--offline", others)
	refused(wire.CodeExists, "gru", "--data", fra, "--offline", drawer)
	if c.try("join-token", "create", "--data", fra, "--region", "sin") == nil {
		t.Error("a token for a region that is not there")
	}
	output(t, c.home, "", "cluster", "region", "sin", "--data", fra, "--offline", drawer)
	output(t, c.home, "", "cluster", "region", "fra", "--data", fra, "--offline", drawer, "--again")
	c.run("sin-1", c.joining("sin-1", 2, 1, "sin", c.token("fra-1", "sin"))...)
	c.waitAlive("sin-1", 2)
	c.token("sin-1", "gru") // which no node and no group is in: it asks who signs
	output(t, c.home, "", "groups", "add", "--region", "sin", "--survive", "none", "--data", c.data("sin-1"))
	refused("sin-1 signs no certificates", "syd", "--data", c.data("sin-1"), "--offline", drawer)
	c.badAuthorities(drawer)
}

// badAuthorities gives a node that runs what is no authority of a region.
func (c *joiner) badAuthorities(drawer string) {
	c.t.Helper()
	root, err := loadAuthority(drawer, "root")
	if err != nil {
		c.t.Fatal(err)
	}
	key, err := root.KeyPEM()
	if err != nil {
		c.t.Fatal(err)
	}
	fake, err := identity.NewRoot("starling", time.Now()) // by the same name
	if err != nil {
		c.t.Fatal(err)
	}
	fakeKey, err := fake.KeyPEM()
	if err != nil {
		c.t.Fatal(err)
	}
	for code, r := range map[string]starling.NewRegion{
		wire.CodeBadRequest: {Chain: "no PEM"},
		// The root itself, with the key that nodes must never have.
		wire.CodeBadRequest + " ": {Chain: string(root.PEM()), Key: string(key)},
		wire.CodeForbidden:        {Chain: string(fake.PEM()), Key: string(fakeKey)},
	} {
		body, _ := json.Marshal(r)
		q, _ := http.NewRequest(http.MethodPut, "http://node/v1/region", bytes.NewReader(body))
		answer, err := adminClient(c.data("fra-1"), localWithin).Do(q)
		if err != nil {
			c.t.Fatal(err)
		}
		var e wire.Error
		err = json.NewDecoder(answer.Body).Decode(&e)
		_ = answer.Body.Close()
		if err != nil || e.Code != strings.TrimSpace(code) {
			c.t.Errorf("%s: %v, %s %s", code, err, e.Code, e.Message)
		}
	}
}
