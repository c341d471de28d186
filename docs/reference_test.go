package docs_test

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/starling-im/starling/wire"
)

// TestErrorsAreDocumented compares docs/reference/errors.md with the codes and
// what package wire says about each.
func TestErrorsAreDocumented(t *testing.T) {
	page := read(t, "docs/reference/errors.md")
	for name, value := range constants(t, "wire/error.go") {
		code, ok := strings.CutPrefix(name, "Code")
		if !ok || code == "" {
			continue
		}
		e := wire.Errorf(constant.StringVal(value), "")
		later, ended := "no", "rejected"
		if e.Retryable {
			later = "yes"
		}
		if e.Unknown() {
			ended = "unknown"
		}
		want(t, page, fmt.Sprintf("\n| `%s` | %s | %s | ", e.Code, later, ended))
	}
}

// TestLimitsAreDocumented compares docs/reference/limits.md with the values.
func TestLimitsAreDocumented(t *testing.T) {
	page := read(t, "docs/reference/limits.md")
	for name, value := range constants(t, "wire/limits.go") {
		if ast.IsExported(name) {
			want(t, page, fmt.Sprintf("\n| `%s` | %s | ", name, inUnits(name, value)))
		}
	}
}

// TestProtocolIsDocumented looks for each message, field, enum value and close
// code in docs/reference/protocol.md.
func TestProtocolIsDocumented(t *testing.T) {
	page := read(t, "docs/reference/protocol.md")
	for name, value := range constants(t, "wire/close.go") {
		if name != "CloseFinal" { // where the range begins, no code of its own
			want(t, page, fmt.Sprintf("\n| %s | `%s` | ", value, name))
		}
	}
	schema := read(t, "wire/im.proto")
	schema = regexp.MustCompile(`(?s)\nmessage Frame \{.*?\n\}\n`).ReplaceAllString(schema, "\n")
	for _, m := range regexp.MustCompile(`(?m)^(?:message|enum) (\w+)|^  (?:repeated )?(?:\w+ )?(\w+) = \d+;`).FindAllStringSubmatch(schema, -1) {
		want(t, page, "`"+m[1]+m[2]+"`")
	}
}

// TestLinksLead checks that what a document links to is there, headings too.
func TestLinksLead(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]*)(#[^)]*)?\)`)
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Ext(name) != ".md" {
			return err
		}
		for _, m := range link.FindAllStringSubmatch(read(t, name), -1) {
			target := path.Join(path.Dir(name), m[1])
			if m[1] == "" {
				target = name
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", name, m[1], err)
			} else if m[2] != "" && !hasHeading(read(t, target), m[2][1:]) {
				t.Errorf("%s links to %s%s, a heading that is not there", name, m[1], m[2])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// hasHeading looks for the heading that renderers give this anchor.
func hasHeading(page, anchor string) bool {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		name := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		if strings.ReplaceAll(name, " ", "-") == anchor {
			return true
		}
	}
	return false
}

// constants returns the values of a file's constants.
func constants(t *testing.T, file string) map[string]constant.Value {
	t.Helper()
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	// The rest of the package is missing, which is no matter to constants.
	conf := types.Config{Importer: importer.ForCompiler(set, "source", nil), Error: func(error) {}}
	pkg, _ := conf.Check("wire", set, []*ast.File{f}, nil)
	values := map[string]constant.Value{}
	for _, name := range pkg.Scope().Names() {
		if c, ok := pkg.Scope().Lookup(name).(*types.Const); ok {
			values[name] = c.Val()
		}
	}
	if len(values) == 0 {
		t.Fatalf("%s has no constants", file)
	}
	return values
}

// inUnits writes a limit as a person would.
func inUnits(name string, value constant.Value) string {
	n, _ := constant.Int64Val(value)
	switch {
	case n >= int64(time.Hour):
		return fmt.Sprintf("%d h", n/int64(time.Hour))
	case n >= int64(time.Second):
		return fmt.Sprintf("%d s", n/int64(time.Second))
	case strings.HasSuffix(name, "Every"):
		return fmt.Sprintf("%d ms", n/int64(time.Millisecond))
	case name == "PageEvents", name == "Follows", name == "InFlight", name == "TypingNames", name == "Watches":
		if n >= 1000 {
			return fmt.Sprintf("%d,%03d", n/1000, n%1000)
		}
		return fmt.Sprint(n)
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func want(t *testing.T, page, text string) {
	t.Helper()
	if !strings.Contains(page, text) {
		t.Errorf("not documented: %q", text)
	}
}

// TestDependenciesAreListed compares docs/dependencies.md with what go.mod
// requires directly. A row stands for the modules below its path too.
func TestDependenciesAreListed(t *testing.T) {
	rows := regexp.MustCompile("(?m)^\\| `([^`]+)` |`((?:go|golang)\\.[^`]+)` \\(").FindAllStringSubmatch(read(t, "docs/dependencies.md"), -1)
	used := map[string]bool{}
	for _, line := range strings.Split(read(t, "go.mod"), "\n") {
		fields := strings.Fields(strings.TrimPrefix(line, "require "))
		if len(fields) != 2 || !strings.HasPrefix(fields[1], "v") {
			continue // not a requirement, or one with the comment "// indirect"
		}
		found := false
		for _, r := range rows {
			if row := r[1] + r[2]; fields[0] == row || strings.HasPrefix(fields[0], row+"/") {
				used[row], found = true, true
			}
		}
		if !found {
			t.Errorf("docs/dependencies.md has no row for %s", fields[0])
		}
	}
	for _, r := range rows {
		if !used[r[1]+r[2]] {
			t.Errorf("docs/dependencies.md has a row for %s, which go.mod does not require directly", r[1]+r[2])
		}
	}
}
