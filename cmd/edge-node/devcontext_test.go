package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/starling-im/starling/cmd/edge-node/internal/home"
)

// TestTakeOver replaces what a killed dev left, and nothing else.
func TestTakeOver(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	l.Close()
	a := &app{home: t.TempDir(), context: "default", logLevel: "error", stderr: testLog{t, "dev"}}
	if err := a.takeOver(t.Context()); err != nil {
		t.Errorf("there is no context: %v", err)
	}
	left, kept := filepath.Join(t.TempDir(), temporaryPrefix+"1"), filepath.Join(t.TempDir(), "data")
	for _, dir := range []string{left, kept} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		c := home.Context{Name: "default", Cluster: devCluster, Temporary: dir, Nodes: []home.Node{{ID: "fra-1", Region: "fra", Addr: closed}}}
		if _, err := c.Save(a.home); err != nil {
			t.Fatal(err)
		}
		if err := a.takeOver(t.Context()); err != nil {
			t.Errorf("the mesh is dead: %v", err)
		}
	}
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("the temporary folder of a dead mesh is there: %v", err)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Errorf("a folder of another name: %v", err)
	}
	other := home.Context{Name: "default", Cluster: "prod"}
	if _, err := other.Save(a.home); err != nil {
		t.Fatal(err)
	}
	if err := a.takeOver(t.Context()); err == nil || !strings.Contains(err.Error(), "--context NAME") {
		t.Errorf("a mesh that dev did not make: %v", err)
	}
}
