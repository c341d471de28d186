package main

import (
	"context"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/starling-im/starling/bench/internal/talk"
)

// TestEachHarm does each harm for a moment: nothing is lost, comes twice or out of order,
// others keep their connections, and who floods is told why. How long things take is for
// a quiet machine.
func TestEachHarm(t *testing.T) {
	edgeNode, err := buildEdgeNode(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range harms {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			o := h.usual
			o.clients, o.others, o.seconds, o.rounds, o.edgeNode, o.dir = 40, min(o.others, 6), 0.5, 1, edgeNode, t.TempDir()
			o.rate = min(o.rate, 20)
			if o.protocol == "" {
				o.protocol = talk.StarlingWS
			}
			if err := o.check(); err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			if err := h.run(t.Context(), o, &out, io.Discard); err != nil {
				t.Fatal(err)
			}
			t.Log(out.String())
			if !strings.Contains(out.String(), "_ratio") {
				t.Errorf("table %q", out.String())
			}
			if left, err := os.ReadDir(o.dir); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

func TestHarmRefuses(t *testing.T) {
	for args, says := range map[string]string{
		"harm stalled --rounds 0":       "--rounds is 0",
		"harm death --clients 3":        "--clients is 3",
		"harm flood --rate NaN":         "--rate is NaN",
		"harm deaf --seconds 0":         "--seconds is 0",
		"harm followers --others -1":    "--others is -1",
		"harm publishers --protocol ip": `"ip"`,
		"harm death --dir /dev/null":    "/dev/null",
		"cores --rounds 0":              "--rounds is 0",
		"throng":                        "not to be called",
	} {
		cmd := root()
		cmd.SetArgs(strings.Fields(args))
		cmd.SetIn(strings.NewReader(""))
		if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", args, err, says)
		}
	}
}

// TestRoundsAlternate sees that each half is first in every other round.
func TestRoundsAlternate(t *testing.T) {
	var order []bool
	half := trial{half: func(_ context.Context, harmed bool) ([]figure, error) {
		order = append(order, harmed)
		v := 2.0
		if harmed {
			v = 3
		}
		return []figure{{"p99_ms", v, true}, {"ended", v, false}}[:map[bool]int{false: 1, true: 2}[harmed]], nil
	}}
	for round := range 2 {
		row, err := half.round(t.Context(), round)
		if err != nil || inWords(row) != "p99_ms_a 2, p99_ms_b 3, p99_ms_ratio 1.5, ended 3" {
			t.Errorf("%s, %v", inWords(row), err)
		}
	}
	if !slices.Equal(order, []bool{false, true, true, false}) {
		t.Errorf("%v", order)
	}
}
