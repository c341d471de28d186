package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/cmd/edge-node/internal/home"
	"github.com/starling-im/starling/cmd/edge-node/internal/replay"
	"github.com/starling-im/starling/geo"
)

// summary is what a replay came to.
type summary struct {
	Run string `json:"run"`
	replay.Verdict
	Sessions  client.Ends `json:"sessions"`
	Seconds   float64     `json:"seconds"`
	PerSecond float64     `json:"per_second"`
	P50       float64     `json:"p50_ms"`
	P99       float64     `json:"p99_ms"`
	Pairs     []pair      `json:"pairs,omitempty"`
	Links     []linkCount `json:"links"`
	// Copies are the copies of an event that came into a region from others,
	// per event whose room is at home elsewhere.
	Copies map[string]float64 `json:"copies,omitempty"`
}

// pair is a replay.Pair beside what light and a quorum would take at least.
type pair struct {
	replay.Pair
	RTT          float64            `json:"rtt_ms"`
	AckBound     float64            `json:"ack_bound_ms"`
	DeliverBound map[string]float64 `json:"deliver_bound_ms"`
}

// linkCount is what a replay added to a link.
type linkCount struct {
	starling.LinkInfo
	// PerEvent are the copies of each of the replay's events on this link.
	PerEvent float64 `json:"per_event"`
}

func summarize(j *replay.Judge, cfg replay.Config, took time.Duration) *summary {
	s := &summary{Run: cfg.Run, Verdict: j.Verdict(), Seconds: round(took.Seconds()), Links: []linkCount{}}
	if s.Seconds > 0 {
		s.PerSecond = round(float64(s.Acked) / s.Seconds)
	}
	ms := j.Latency(0.5, 0.99)
	s.P50, s.P99 = ms[0], ms[1]
	return s
}

func round(x float64) float64 { return math.Round(x*1000) / 1000 }

func join(parts []string) string { return strings.Join(parts, ", ") }

// meshLinks asks for the counters of all links; none if that does not work.
func (a *app) meshLinks(ctx context.Context, mesh *home.Context) []starling.LinkInfo {
	var links []starling.LinkInfo
	answer, err := a.askMesh(ctx, mesh, "links")
	if err != nil || json.Unmarshal(answer, &links) != nil {
		a.logger().Info("links are unknown", "err", err)
	}
	return links
}

// addMesh adds what the mesh knows: where rooms live, and the copies per link.
func (a *app) addMesh(ctx context.Context, s *summary, j *replay.Judge, mesh *home.Context, o *replayOptions, before []starling.LinkInfo) {
	homes := a.homes(ctx, o)
	for _, p := range j.Pairs(func(room string) string { return homes[room] }) {
		s.Pairs = append(s.Pairs, bounded(p, mesh))
	}
	var known bool
	if s.Links, known = linkCounts(s.Events, before, a.meshLinks(ctx, mesh)); known {
		s.Copies = copies(s, j.RoomEvents(), homes, mesh)
	}
}

// linkCounts are the events that went over each link meanwhile. They are known
// unless a node was started again, since it then counts from 0.
func linkCounts(events int, before, after []starling.LinkInfo) (counts []linkCount, known bool) {
	type link struct{ from, to, class string }
	was := make(map[link]starling.LinkInfo)
	since := make(map[string]int64)
	for _, l := range before {
		was[link{l.From, l.To, l.Class}] = l
		since[l.From] = l.Since
	}
	for _, l := range after {
		if began, ok := since[l.From]; ok && began != l.Since {
			return nil, false
		}
		l.Events -= was[link{l.From, l.To, l.Class}].Events
		if l.Events > 0 && events > 0 {
			counts = append(counts, linkCount{l, round(float64(l.Events) / float64(events))})
		}
	}
	return counts, true
}

// homes maps rooms to the regions where they live: those of the first page.
func (a *app) homes(ctx context.Context, o *replayOptions) map[string]string {
	homes := make(map[string]string)
	u := o.userFlags
	rooms, err := a.rooms(ctx, &u, "")
	if err != nil {
		a.logger().Info("rooms are unknown", "err", err)
	}
	for _, r := range rooms {
		homes[r.Room] = r.Region
	}
	return homes
}

// bounded puts lower bounds beside a pair's times: half a round trip to the
// room's home, one from there to the nearest further voter, and half a one
// back or to the follower. Without --wan they are 0.
func bounded(p replay.Pair, mesh *home.Context) pair {
	b := pair{Pair: p, DeliverBound: make(map[string]float64)}
	rtt := func(x, y string) float64 {
		if !mesh.WAN {
			return 0
		}
		d, _ := geo.Pops().RTT(x, y)
		return float64(d.Microseconds()) / 1000
	}
	quorum := math.Inf(1)
	for _, r := range mesh.Regions() {
		if r != p.Home {
			quorum = min(quorum, rtt(p.Home, r))
		}
	}
	if len(mesh.Regions()) < 3 {
		quorum = 0 // all voters are at home
	}
	b.RTT = round(rtt(p.From, p.Home))
	b.AckBound = round(b.RTT + quorum)
	for to := range p.Deliver {
		b.DeliverBound[to] = round(b.RTT/2 + quorum + rtt(p.Home, to)/2)
	}
	return b
}

// copies counts, for each region, the copies that came from other regions per
// event whose room is at home in another; nil if a room's home is unknown.
func copies(s *summary, events map[string]int, homes map[string]string, mesh *home.Context) map[string]float64 {
	for room := range events {
		if homes[room] == "" {
			return nil
		}
	}
	region := make(map[string]string)
	for _, n := range mesh.Nodes {
		region[n.ID] = n.Region
	}
	far := make(map[string]float64)
	for _, r := range mesh.Regions() {
		in, abroad := 0.0, 0
		for _, l := range s.Links {
			if region[l.To] == r && region[l.From] != r {
				in += float64(l.Events)
			}
		}
		for room, n := range events {
			if homes[room] != r {
				abroad += n
			}
		}
		if abroad > 0 {
			far[r] = round(in / float64(abroad))
		}
	}
	return far
}

// printSummary writes the summary: tables for people, or one object.
func (a *app) printSummary(s *summary, mesh *home.Context) error {
	if a.json {
		if mesh.WAN {
			a.printPairs(s, tabwriter.NewWriter(a.stderr, 0, 0, 2, ' ', tabwriter.AlignRight))
		}
		return a.printJSON(s)
	}
	fmt.Fprintf(a.stdout, "run %s: %s in %.1f s, %.0f acked per second\n", s.Run, plural(s.Messages, "message"), s.Seconds, s.PerSecond)
	fmt.Fprintf(a.stdout, "acked %d, rejected %d, unknown %d, events %d; acks p50 %.1f ms, p99 %.1f ms\n",
		s.Acked, s.Rejected, s.Unknown, s.Events, s.P50, s.P99)
	if s.Before > 0 {
		fmt.Fprintf(a.stdout, "%d of the acked were there before: sent by an earlier run, or again after a lost ack\n", s.Before)
	}
	if s.Sessions.Moved+s.Sessions.Lost > 0 {
		fmt.Fprintf(a.stdout, "%s by a node that went away, %d lost\n", plural(s.Sessions.Moved, "session")+" asked to move", s.Sessions.Lost)
	}
	fmt.Fprintln(a.stdout)
	w := tabwriter.NewWriter(a.stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "REGION\tDELIVERED\tGAPS\tDUPLICATES\tDISORDER\tCOPIES\tSHA256")
	for _, name := range slices.Sorted(maps.Keys(s.Regions)) {
		r := s.Regions[name]
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%s\t%.16s…\n", name, r.Delivered, r.Gaps, r.Duplicates, r.Disorder, copiesOf(s, name), r.SHA256)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(a.stdout, copiesNote)
	if mesh.WAN {
		fmt.Fprintln(a.stdout)
		a.printPairs(s, tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', tabwriter.AlignRight))
		fmt.Fprintln(a.stdout, boundNote)
	}
	return nil
}

// What stands under the tables.
const (
	copiesNote = "COPIES: events that came in from other regions, per event of rooms that are at home elsewhere; 1 is the least."
	boundNote  = "(bound): the least that light and a quorum allow. More about both is in edge-node replay --help."
)

// copiesOf is a number, or a dash if nothing had to come from elsewhere.
func copiesOf(s *summary, region string) string {
	n, ok := s.Copies[region]
	if !ok {
		return "-"
	}
	return fmt.Sprintf("%.2f", n)
}

// printPairs writes the times per pair of regions beside their lower bounds.
func (a *app) printPairs(s *summary, w *tabwriter.Writer) {
	regions := slices.Sorted(maps.Keys(s.Regions))
	fmt.Fprint(w, "p50 in ms (bound)\tsender\thome\trtt\tack\t")
	for _, to := range regions {
		fmt.Fprintf(w, "to %s\t", to)
	}
	fmt.Fprintln(w)
	for _, p := range s.Pairs {
		fmt.Fprintf(w, "\t%s\t%s\t%.1f\t%.1f (%.1f)\t", p.From, p.Home, p.RTT, p.AckP50, p.AckBound)
		for _, to := range regions {
			fmt.Fprintf(w, "%.1f (%.1f)\t", p.Deliver[to], p.DeliverBound[to])
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush()
}

const (
	barEvery  = 200 * time.Millisecond
	lineEvery = 10 * time.Second
)

// progress shows how far a replay is, until stop: a bar on a terminal, else a
// line every 10 s.
func (a *app) progress(j *replay.Judge, records *replay.Records) (stop func()) {
	done := make(chan struct{})
	ended := make(chan struct{})
	_, onTerminal := terminal(a.stderr)
	every := lineEvery
	var bar *progressbar.ProgressBar
	if onTerminal {
		every = barEvery
		bar = progressbar.NewOptions(1000, progressbar.OptionSetWriter(a.stderr), progressbar.OptionSetWidth(30),
			progressbar.OptionSetElapsedTime(false), progressbar.OptionSetPredictTime(false), progressbar.OptionClearOnFinish())
	}
	show := func() {
		sent, acked, ended, since := j.Progress()
		text := fmt.Sprintf("%d sent, %d acked, %.0f/s", sent, acked, float64(acked)/since.Seconds())
		if bar == nil {
			fmt.Fprintf(a.stderr, "replay: %s, %.0f %% of the file\n", text, records.Share()*ended*100)
			return
		}
		bar.Describe(text)
		_ = bar.Set(int(records.Share() * ended * 999))
	}
	go func() {
		defer close(ended)
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				show()
			case <-done:
				if bar != nil {
					_ = bar.Finish()
				}
				return
			}
		}
	}()
	return func() { close(done); <-ended }
}
