package starling_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"testing"
)

// TestArchitectureNames checks that the functions and types which
// ARCHITECTURE.md names are there.
func TestArchitectureNames(t *testing.T) {
	folders := map[string]string{"starling": ".", "sendq": "internal/sendq"}
	for dir, floor := range floors {
		if floor < 3 {
			folders[path.Base(dir)] = dir
		}
	}
	known := map[string]bool{}
	for name, dir := range folders {
		for _, n := range declared(t, dir) {
			known[name+"."+n] = true
		}
	}
	page, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`([a-z]+)((?:\\.[A-Za-z]+){1,2})`").FindAllStringSubmatch(string(page), -1)
	if len(named) < 30 {
		t.Errorf("only %d names were found", len(named))
	}
	for _, m := range named {
		if folders[m[1]] != "" && !known[m[1]+m[2]] {
			t.Errorf("ARCHITECTURE.md names %s%s, which is not there", m[1], m[2])
		}
	}
}

// declared returns the functions, types and methods of a folder.
func declared(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := fs.Glob(os.DirFS(dir), "*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), path.Join(dir, name), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				names = append(names, funcName(d))
			case *ast.GenDecl:
				for _, s := range d.Specs {
					if s, ok := s.(*ast.TypeSpec); ok {
						names = append(names, s.Name.Name)
					}
				}
			}
		}
	}
	return names
}
