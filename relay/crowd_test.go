package relay

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/starling-im/starling/wire"
)

var update = flag.Bool("update", false, "write what happens into testdata")

// TestCrowd plays what testdata/crowd.txtar does to a crowd, the lines that begin with
// ">", and compares what happens with the lines below each.
func TestCrowd(t *testing.T) {
	const file = "testdata/crowd.txtar"
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range archive.Files {
		s := &crowdScene{t: t, crowd: newCrowd("fra", roomLease), now: time.UnixMilli(1_000_000)}
		var out strings.Builder
		for line := range strings.Lines(string(f.Data)) {
			command, ok := strings.CutPrefix(strings.TrimSpace(line), "> ")
			if ok || !strings.HasPrefix(line, "  ") {
				out.WriteString(line)
			}
			if ok {
				for _, said := range s.do(strings.Fields(command)) {
					out.WriteString("  " + said + "\n")
				}
			}
		}
		if out.String() != string(f.Data) && !*update {
			t.Errorf("%s has changed (see with -update and git diff); got:\n%s", f.Name, out.String())
		}
		archive.Files[i].Data = []byte(out.String())
	}
	if *update {
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

type crowdScene struct {
	t     *testing.T
	crowd *crowd
	now   time.Time
}

func (s *crowdScene) do(words []string) (said []string) {
	c := s.crowd
	arg := func(i int) string {
		if i < len(words) {
			return words[i]
		}
		return ""
	}
	switch words[0] {
	case "types":
		if !c.typing(arg(1), true, s.now) {
			return []string{"no place"}
		}
	case "rests":
		c.typing(arg(1), false, s.now)
	case "joins":
		c.join(arg(1))
	case "parts":
		c.part(arg(1))
	case "wait":
		d, err := time.ParseDuration(arg(1))
		if err != nil {
			s.t.Fatal(err)
		}
		s.now = s.now.Add(d)
	case "tick":
		c.tick(s.now)
		if at := c.next(); !at.IsZero() {
			return []string{"again in " + at.Sub(s.now).String()}
		}
	case "hear": // from up|down node stamp age_ms typers sessions names
		share := &wire.Share{
			Node: arg(3), Stamp: s.number(arg(4)), AgeMs: uint32(s.number(arg(5))), Typers: uint32(s.number(arg(6))),
			Sessions: uint32(s.number(arg(7))), Users: uint32(s.number(arg(7))), Typing: words[8:],
		}
		newer, changed, _ := c.hear(arg(1), arg(2) == "down", []*wire.Share{share}, s.now)
		return []string{fmt.Sprintf("newer %v, changed %v", newer, changed)}
	case "news": // peer up|down since
		shares, upto := c.news(arg(1), arg(2) == "up", s.number(arg(3)), s.now)
		for _, x := range shares {
			said = append(said, fmt.Sprintf("%s, %d ms old: %d type %v, %d sessions of %d", x.Node, x.AgeMs, x.Typers, x.Typing, x.Sessions, x.Users))
		}
		return append(said, fmt.Sprint("up to ", upto))
	case "view":
		v := c.view()
		return []string{fmt.Sprintf("%v and %d others type, %d sessions of %d users", v.typing, v.others, v.sessions, v.users)}
	default:
		s.t.Fatalf("what is %q?", words)
	}
	return nil
}

func (s *crowdScene) number(text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}
