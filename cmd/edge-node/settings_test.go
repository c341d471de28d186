package main

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/starling-im/starling"
)

// sampleConfig has a value for every key.
func sampleConfig() starling.Config {
	c := starling.DefaultConfig()
	c.Cluster, c.Node, c.Region, c.Listen, c.Data = "c", "fra-1", "fra", "127.0.0.1:7400", "d"
	c.Peers = []starling.Peer{{ID: "fra-1", Region: "fra", Addr: "127.0.0.1:7400"}, {ID: "iad-1", Region: "iad", Addr: "127.0.0.1:7401"}}
	c.TLS = starling.TLS{CA: "ca.crt", Cert: "node.crt", Key: "node.key"}
	c.Regions, c.Seeds, c.Directory = []string{"fra", "iad"}, []string{"127.0.0.1:7401"}, []string{"fra-1"}
	c.GossipKey, c.Survive, c.Limits, c.WAN, c.LogLevel, c.NoSync = "gossip.key", "node", starling.Bench, true, "debug", true
	secret := base64.StdEncoding.EncodeToString(make([]byte, 32))
	c.Apps = []starling.App{{Name: "demo", Open: true, Homes: []string{"fra", "iad"}, Keys: []starling.AppKey{{ID: "k", Secret: secret}}}}
	c.Costs = []starling.Cost{{To: "iad", Price: 0.05}}
	return c
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "node.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func flagsOf(t *testing.T, args ...string) *pflag.FlagSet {
	t.Helper()
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	settingFlags(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return flags
}

func TestConfigComesBackAsWritten(t *testing.T) {
	want := sampleConfig()
	text, err := writeConfig(want)
	if err != nil {
		t.Fatal(err)
	}
	l, err := loadConfig(writeFile(t, string(text)), nil, flagsOf(t))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(l.Config, want) {
		t.Errorf("got %+v\nwant %+v\nfrom\n%s", l.Config, want, text)
	}
	if err := l.Config.Check(); err != nil {
		t.Error(err)
	}
}

func TestConfigPrecedence(t *testing.T) {
	path := writeFile(t, "node: file\nregion: file\ncluster: file\ntls:\n  cert: file\n")
	environ := []string{"STARLING_REGION=env", "STARLING_CLUSTER=env", "STARLING_TLS_KEY=env", "STARLING_GROUPS_PER_REGION=7", "STARLING_WAN=true", "STARLING_HOME=/x", "NODE=no"}
	l, err := loadConfig(path, environ, flagsOf(t, "--cluster", "flag", "--tls-ca", "flag"))
	if err != nil {
		t.Fatal(err)
	}
	c := l.Config
	for _, tt := range []struct{ key, got, want, from string }{
		{"limits", c.Limits, starling.Production, fromDefault},
		{"node", c.Node, "file", fromFile},
		{"tls.cert", c.TLS.Cert, "file", fromFile},
		{"region", c.Region, "env", fromEnv},
		{"tls.key", c.TLS.Key, "env", fromEnv},
		{"cluster", c.Cluster, "flag", fromFlag},
		{"tls.ca", c.TLS.CA, "flag", fromFlag},
	} {
		if tt.got != tt.want || l.from[tt.key] != tt.from {
			t.Errorf("%s is %q from %s, want %q from %s", tt.key, tt.got, l.from[tt.key], tt.want, tt.from)
		}
	}
	if c.GroupsPerRegion != 7 || !c.WAN {
		t.Errorf("groups_per_region is %d, wan %v; want 7, true", c.GroupsPerRegion, c.WAN)
	}
}

func TestConfigRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"nodde: x\n":                "nodde",
		"peers:\n  - {idd: x}\n":    "idd",
		"groups_per_region: many\n": "groups_per_region",
		"node: [\n":                 "node.yaml",
	} {
		if _, err := loadConfig(writeFile(t, text), nil, flagsOf(t)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one about %q", text, err, want)
		}
	}
	if _, err := loadConfig(writeFile(t, "node: x\n"), []string{"STARLING_WAN=maybe"}, flagsOf(t)); err == nil || !strings.Contains(err.Error(), "$STARLING_WAN") {
		t.Errorf("a bad variable: error %v", err)
	}
	if _, err := loadConfig("nowhere.yaml", nil, flagsOf(t)); err == nil {
		t.Error("a missing file is no error")
	}
}

func TestShowLeavesSecretsOut(t *testing.T) {
	text, err := writeConfig(sampleConfig())
	if err != nil {
		t.Fatal(err)
	}
	path := writeFile(t, string(text))
	for _, args := range [][]string{{"config", "show", path}, {"config", "show", path, "--json"}} {
		out, code := runHere(t, "", args...)
		if code != exitOK || !strings.Contains(out, "fra-1") || strings.Contains(out, "AAAA") {
			t.Errorf("%q: status %d, output %s", args, code, out)
		}
	}
}

// TestReferenceIsCurrent fails when `go generate ./cmd/edge-node` would change
// a page.
func TestReferenceIsCurrent(t *testing.T) {
	for name, want := range referencePages(new(app).root()) {
		path := filepath.Join("..", "..", "docs", "reference", name)
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("%s is out of date: run `go generate ./cmd/edge-node`", path)
		}
	}
}
