package mesh

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write what happens into testdata")

// TestScavenger plays the commands in testdata/scavenger.txtar, the lines that begin
// with ">", and compares the rates with the lines below each.
func TestScavenger(t *testing.T) {
	const file = "testdata/scavenger.txtar"
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range archive.Files {
		way := &wayOfTest{now: time.Unix(1e9, 0), glance: glance{window: 40 << 10}}
		var out strings.Builder
		for line := range strings.Lines(string(f.Data)) {
			line = strings.TrimSuffix(line, "\n")
			if command, ok := strings.CutPrefix(line, "> "); ok {
				fmt.Fprintf(&out, "%s\n  %s\n", line, way.do(t, strings.Fields(command)))
			} else if line == "" || strings.HasPrefix(line, "#") {
				out.WriteString(line + "\n")
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

// wayOfTest is a way with figures that the transcript sets.
type wayOfTest struct {
	s scavenger
	glance
	now time.Time
}

// do runs one line of a transcript, and returns the rates after it:
//
//	for TIME [rtt TIME] [late TIME] [loss PERCENT] [uses PERCENT]
//	idle TIME
//
// late is what one of two round trips takes beyond rtt, uses the part of the rate that
// is written. The round trip stays until another is given.
func (w *wayOfTest) do(t *testing.T, words []string) string {
	t.Helper()
	given := map[string]string{}
	for i := 0; i+1 < len(words); i += 2 {
		given[words[i]] = words[i+1]
	}
	duration := func(name string) time.Duration {
		if given[name] == "" {
			return 0
		}
		d, err := time.ParseDuration(given[name])
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	percent := func(name string, otherwise float64) float64 {
		if given[name] == "" {
			return otherwise
		}
		v, err := strconv.ParseFloat(given[name], 64)
		if err != nil {
			t.Fatal(err)
		}
		return v / 100
	}
	if d := duration("rtt"); d > 0 {
		w.rtt = d
	}
	rtt, late, loss, uses := w.rtt, duration("late"), percent("loss", 0), percent("uses", 1)
	w.now = w.now.Add(duration("idle"))
	lost, written := 0., 0.
	for end, i := w.now.Add(duration("for")), 0; w.now.Before(end); i++ {
		w.rtt = rtt + late*time.Duration(i%2)
		w.s.saw(w.now, w.glance)
		written += w.s.rate * uses / 1000
		w.s.wrote(w.now, int(written))
		written -= float64(int(written))
		w.sent += 10
		lost += 10 * loss
		w.lost = int64(lost)
		w.now = w.now.Add(time.Millisecond)
	}
	w.rtt = rtt
	full := "not known"
	if w.s.full > 0 {
		full = fmt.Sprintf("%.0f KiB/s", w.s.full/1024)
	}
	return fmt.Sprintf("%.0f KiB/s, full at: %s", w.s.rate/1024, full)
}
