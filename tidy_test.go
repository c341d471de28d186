package starling_test

import (
	"bytes"
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The sizes within which a reader finds their way.
const (
	fileLines     = 400
	functionLines = 70
)

// ratchet holds what is longer than it should be, as "file" or "file:function"
// with its lines. A row may shrink and go; none is added and none grows.
var ratchet = map[string]int{}

// skips are the tests that may skip themselves, as "file:function", with a
// reason that a user would accept. CI fails on a test that did skip.
var skips = map[string]string{
	"cmd/edge-node/disk_linux_test.go:TestFullDiskEndsItsNodeAlone": "only root may mount a small disk",
	"cmd/edge-node/fault_disk_linux_test.go:judged.tamper":          "only strace, and root, can make the disk of a process fail",
	"cmd/edge-node/netns_linux_test.go:newLAN":                      "only root may make network namespaces, with the tools of Debian's iproute2 and nftables",
}

// skipping are the methods of a test that skip it, whoever holds the test.
var skipping = map[string]bool{"Skip": true, "Skipf": true, "SkipNow": true}

// timed are the files of floor 1 that may tell the time or start a goroutine,
// and why; floor 0 has none.
var timed = map[string]string{
	"internal/sendq/sendq.go": "a write needs a deadline and a goroutine; time is virtual in a bubble",
}

// clock is what package time offers to those who do not get the time passed.
var clock = []string{"Now", "Since", "Until", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"}

// Words that must not stand in a file. They are put together here so that this
// file passes its own rules.
var (
	leftOpen = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b|(?i)\b(not |un)imple` + `mented\b`)
	machine  = regexp.MustCompile(`(^|[^a-zA-Z0-9.])/(wor` + `k|hom` + `e|roo` + `t|tm` + `p|Use` + `rs)/[a-zA-Z.]`)
)

// textFiles are the endings of the files in which machine paths are looked for.
var textFiles = []string{"", ".go", ".md", ".mod", ".proto", ".sh", ".svg", ".txt", ".txtar", ".yaml", ".yml", ".toml", ".conf", ".json", ".csv"}

func TestTidy(t *testing.T) {
	report(t, checkTidy(os.DirFS(".")))
}

// checkTidy looks at every file of the house, but not into hidden folders,
// built programs and test data.
func checkTidy(house fs.FS) []string {
	c := &tidy{packages: map[string]string{}, seen: map[string]bool{}}
	err := fs.WalkDir(house, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			hidden := strings.HasPrefix(d.Name(), ".") && name != "." && name != ".ci"
			if hidden || d.Name() == "bin" || d.Name() == "testdata" {
				return fs.SkipDir
			}
			return nil
		}
		if !slices.Contains(textFiles, path.Ext(name)) && name != ".ci/run" {
			return nil
		}
		src, err := fs.ReadFile(house, name)
		if err != nil {
			return err
		}
		c.file(name, src)
		return nil
	})
	if err != nil {
		c.add(".", "%v", err)
	}
	c.finish()
	return c.found
}

// tidy gathers what checkTidy finds.
type tidy struct {
	found    []string
	packages map[string]string // folder: what its package comment lacks, "" = nothing
	seen     map[string]bool   // rows of ratchet that were met
}

func (c *tidy) add(where, format string, args ...any) {
	c.found = append(c.found, where+": "+fmt.Sprintf(format, args...))
}

func (c *tidy) file(name string, src []byte) {
	if bytes.IndexByte(src, 0) >= 0 {
		return // a built program
	}
	code := path.Ext(name) == ".go" || path.Ext(name) == ".proto" || path.Ext(name) == ".sh" || strings.HasPrefix(name, ".ci/")
	n := 0
	for line := range bytes.Lines(src) {
		n++
		if machine.Match(line) {
			c.add(fmt.Sprintf("%s:%d", name, n), "a path of one machine")
		}
		if code && leftOpen.Match(line) {
			c.add(fmt.Sprintf("%s:%d", name, n), "left open")
		}
	}
	if path.Ext(name) != ".go" {
		return
	}
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, name, src, parser.ParseComments)
	if err != nil {
		c.add(name, "%v", err)
		return
	}
	if ast.IsGenerated(f) {
		return
	}
	c.size(name, n, fileLines)
	c.goFile(name, set, f)
}

// size holds a file or function to max lines or to its row of the ratchet.
func (c *tidy) size(name string, lines, max int) {
	allowed, ok := ratchet[name]
	c.seen[name] = ok
	switch {
	case ok && lines < allowed:
		c.add(name, "%d lines, lower its row from %d", lines, allowed)
	case lines > cmp.Or(allowed, max):
		c.add(name, "%d lines, more than %d", lines, cmp.Or(allowed, max))
	}
}

func (c *tidy) goFile(name string, set *token.FileSet, f *ast.File) {
	test := strings.HasSuffix(name, "_test.go")
	if !test {
		c.packageComment(path.Dir(name), f)
	}
	u := uses{tidy: c, file: name, test: test, library: f.Name.Name != "main", names: importNames(f)}
	u.floor = floorOf(path.Dir(name))
	for _, d := range f.Decls {
		where := name
		if fn, ok := d.(*ast.FuncDecl); ok {
			where = name + ":" + funcName(fn)
			n := lines(set, fn)
			if test {
				n -= tableLines(set, fn)
			}
			c.size(where, n, functionLines)
		}
		if !test && u.library {
			c.exported(name, d)
		}
		ast.Inspect(d, func(n ast.Node) bool {
			u.node(where, n)
			return true
		})
	}
}

func lines(set *token.FileSet, n ast.Node) int {
	return set.Position(n.End()).Line - set.Position(n.Pos()).Line + 1
}

// tableLines counts the lines between the braces of a test's tables: they are
// data, and are read one row at a time.
func tableLines(set *token.FileSet, fn *ast.FuncDecl) (n int) {
	ast.Inspect(fn, func(node ast.Node) bool {
		table, ok := node.(*ast.CompositeLit)
		if ok {
			n += max(0, lines(set, table)-2)
		}
		return !ok
	})
	return n
}

// packageComment wants one file of each package to say what the package is for.
func (c *tidy) packageComment(dir string, f *ast.File) {
	want := "Package " + f.Name.Name + " "
	if f.Name.Name == "main" {
		want = "Command " + path.Base(dir) + " "
	}
	lack, seen := c.packages[dir]
	switch text := f.Doc.Text(); {
	case strings.HasPrefix(text, want):
		c.packages[dir] = ""
	case text != "":
		c.packages[dir] = fmt.Sprintf("the package comment does not start with %q", want)
	case !seen:
		lack = "no package comment"
		fallthrough
	default:
		c.packages[dir] = lack
	}
}

// exported wants a comment on what godoc shows.
func (c *tidy) exported(name string, d ast.Decl) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Recv == nil && d.Doc == nil {
			c.add(name+":"+d.Name.Name, "exported without a comment")
		}
	case *ast.GenDecl:
		for _, s := range d.Specs {
			if s, ok := s.(*ast.TypeSpec); ok && s.Name.IsExported() && d.Doc == nil && s.Doc == nil {
				c.add(name+":"+s.Name.Name, "exported without a comment")
			}
		}
	}
}

func (c *tidy) finish() {
	for dir, lack := range c.packages {
		if lack != "" {
			c.add(dir, "%s", lack)
		}
	}
	for row := range ratchet {
		if !c.seen[row] {
			c.add("ratchet", "no such file or function: %s", row)
		}
	}
	slices.Sort(c.found)
}

// uses looks for calls and statements that a file of its place does without.
type uses struct {
	*tidy
	file          string
	floor         int
	test, library bool
	names         map[string]string // as imported: import path
}

func (u *uses) node(where string, n ast.Node) {
	switch n := n.(type) {
	case *ast.GoStmt:
		if !u.test && u.floor <= 1 && timed[u.file] == "" {
			u.add(where, "go statement in floor %d", u.floor)
		}
	case *ast.SelectorExpr:
		if u.test && skipping[n.Sel.Name] && skips[where] == "" {
			u.add(where, "%s without a reason in skips", n.Sel.Name)
		}
		if x, ok := n.X.(*ast.Ident); ok && !u.test {
			u.selector(where, u.names[x.Name], n.Sel.Name)
		}
	}
}

func (u *uses) selector(where, pkg, name string) {
	switch {
	case pkg == "time" && name == "Sleep":
		u.add(where, "time.Sleep")
	case pkg == "time" && slices.Contains(clock, name) && u.floor <= 1 && timed[u.file] == "":
		u.add(where, "time.%s in floor %d", name, u.floor)
	case !u.library:
	case pkg == "fmt" && strings.HasPrefix(name, "Print"), pkg == "os" && name == "Exit", pkg == "log" && (strings.HasPrefix(name, "Print") || strings.HasPrefix(name, "Fatal")):
		u.add(where, "%s.%s in a library", path.Base(pkg), name)
	}
}

// floorOf is the floor of a folder; one without a floor is under no floor's
// rules.
func floorOf(dir string) int {
	if floor, ok := floors[dir]; ok {
		return floor
	}
	return 99
}

// importNames maps the names that a file knows packages by to their paths.
func importNames(f *ast.File) map[string]string {
	names := map[string]string{}
	for _, i := range f.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			continue
		}
		name := path.Base(p)
		if i.Name != nil {
			name = i.Name.Name
		}
		names[name] = p
	}
	return names
}

// funcName is "function" or "type.method".
func funcName(fn *ast.FuncDecl) string {
	if fn.Recv == nil || len(fn.Recv.List) == 0 {
		return fn.Name.Name
	}
	t := fn.Recv.List[0].Type
	if s, ok := t.(*ast.StarExpr); ok {
		t = s.X
	}
	if g, ok := t.(*ast.IndexExpr); ok {
		t = g.X
	}
	if id, ok := t.(*ast.Ident); ok {
		return id.Name + "." + fn.Name.Name
	}
	return fn.Name.Name
}

// report fails t with each finding.
func report(t *testing.T, found []string) {
	t.Helper()
	for _, f := range found {
		t.Error(f)
	}
}

// expect fails t unless one finding starts with want.
func expect(t *testing.T, found []string, want string) {
	t.Helper()
	if !slices.ContainsFunc(found, func(f string) bool { return strings.HasPrefix(f, want) }) {
		t.Errorf("found %q, want %q", found, want)
	}
}
