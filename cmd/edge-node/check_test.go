package main

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/starling-im/starling"
)

// plannedNode is the configuration of a node as dev makes it, and its plan.
func plannedNode(t *testing.T) (starling.Config, *devPlan) {
	t.Helper()
	p, err := planDev(devOptions{
		regions: []string{"fra", "iad", "sin"}, nodes: 1, data: t.TempDir(), limits: starling.Bench, logLevel: "error", replace: time.Minute, certLife: time.Hour,
		asked: func(string) bool { return false },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.release)
	return p.configs[0], p
}

func TestCheckNode(t *testing.T) {
	cfg, p := plannedNode(t)
	before, err := os.ReadDir(cfg.Data)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkNode(cfg); err != nil {
		t.Errorf("a node as dev makes it: %v", err)
	}
	if after, _ := os.ReadDir(cfg.Data); len(after) != len(before) {
		t.Errorf("the check left %v, there was %v", after, before)
	}
	_, stranger := plannedNode(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		change func(*starling.Config)
		says   string
	}{
		"another node's certificate": {func(c *starling.Config) { c.TLS = p.configs[1].TLS }, "iad-1"},
		"another CA":                 {func(c *starling.Config) { c.TLS.CA = stranger.configs[0].TLS.CA }, "is not good under"},
		"no certificate":             {func(c *starling.Config) { c.TLS.Cert = file }, "tls"},
		"no key of gossip":           {func(c *starling.Config) { c.GossipKey = file }, "gossip_key"},
		"another cluster":            {func(c *starling.Config) { c.Cluster = "other" }, "cluster"},
		"a price below nothing":      {func(c *starling.Config) { c.Costs = []starling.Cost{{To: "iad", Price: -1}} }, "costs[0] has the price -1"},
		"no number as a price":       {func(c *starling.Config) { c.Costs = []starling.Cost{{To: "iad", Price: math.NaN()}} }, "costs[0] has the price NaN"},
		"a price for nobody":         {func(c *starling.Config) { c.Costs = []starling.Cost{{Price: 1}} }, "costs[0] needs to"},
		"two prices":                 {func(c *starling.Config) { c.Costs = []starling.Cost{{To: "iad"}, {To: "iad", Price: 1}} }, "costs[1] repeats"},
		"data in a file":             {func(c *starling.Config) { c.Data = filepath.Join(file, "data") }, "data"},
	} {
		bad := cfg
		tt.change(&bad)
		if err := checkNode(bad); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %q", name, err, tt.says)
		}
	}
}

func TestDoubts(t *testing.T) {
	cfg := starling.Config{WAN: true, Survive: "none", Peers: []starling.Peer{{Region: "fra"}, {Region: "atlantis"}, {Region: "atlantis"}}}
	if got := doubts(cfg); len(got) != 1 || !strings.Contains(got[0], "to and from atlantis,") || !strings.Contains(got[0], "fra") {
		t.Errorf("a WAN with an unknown region: %q", got)
	}
	cfg.WAN = false
	if got := doubts(cfg); len(got) != 0 {
		t.Errorf("without a WAN: %q", got)
	}
}

func TestFragile(t *testing.T) {
	peers := func(regions ...string) (all []starling.Peer) {
		for _, r := range regions {
			all = append(all, starling.Peer{Region: r})
		}
		return all
	}
	for _, tt := range []struct {
		survive string
		peers   []starling.Peer
		says    string
	}{
		{"region", peers("fra", "iad", "sin"), ""},
		{"region", peers("fra", "fra", "iad"), "the peers are in 2"},
		{"node", peers("fra", "fra", "fra"), ""},
		{"node", peers("fra", "fra", "fra", "iad"), "and iad has 1"},
		{"none", peers("fra"), ""},
	} {
		if got := fragile(starling.Config{Survive: tt.survive, Peers: tt.peers}); (got == "") != (tt.says == "") || !strings.Contains(got, tt.says) {
			t.Errorf("%s with %v: %q, want %q", tt.survive, tt.peers, got, tt.says)
		}
	}
	if got := fragile(starling.Config{Survive: "node", Peers: peers("fra"), Regions: []string{"fra"}}); got != "" {
		t.Errorf("in a cluster, whose nodes are no peers: %q", got)
	}
}

func TestAstray(t *testing.T) {
	dir := t.TempDir()
	yaml := "listen: 10.0.0.2:7400\n"
	if err := os.WriteFile(filepath.Join(dir, nodeFile), []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		listen, addr string
		astray       bool
	}{
		{"10.0.0.2:7400", "10.0.0.2:7400", false},
		{"10.0.0.3:7400", "10.0.0.2:7400", true},
		{"10.0.0.2:7401", "10.0.0.2:7400", true},
		{"0.0.0.0:7400", "10.0.0.2:7400", false},
		{":7401", "10.0.0.2:7400", true},
		{"10.0.0.3:7400", "203.0.113.9:443", false}, // of a machine that sends on to this one
	} {
		cfg := starling.Config{Node: "fra-1", Data: dir, Listen: tt.listen, Peers: []starling.Peer{{ID: "fra-1", Addr: tt.addr}}}
		if got := astray("", cfg); (got != "") != tt.astray {
			t.Errorf("listens at %s, dialled at %s: %q", tt.listen, tt.addr, got)
		}
		if got := astray("node.yaml", cfg); got != "" {
			t.Errorf("with a file of its own: %q", got)
		}
	}
}
