package main

import (
	"strings"
	"testing"

	"github.com/starling-im/starling"
)

func TestBenchRefuses(t *testing.T) {
	for args, says := range map[string]string{
		"bench --rooms 0":                    "--rooms is 0",
		"bench --sessions 65":                "--sessions is 65",
		"bench --window 65537":               "--window is 65537",
		"bench --size 0":                     "--size is 0",
		"bench --size 32769":                 "--size is 32769, not 1 to 32768",
		"bench --seconds NaN":                "--seconds is NaN",
		"bench --messages 0":                 "--messages is 0",
		"bench --messages 1 --seconds 1":     "exclude each other",
		"bench --warm-up -1s":                "--warm-up is -1s",
		"bench --rate -1":                    "--rate is -1",
		"bench --name=":                      "--name is \"\"",
		"bench extra":                        "one argument too many",
		"bench --messages 1 --window x":      "invalid argument",
		"bench --size 128 --log-level quiet": "--log-level",
	} {
		if out, status := runHere(t, "", words(args)...); status != exitUsage || !strings.Contains(out, says) {
			t.Errorf("%q: status %d, output %q; want %q", args, status, out, says)
		}
	}
	if out, status := runHere(t, "", "bench"); status != exitFailed || !strings.Contains(out, "start a mesh with `edge-node dev`") {
		t.Errorf("without a mesh: status %d, output %q", status, out)
	}
}

// TestBench counts some messages and looks for them in the mesh.
func TestBench(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	m := startMesh(t, home, t.TempDir(), "--regions", "fra")
	r := lines[benchResult](t, output(t, home, "", "bench", "--name", "one", "--messages", "300", "--rooms", "5", "--window", "8", "--warm-up", "10ms", "--json"))[0]
	if r.Messages < 300 || r.PerSecond <= 0 || r.P50 <= 0 || r.P99 < r.P50 || r.Longest < r.P99 || r.Made <= 0 || r.Rooms != 5 || r.Sessions != 3 || r.Window != 8 {
		t.Errorf("bench says %+v", r)
	}
	if r.CPU != nil && *r.CPU <= 0 {
		t.Errorf("the client took %v s of processor", *r.CPU)
	}
	rooms, probed, events := 0, 0, uint64(0) // dev has probed some, too
	for _, room := range lines[[]starling.RoomInfo](t, output(t, home, "", "rooms", "--json"))[0] {
		if strings.HasPrefix(room.Room, "bench/") {
			rooms++
			events += room.Seq
		} else {
			probed++
		}
	}
	if rooms != 5 || events < uint64(r.Messages) {
		t.Errorf("the mesh has %d messages in %d rooms, the bench counted %d", events, rooms, r.Messages)
	}
	table := output(t, home, "", "bench", "--name", "one", "--rate", "50", "--seconds", "0.2", "--rooms", "1", "--window", "1", "--warm-up", "0s")
	if again := lines[[]starling.RoomInfo](t, output(t, home, "", "rooms", "--json"))[0]; len(again) != rooms+probed {
		t.Errorf("the same name made other rooms: %d, were %d", len(again), rooms+probed)
	}
	if !strings.Contains(table, "PER SECOND") || !strings.Contains(table, ", 1 in flight over 1 session\n") {
		t.Errorf("bench says %q", table)
	}
	output(t, home, "", "bench", "--rooms", "600", "--messages", "1", "--warm-up", "0s")
	page := lines[[]starling.RoomInfo](t, output(t, home, "", "rooms", "--json"))[0]
	all := lines[[]starling.RoomInfo](t, output(t, home, "", "rooms", "--all", "--json"))[0]
	rest := lines[[]starling.RoomInfo](t, output(t, home, "", "rooms", "--after", page[len(page)-1].Room, "--json"))[0]
	if len(page) < 300 || len(all) != 600+rooms+probed || len(page)+len(rest) != len(all) {
		t.Errorf("%d rooms, then %d, and %d in all", len(page), len(rest), len(all))
	}
	if table := output(t, home, "", "rooms", "--all"); strings.Count(table, "\n") != len(all)+1 {
		t.Errorf("%d lines for %d rooms", strings.Count(table, "\n"), len(all))
	}
	m.stop(t)
}
