package replay

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

// history is a run of which every follower got everything, and that a test
// can spoil.
type history struct {
	records []Record
	seqs    []uint64           // by record; 0 = not acked
	events  map[string][]Event // by region, of room r
}

func perfect() *history {
	h := &history{events: map[string][]Event{}}
	for i := 1; i <= 5; i++ {
		r := Record{Line: i, Room: "r", User: "u", Kind: "message", Text: fmt.Sprint("text ", i)}
		h.records = append(h.records, r)
		h.seqs = append(h.seqs, uint64(i))
		for _, region := range []string{"fra", "iad"} {
			h.events[region] = append(h.events[region], Event{uint64(i), r.User, r.Kind, r.Text, fmt.Sprint("run/", i)})
		}
	}
	return h
}

// judge plays a history to a judge.
func (h *history) judge() *Judge {
	j := NewJudge("run", []string{"fra", "iad"})
	for i, r := range h.records {
		j.sent(r, 0, time.Millisecond)
		if h.seqs[i] != 0 {
			j.ack(r.Line, h.seqs[i], false, 2*time.Millisecond)
		}
	}
	for i, region := range j.regions {
		j.follower(i).watch("r", 0).Take(h.events[region])
	}
	return j
}

func TestJudge(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(*history)
		want  string // all anomalies
	}{
		{"perfect", func(*history) {}, ""},
		{"gap", func(h *history) { h.cut("fra", 2) }, "1 gap in fra, 1 missing in fra, different histories"},
		{"gap everywhere", func(h *history) { h.cut("fra", 2); h.cut("iad", 2) }, "1 acked but not delivered, 1 gap in fra, 1 gap in iad"},
		{"end missing", func(h *history) { h.cut("iad", 4) }, "1 missing in iad, different histories"},
		{"duplicate", func(h *history) { h.events["fra"] = append(h.events["fra"], h.events["fra"][1]) }, "1 duplicate in fra"},
		{"disorder", func(h *history) { e := h.events["iad"]; e[1], e[2] = e[2], e[1] }, "1 out of order in iad, different histories"},
		{"changed text at one", func(h *history) { h.events["iad"][2].Text = "other" }, "1 delivered with another content, different histories"},
		{"changed text everywhere", func(h *history) { h.events["fra"][2].Text = "x"; h.events["iad"][2].Text = "x" }, "1 delivered with another content"},
		{"changed user", func(h *history) { h.events["fra"][0].User = "v" }, "delivered with another content, different histories"},
		{"moved text", func(h *history) { h.events["fra"][0].User, h.events["fra"][0].Kind = "um", "essage" }, "delivered with another content, different histories"},
		{"two seqs", func(h *history) {
			for _, region := range []string{"fra", "iad"} {
				again := h.events[region][0]
				again.Seq = 6
				h.events[region] = append(h.events[region], again)
			}
		}, "2 delivered with two seqs"},
		{"swapped content", func(h *history) { e := h.events["iad"]; e[0].ID, e[1].ID = e[1].ID, e[0].ID }, "delivered with two seqs, different histories"},
		{"ack of another seq", func(h *history) { h.seqs[0] = 4 }, "1 acked but not delivered"},
		{"unknown", func(h *history) { h.seqs[4] = 0 }, "1 with an unknown outcome"},
		{"foreign events", func(h *history) {
			for region := range h.events {
				h.events[region] = append(h.events[region], Event{6, "x", "message", "hi", "else"})
			}
		}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := perfect()
			tt.spoil(h)
			got := strings.Join(h.judge().Verdict().Anomalies(), ", ")
			for _, want := range strings.Split(tt.want, ", ") {
				if !strings.Contains(got, want) {
					t.Errorf("found %q, want %q", got, want)
				}
			}
			if tt.want == "" && got != "" {
				t.Errorf("found %q, want nothing", got)
			}
		})
	}
}

func (h *history) cut(region string, i int) {
	h.events[region] = append(h.events[region][:i:i], h.events[region][i+1:]...)
}

func TestVerdictCounts(t *testing.T) {
	j := perfect().judge()
	v := j.Verdict()
	if v.Messages != 5 || v.Acked != 5 || v.Events != 5 || v.Regions["iad"].Delivered != 5 {
		t.Errorf("verdict %+v", v)
	}
	if a, b := v.Regions["fra"], v.Regions["iad"]; a.SHA256 != b.SHA256 || !reflect.DeepEqual(a.Rooms, b.Rooms) || len(a.Rooms["r"]) != 64 {
		t.Errorf("hashes of equal histories differ: %+v %+v", a, b)
	}
	if behind := j.Behind(); len(behind) > 0 {
		t.Errorf("behind: %q", behind)
	}
}

func TestJudgeRejectedButSeen(t *testing.T) {
	h := perfect()
	h.seqs[2] = 0
	j := h.judge()
	j.reject(3)
	v := j.Verdict()
	if v.Unwanted != 1 || v.Unknown != 0 || v.Rejected != 1 {
		t.Errorf("verdict %+v", v)
	}
}

func TestBehind(t *testing.T) {
	h := perfect()
	h.cut("iad", 4)
	if got := h.judge().Behind(); len(got) != 1 || got[0] != "iad is at 4 of 5 of r" {
		t.Errorf("behind: %q", got)
	}
}

func TestFollowersOfARegionMustAgree(t *testing.T) {
	h := perfect()
	j := h.judge()
	j.follower(0).watch("r", 0).Take(h.events["fra"][:4])
	r := j.Verdict().Regions["fra"]
	if r.Differ != 1 || r.Delivered != 4 {
		t.Errorf("fra: %+v", r)
	}
}

// TestResume is a run that began before: its first records are seen, but this
// invocation sends them again only later.
func TestResume(t *testing.T) {
	h := perfect()
	j := NewJudge("run", []string{"fra"})
	j.follower(0).watch("r", 0).Take(h.events["fra"])
	for i, r := range h.records {
		if i == 1 {
			r.Text = "not what was sent"
		}
		j.sent(r, 0, time.Millisecond)
		j.ack(r.Line, h.seqs[i], false, 2*time.Millisecond)
	}
	if v := j.Verdict(); v.Changed != 1 || v.Lost != 0 || v.Doubled != 0 {
		t.Errorf("verdict %+v", v)
	}
}

func TestPairs(t *testing.T) {
	j := perfect().judge()
	pairs := j.Pairs(func(string) string { return "iad" })
	if len(pairs) != 1 || pairs[0].From != "fra" || pairs[0].Home != "iad" || pairs[0].Records != 5 || pairs[0].AckP50 != 1 {
		t.Errorf("pairs: %+v", pairs)
	}
	if len(pairs[0].Deliver) != 2 {
		t.Errorf("deliveries: %+v", pairs[0].Deliver)
	}
	if got := j.Latency(0.5, 0.99); got[0] != 1 || got[1] != 1 {
		t.Errorf("latency: %v", got)
	}
}
