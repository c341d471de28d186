package relay

import (
	"flag"
	"fmt"
	"os"
	"slices"
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
		s := &crowdScene{t: t, crowd: newCrowd("fra", roomLease, inTurn), now: time.UnixMilli(1_000_000)}
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
		shares, upto, _ := c.news(arg(1), arg(2) == "up", s.number(arg(3)), s.now)
		for _, x := range shares {
			said = append(said, fmt.Sprintf("%s, %d ms old: %d type %v, %d sessions of %d", x.Node, x.AgeMs, x.Typers, x.Typing, x.Sessions, x.Users))
		}
		return append(said, fmt.Sprint("up to ", upto))
	case "view":
		v := c.view()
		return []string{fmt.Sprintf("%v and %d others type, %d sessions of %d users", v.typing, v.others, v.sessions, v.users)}
	default:
		return s.talk(words[0], arg)
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

// inTurn draws lots by the first letters of names: in the first round a has the best one, in
// the second b, and a the worst.
func inTurn(round uint64, user string) uint64 {
	return (uint64(user[0]-'a') + 26 - round%26) % 26
}

// talk does what is about what is said live. Users are letters; they take turns, and say
// numbers.
func (s *crowdScene) talk(what string, arg func(int) string) []string {
	c, place := &s.crowd.talk, talkBytes
	switch what {
	case "says": // users lines bytes
		if arg(3) != "" {
			place = int(s.number(arg(3)))
		}
		lost := 0
		for _, l := range chorus(arg(1), int(s.number(arg(2)))) {
			lost += c.say(l.User, l.Content, s.now, s.now.UnixMilli(), place)
		}
		return []string{fmt.Sprintf("%d of %d have a place, %d bytes; %d lost theirs", len(c.lines), c.said-c.told, c.bytes, lost)}
	case "talk": // from up|down node began after upto users lines
		is := &wire.Talk{Node: arg(3), BeganMs: int64(s.number(arg(4))), After: s.number(arg(5)), Upto: s.number(arg(6))}
		if arg(7) != "" {
			is.Lines = chorus(arg(7), int(s.number(arg(8))))
		}
		lost, full := c.hear(arg(1), arg(2) == "down", is, s.now, place)
		return []string{fmt.Sprintf("%d of %d have a place; %d lost theirs, full %v", len(c.lines), c.said-c.told, lost, full)}
	case "tell": // peer up|down
		var said []string
		for _, is := range c.tell(arg(1), arg(2) == "up") {
			said = append(said, fmt.Sprintf("%s counts since %d, %d to %d: %s", is.Node, is.BeganMs, is.After, is.Upto, summary(is.Lines)))
		}
		slices.Sort(said)
		return said
	case "live":
		return []string{summary(c.live())}
	case "over":
		c.over(s.now)
		return nil
	}
	s.t.Fatalf("what is %q?", what)
	return nil
}

func chorus(users string, n int) (lines []*wire.Line) {
	for i := range n {
		lines = append(lines, &wire.Line{User: users[i%len(users):][:1], Content: strconv.Itoa(i + 1)})
	}
	return lines
}

func summary(lines []*wire.Line) string {
	words := []string{"nothing"}
	for i, l := range lines {
		words = append(words[:min(i, len(words))], l.User+l.Content)
	}
	return strings.Join(words, " ")
}
