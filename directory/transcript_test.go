package directory

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write what happens into testdata")

// rank stands in for that of package geo, which is a sibling.
func rank(key string, choices []string) []string {
	score := func(c string) uint64 {
		h := fnv.New64a()
		h.Write([]byte(c + "\x00" + key + "\x00" + c))
		return h.Sum64()
	}
	order := slices.Clone(choices)
	slices.SortFunc(order, func(a, b string) int {
		if score(a) < score(b) {
			return -1
		}
		return 1
	})
	return order
}

// TestTranscripts plays the commands in testdata/*.txtar, the lines that begin
// with ">", and compares what happens with the lines below each. A file
// "first" in an archive is a first directory for all others there.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			first := New(rank)
			for i, f := range archive.Files {
				if f.Name == "first" {
					if first, err = fold(first, strings.ReplaceAll(string(f.Data), "\n", "")); err != nil {
						t.Fatal(err)
					}
					continue
				}
				got := play(t, first, string(f.Data))
				if got != string(f.Data) && !*update {
					t.Errorf("%s has changed (see with -update and git diff); got:\n%s", f.Name, got)
				}
				archive.Files[i].Data = []byte(got)
			}
			if *update {
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func fold(s *State, document string) (*State, error) {
	c, err := Decode([]byte(document))
	if err != nil {
		return s, err
	}
	return s.Apply(c)
}

func play(t *testing.T, s *State, script string) string {
	var out strings.Builder
	for line := range strings.Lines(script) {
		line = strings.TrimSuffix(line, "\n")
		command, ok := strings.CutPrefix(line, "> ")
		if ok {
			var result string
			s, result = do(t, s, command)
			out.WriteString(line + "\n  " + result + "\n")
		} else if line == "" || strings.HasPrefix(line, "#") {
			out.WriteString(line + "\n")
		}
	}
	return out.String()
}

// do runs one line of a transcript:
//
//	{…}                a change's document
//	locate APP ROOM    the group of a room
//	places APP ROOM    the groups where it may be
//	key ID             whose key it is
//	show               the whole directory, as a snapshot
func do(t *testing.T, s *State, line string) (*State, string) {
	if strings.HasPrefix(line, "{") || strings.HasPrefix(line, "!") {
		return applyLine(t, s, strings.TrimPrefix(line, "!"))
	}
	w := strings.SplitN(line, " ", 3)
	switch {
	case w[0] == "locate" && len(w) == 3:
		id, err := s.Locate(w[1], w[2])
		if err != nil {
			return s, "refused " + err.Error()
		}
		g, _ := s.Group(id)
		return s, strings.TrimSpace(fmt.Sprintf("group %d %s", id, g.Region))
	case w[0] == "places" && len(w) == 3:
		places, err := s.Places(w[1], w[2])
		if err != nil {
			return s, "refused " + err.Error()
		}
		return s, fmt.Sprintf("groups %v", places)
	case w[0] == "key" && len(w) == 2:
		k, ok := s.Key(w[1])
		return s, fmt.Sprintf("%v %s %q", ok, k.App, k.Secret)
	case w[0] == "show":
		b, err := s.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		return s, string(b)
	}
	t.Fatalf("unknown command %q", line)
	return s, ""
}

func applyLine(t *testing.T, s *State, document string) (*State, string) {
	before, _ := s.Snapshot()
	next, err := fold(s, document)
	if after, _ := s.Snapshot(); !bytes.Equal(before, after) {
		t.Errorf("%s changed the state before it:\n%s\n%s", document, before, after)
	}
	if r := (*Refusal)(nil); err != nil && (!errors.As(err, &r) || next != s) {
		t.Errorf("%s: untyped error %v, or a new state with it", document, err)
	}
	if err := next.Check(); err != nil {
		t.Errorf("after %s: %v", document, err)
	}
	restoreSame(t, next)
	switch {
	case err != nil:
		return s, "refused " + err.Error()
	case next == s:
		return s, "no change"
	}
	if next.Placement() != s.Placement() {
		return next, fmt.Sprintf("version %d, placement %d", next.Version(), next.Placement())
	}
	return next, fmt.Sprintf("version %d", next.Version())
}

// restoreSame checks that a snapshot loses nothing.
func restoreSame(t *testing.T, s *State) {
	t.Helper()
	b, err := s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Restore(b, rank)
	if err != nil {
		t.Fatal(err)
	}
	if b2, _ := again.Snapshot(); !again.same(s) || again.version != s.version || !bytes.Equal(b, b2) {
		t.Errorf("restored another state:\n%s\n%s", b, b2)
	}
}
