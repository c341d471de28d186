package main

import (
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/cmd/edge-node/internal/home"
	"github.com/starling-im/starling/cmd/edge-node/internal/replay"
)

func threeRegions(wan bool) *home.Context {
	return &home.Context{WAN: wan, Nodes: []home.Node{
		{ID: "fra-1", Region: "fra"}, {ID: "iad-1", Region: "iad"}, {ID: "iad-2", Region: "iad"}, {ID: "sin-1", Region: "sin"},
	}}
}

func TestBounds(t *testing.T) {
	p := replay.Pair{From: "sin", Home: "fra", Deliver: map[string]float64{"fra": 1, "iad": 1}}
	if b := bounded(p, threeRegions(false)); b.RTT != 0 || b.AckBound != 0 {
		t.Errorf("without a WAN: %+v", b)
	}
	b := bounded(p, threeRegions(true))
	near := bounded(replay.Pair{From: "iad", Home: "fra"}, threeRegions(true)).RTT
	if b.RTT < 100 || b.AckBound != round(b.RTT+near) {
		t.Errorf("sin to fra takes %v, acks %v; want %v more than that, the way to the next voter", b.RTT, b.AckBound, near)
	}
	if got, want := b.DeliverBound["fra"], round(b.RTT/2+near); got != want {
		t.Errorf("deliveries to fra: %v, want %v", got, want)
	}
}

func TestCopies(t *testing.T) {
	link := func(from, to, class string, events uint64) linkCount {
		return linkCount{LinkInfo: starling.LinkInfo{From: from, To: to, Class: class, Events: events}}
	}
	s := &summary{Links: []linkCount{
		link("fra-1", "iad-1", "raft", 100), link("iad-1", "iad-2", "relay", 100), link("fra-1", "sin-1", "relay", 150),
	}}
	got := copies(s, map[string]int{"a": 60, "b": 40}, map[string]string{"a": "fra", "b": "fra"}, threeRegions(false))
	if len(got) != 2 || got["iad"] != 1 || got["sin"] != 1.5 {
		t.Errorf("copies: %v, want 1 in iad and 1.5 in sin", got)
	}
	if got := copies(s, map[string]int{"a": 60, "b": 40}, map[string]string{"a": "fra"}, threeRegions(false)); got != nil {
		t.Errorf("copies: %v although the home of b is unknown", got)
	}
}

func TestPairsTable(t *testing.T) {
	var b strings.Builder
	s := &summary{Verdict: replay.Verdict{Regions: map[string]replay.Region{"fra": {}}}}
	s.Pairs = []pair{{Pair: replay.Pair{From: "fra", Home: "iad", AckP50: 99.25, Deliver: map[string]float64{"fra": 95}}, RTT: 92.2, AckBound: 92.2, DeliverBound: map[string]float64{"fra": 92.2}}}
	new(app).printPairs(s, tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight))
	if !strings.Contains(b.String(), "fra   iad  92.2  99.2 (92.2)  95.0 (92.2)") {
		t.Errorf("table:\n%s", b.String())
	}
}

func TestLinkCounts(t *testing.T) {
	link := func(events uint64, since int64) starling.LinkInfo {
		return starling.LinkInfo{From: "fra-1", To: "iad-1", Class: "raft", Events: events, Since: since}
	}
	got, known := linkCounts(50, []starling.LinkInfo{link(10, 1)}, []starling.LinkInfo{link(60, 1)})
	if !known || len(got) != 1 || got[0].Events != 50 || got[0].PerEvent != 1 {
		t.Errorf("%+v, %v; want one copy per event", got, known)
	}
	if got, known := linkCounts(50, []starling.LinkInfo{link(10, 1)}, []starling.LinkInfo{link(60, 2)}); known {
		t.Errorf("%+v although the node started again meanwhile", got)
	}
}
