package home

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func sample() *Context {
	return &Context{
		Name: "default", Cluster: "dev", Instance: "this start", App: "demo", ServerName: "dev.mesh",
		Nodes: []Node{{"fra-1", "fra", "127.0.0.1:1"}, {"fra-2", "fra", "127.0.0.1:2"}, {"iad-1", "iad", "127.0.0.1:3"}},
		Keys:  map[string]Key{"demo": {"k1", []byte("secret")}},
	}
}

func TestSaveAndLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "home")
	c := sample()
	path, err := c.Save(dir)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v (%v), want 0600", info.Mode(), err)
	}
	got, err := Load(dir, "default")
	if err != nil || !reflect.DeepEqual(got, c) {
		t.Errorf("loaded %+v (%v), want %+v", got, err, c)
	}
	if byPath, err := Load(t.TempDir(), path); err != nil || byPath.Cluster != "dev" {
		t.Errorf("by its path: %+v, %v", byPath, err)
	}
	if names := Names(dir); !reflect.DeepEqual(names, []string{"default"}) {
		t.Errorf("names are %q", names)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestLoadRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(dir, "default"); !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), "edge-node dev") {
		t.Errorf("no file: %v", err)
	}
	if _, err := Load(dir, "../etc/passwd"); err == nil {
		t.Error("a path is taken for a name")
	}
	path, err := sample().Save(dir)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{"{": "damaged", `{"format":2}`: "newer release"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(dir, "default"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestRemoveSparesAnother(t *testing.T) {
	dir := t.TempDir()
	mine, other := sample(), sample()
	other.Instance = "another start"
	if _, err := other.Save(dir); err != nil {
		t.Fatal(err)
	}
	if err := mine.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir, "default"); err != nil {
		t.Errorf("the other mesh's context is gone: %v", err)
	}
	if err := other.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir, "default"); !errors.Is(err, ErrNone) {
		t.Errorf("after Remove: %v", err)
	}
}

func TestAddrs(t *testing.T) {
	c := sample()
	for _, tt := range []struct {
		region string
		n      int
		want   string
	}{
		{"fra", 0, "127.0.0.1:1 127.0.0.1:2 127.0.0.1:3"},
		{"fra", 3, "127.0.0.1:2 127.0.0.1:1 127.0.0.1:3"},
		{"iad", 0, "127.0.0.1:3 127.0.0.1:1 127.0.0.1:2"},
		{"", 0, "127.0.0.1:1 127.0.0.1:2 127.0.0.1:3"},
	} {
		got, err := c.AllAddrs(tt.region, tt.n)
		if err != nil || strings.Join(got, " ") != tt.want {
			t.Errorf("%q %d: %q (%v), want %q", tt.region, tt.n, got, err, tt.want)
		}
	}
	if _, err := c.AllAddrs("mars", 0); err == nil {
		t.Error("an unknown region has addresses")
	}
}
