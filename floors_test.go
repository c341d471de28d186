package starling_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/starling-im/starling"

// floors is the plan of the house: a package imports only packages of lower
// floors, so packages of one floor never import one another. Where two of them
// must meet, the caller declares a small interface and package starling joins
// them. A package in the internal folder of another belongs to that one: it
// stands on its floor and may be imported by its other parts.
var floors = map[string]int{
	"room":           0,
	"geo":            0,
	"directory":      0,
	"wire":           1,
	"identity":       1,
	"internal/sendq": 1,
	"mesh":           2,
	"consensus":      2,
	"relay":          2,
	"edge":           2,
	"client":         2,
	".":              3,
	"cmd/edge-node":  4,
	"docs":           4, // the tests of what documents say
}

// worlds are simulated surroundings and their judge: only tests import them.
var worlds = map[string]bool{
	"internal/oracle":  true,
	"internal/simdisk": true,
	"internal/simnet":  true,
}

// impure are the standard packages that floor 0 does without: its packages are
// functions of what they are given, without clock, chance, lock or I/O.
var impure = []string{
	"context", "crypto/rand", "log", "log/slog", "math/rand", "math/rand/v2", "net", "net/http",
	"os", "os/exec", "runtime", "sync", "sync/atomic", "syscall", "unsafe",
}

// pureEnough is what a package of floor 0 imports nevertheless, and why.
var pureEnough = map[string]map[string]string{
	"geo": {"sync": "its embedded table is parsed once, at first use"},
}

// importers says who imports a third-party module. One package is the rule, so
// that a library can be replaced in one place; every further one is an
// exception, and has its reason in the comment.
var importers = map[string][]string{
	// The doors, the links and the dialer are all QUIC; each owns its half of
	// a connection's life.
	"github.com/quic-go/quic-go":          {"mesh", "edge", "client"},
	"github.com/gobwas/ws":                {"edge", "client"}, // the same, over TCP
	"github.com/hashicorp/memberlist":     {"mesh"},
	"github.com/hashicorp/serf":           {"geo"}, // coordinates; pure but for its lock
	"github.com/hashicorp/raft":           {"consensus"},
	"github.com/hashicorp/go-hclog":       {"consensus"},                     // raft logs through it
	"github.com/cockroachdb/pebble/v2":    {"consensus", "internal/simdisk"}, // a disk of its tests
	"github.com/klauspost/compress":       {"wire", "consensus"},             // frames, snapshots
	"google.golang.org/protobuf":          {"wire"},
	"github.com/planetscale/vtprotobuf":   {"wire"},
	"github.com/golang-jwt/jwt/v5":        {"edge"},
	"github.com/google/uuid":              {"client"},
	"github.com/spf13/cobra":              {"cmd/edge-node"},
	"github.com/spf13/pflag":              {"cmd/edge-node"},
	"github.com/knadh/koanf":              {"cmd/edge-node"},
	"charm.land/bubbletea/v2":             {"cmd/edge-node"},
	"charm.land/bubbles/v2":               {"cmd/edge-node"},
	"charm.land/lipgloss/v2":              {"cmd/edge-node"},
	"github.com/schollz/progressbar/v3":   {"cmd/edge-node"},
	"github.com/go-viper/mapstructure/v2": {"cmd/edge-node"},
	"golang.org/x/term":                   {"cmd/edge-node"},
	"golang.org/x/text":                   {"room"},
	"golang.org/x/time":                   {"relay", "edge"},
	"github.com/prometheus/client_golang": {"."},
	"github.com/prometheus/client_model":  {"."},
}

// testImports is what test files may import beyond what their package may: a
// package of the same or a higher floor, a world, a third-party package.
// "*" stands for every package.
var testImports = map[string][]string{
	"*": {"go.uber.org/goleak", "golang.org/x/tools/txtar"},
	".": {"github.com/quic-go/quic-go", "google.golang.org/protobuf"}, // the latter reads metrics
	// Two thousand clients over a few sockets.
	"cmd/edge-node": {"github.com/quic-go/quic-go"},
	// A second opinion on what is linearizable.
	"internal/oracle": {"github.com/anishathalye/porcupine"},
}

// listed is what this test reads of `go list -json`.
type listed struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

func TestImportsGoDown(t *testing.T) {
	pkgs := list(t)
	report(t, checkFloors(pkgs))
	report(t, checkImporters(pkgs))
	report(t, checkStale(pkgs))
}

// TestFloorRulesBite breaks each rule once, so that a checker which passes
// everything does not pass.
func TestFloorRulesBite(t *testing.T) {
	in := func(p string) string { return module + "/" + p }
	for _, c := range []struct {
		name  string
		check func([]listed) []string
		pkg   listed
		want  string
	}{
		{"up", checkFloors, listed{ImportPath: in("wire"), Imports: []string{in("mesh")}}, "wire (floor 1) imports mesh (floor 2)"},
		{"sibling", checkFloors, listed{ImportPath: in("mesh"), Imports: []string{in("relay")}}, "mesh (floor 2) imports relay (floor 2)"},
		{"root", checkFloors, listed{ImportPath: in("edge"), Imports: []string{module}}, "edge (floor 2) imports . (floor 3)"},
		{"no floor", checkFloors, listed{ImportPath: in("util")}, "util has no floor"},
		{"impure", checkFloors, listed{ImportPath: in("room"), Imports: []string{"os"}}, "room (floor 0) imports os"},
		{"world", checkFloors, listed{ImportPath: in("mesh"), Imports: []string{in("internal/simnet")}}, "mesh imports internal/simnet, which is for tests"},
		{"internal up", checkFloors, listed{ImportPath: in("mesh/internal/x"), Imports: []string{in("relay")}}, "mesh/internal/x (floor 2) imports relay (floor 2)"},
		{"test sibling", checkFloors, listed{ImportPath: in("relay"), TestImports: []string{in("mesh")}}, "tests of relay (floor 2) import mesh (floor 2)"},
		{"second importer", checkImporters, listed{ImportPath: in("edge"), Imports: []string{"github.com/cockroachdb/pebble/v2/vfs"}}, "edge imports github.com/cockroachdb/pebble/v2"},
		{"unknown module", checkImporters, listed{ImportPath: in("edge"), Imports: []string{"example.org/left/pad"}}, "edge imports example.org/left/pad"},
		{"test module", checkImporters, listed{ImportPath: in("edge"), XTestImports: []string{"github.com/hashicorp/raft"}}, "tests of edge import github.com/hashicorp/raft"},
		{"stale", checkStale, listed{ImportPath: in("wire")}, "mesh: no such package"},
		{"stale module", checkStale, listed{ImportPath: in("wire")}, "wire does not import github.com/klauspost/compress"},
	} {
		t.Run(c.name, func(t *testing.T) {
			expect(t, c.check([]listed{c.pkg}), c.want)
		})
	}
	fine := []listed{{ImportPath: module, Imports: []string{in("mesh"), "sync"}}, {ImportPath: in("mesh"), Imports: []string{in("mesh/internal/x")}, TestImports: []string{in("internal/simnet")}}, {ImportPath: in("client"), Imports: []string{in("wire"), "github.com/quic-go/quic-go"}}}
	if found := append(checkFloors(fine), checkImporters(fine)...); len(found) > 0 {
		t.Errorf("sound imports are refused: %q", found)
	}
}

// checkFloors holds the packages of this module to their floors.
func checkFloors(pkgs []listed) (found []string) {
	for _, p := range pkgs {
		name := short(p.ImportPath)
		if worlds[name] {
			continue
		}
		floor, ok := floors[owner(name)]
		if !ok {
			found = append(found, name+" has no floor: give it one in floors")
			continue
		}
		for _, i := range p.Imports {
			if floor == 0 && slices.Contains(impure, i) && pureEnough[name][i] == "" {
				found = append(found, fmt.Sprintf("%s (floor 0) imports %s", name, i))
			}
			if worlds[short(i)] {
				found = append(found, name+" imports "+short(i)+", which is for tests")
			} else if up(name, i) {
				found = append(found, says(name, floor, "imports", i))
			}
		}
		for _, i := range testsOf(p) {
			if up(name, i) && !testMay(name, i) {
				found = append(found, says("tests of "+name, floor, "import", i))
			}
		}
	}
	return found
}

// up reports whether an import does not go down.
func up(name, path string) bool {
	to := owner(short(path))
	return ours(path) && to != owner(name) && !worlds[to] && floors[to] >= floors[owner(name)]
}

// owner is the package that an internal package belongs to, else itself.
func owner(name string) string {
	if i := strings.Index(name, "/internal/"); i > 0 {
		return name[:i]
	}
	return name
}

// checkImporters holds third-party modules to their importers.
func checkImporters(pkgs []listed) (found []string) {
	for _, p := range pkgs {
		name := owner(short(p.ImportPath))
		for _, i := range p.Imports {
			if m := foreign(i); m != "" && !slices.Contains(importers[m], name) {
				found = append(found, name+" imports "+m+": see importers")
			}
		}
		for _, i := range testsOf(p) {
			if m := foreign(i); m != "" && !slices.Contains(importers[m], name) && !testMay(name, i) {
				found = append(found, "tests of "+name+" import "+m+": see testImports")
			}
		}
	}
	return found
}

// checkStale finds rows of the tables that nothing needs any more.
func checkStale(pkgs []listed) (found []string) {
	imports := map[string][]string{}
	for _, p := range pkgs {
		name := owner(short(p.ImportPath))
		imports[name] = append(imports[name], p.Imports...)
	}
	for _, name := range slices.Concat(slices.Collect(maps.Keys(floors)), slices.Collect(maps.Keys(worlds))) {
		if _, ok := imports[name]; !ok {
			found = append(found, name+": no such package")
		}
	}
	for m, names := range importers {
		for _, name := range names {
			if !slices.ContainsFunc(imports[name], func(i string) bool { return foreign(i) == m }) {
				found = append(found, name+" does not import "+m)
			}
		}
	}
	slices.Sort(found)
	return found
}

func says(who string, floor int, verb, path string) string {
	return fmt.Sprintf("%s (floor %d) %s %s (floor %d)", who, floor, verb, short(path), floors[owner(short(path))])
}

// short is a package's folder in the module, "." for the root.
func short(path string) string {
	if path == module {
		return "."
	}
	return strings.TrimPrefix(path, module+"/")
}

func ours(path string) bool { return path == module || strings.HasPrefix(path, module+"/") }

// foreign is the module that an import path belongs to, "" if it is ours or
// the standard library's. A module that no table knows is its own path.
func foreign(path string) string {
	if first, _, _ := strings.Cut(path, "/"); ours(path) || !strings.Contains(first, ".") {
		return ""
	}
	best := ""
	for m := range importers {
		if (path == m || strings.HasPrefix(path, m+"/")) && len(m) > len(best) {
			best = m
		}
	}
	if best == "" {
		return path
	}
	return best
}

func testsOf(p listed) []string { return slices.Concat(p.TestImports, p.XTestImports) }

// testMay looks an import of a test up in testImports; a row covers the
// packages below it too.
func testMay(name, path string) bool {
	for _, may := range slices.Concat(testImports["*"], testImports[name]) {
		if short(path) == may || strings.HasPrefix(path, may+"/") {
			return true
		}
	}
	return false
}

// list asks the go command for every package of the module.
func list(t *testing.T) (pkgs []listed) {
	t.Helper()
	out, err := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports", "./...").Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		t.Fatalf("go list: %v\n%s", err, failed.Stderr)
	}
	if err != nil {
		t.Fatal(err)
	}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return pkgs
		}
		if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}
