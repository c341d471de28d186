package starling_test

import (
	"fmt"
	"maps"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/client"
)

// scrape returns what a node exports, line by line.
func scrape(n *starling.Node) string {
	answer := httptest.NewRecorder()
	n.Metrics().ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	return answer.Body.String()
}

// value returns the value of a metric with its labels, 0 if it is not exported.
func value(t *testing.T, page, metric string) float64 {
	t.Helper()
	_, rest, ok := strings.Cut(page, "\n"+metric+" ")
	if !ok {
		return 0
	}
	line, _, _ := strings.Cut(rest, "\n")
	v, err := strconv.ParseFloat(line, 64)
	ok = err == nil
	if !ok {
		t.Fatalf("%s: %v", metric, err)
	}
	return v
}

// exported describes the metrics of a page as docs/reference/metrics.md has them.
func exported(page string) []string {
	labels := make(map[string]string)
	for _, m := range regexp.MustCompile(`(?m)^(starling_\w+)(?:\{(.*)\})? `).FindAllStringSubmatch(page, -1) {
		var names []string
		for _, l := range regexp.MustCompile(`(\w+)="`).FindAllStringSubmatch(m[2], -1) {
			names = append(names, "`"+l[1]+"`")
		}
		labels[m[1]] = strings.Join(names, ", ")
	}
	var rows []string
	for _, m := range regexp.MustCompile(`(?m)^# HELP (starling_\w+) (.*)\n# TYPE \w+ (\w+)$`).FindAllStringSubmatch(page, -1) {
		if m[3] == "histogram" {
			for _, part := range []string{"_bucket", "_sum", "_count"} {
				delete(labels, m[1]+part)
			}
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s | %s |", m[1], m[3], labels[m[1]], m[2]))
		delete(labels, m[1])
	}
	return append(rows, slices.Sorted(maps.Keys(labels))...)
}

// TestMetricsAreDocumented compares what a node of a mesh exports with its page.
func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("docs/reference/metrics.md")
	ok(t, err)
	documented := regexp.MustCompile("(?m)^\\| `starling_.*$").FindAllString(string(doc), -1)
	slices.Sort(documented)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "fra", "iad", "sin")
		for _, p := range w.peers {
			w.start(p.ID)
		}
		c := w.dial("alice", 0)
		f, err := c.Follow(t.Context(), "r", 0)
		ok(t, err)
		_, err = c.Publish(t.Context(), client.Message{Room: "r", Content: "x"})
		ok(t, err)
		_, err = f.Next(t.Context())
		ok(t, err)
		page := scrape(w.nodes["fra-1"].node)
		got := exported(page)
		slices.Sort(got)
		if !slices.Equal(got, documented) {
			t.Errorf("exported:\n%s\ndocumented:\n%s", strings.Join(got, "\n"), strings.Join(documented, "\n"))
		}
		for metric, least := range map[string]float64{
			`starling_ready`: 1, `starling_sessions{transport="quic"}`: 1, `starling_members{state="alive"}`: 3, `starling_links{path="udp"}`: 2,
			`starling_link_min_rtt_seconds{peer="iad-1"}`:                                  0.01,
			`starling_link_messages_total{class="raft",direction="sent",peer="iad-1"}`:     10,
			`starling_link_messages_total{class="raft",direction="received",peer="iad-1"}`: 10,
			`starling_link_bytes_total{class="gossip",direction="sent",peer="iad-1"}`:      100,
			`starling_info{node="fra-1",region="fra",version=""}`:                          1,
			`starling_sends_admitted_total`:                                                1,
			`starling_relay_topics`:                                                        1,
			`starling_relay_followers`:                                                     1,
			`starling_relay_events_total`:                                                  1,
			`starling_relay_bytes_total`:                                                   10,
			`starling_relay_tail_reads_total{result="hit"}`:                                1,
			`starling_relay_wait_seconds_count`:                                            1,
			`starling_relay_turn_seconds_bucket{le="+Inf"}`:                                1,
			`starling_link_bytes_total{class="events",direction="received",peer="sin-1"}`:  10,
		} {
			if v := value(t, page, metric); v < least {
				t.Errorf("%s is %v", metric, v)
			}
		}
		ok(t, c.Close())
		w.stopAll()
	})
}

// TestHistoryHasItsOwnSessions reads a long history at a node without a replica: pages
// come in the class of bulk, over sessions that end when nobody reads; from a node
// that does not know of such sessions they come over its link.
func TestHistoryHasItsOwnSessions(t *testing.T) {
	t.Parallel()
	for _, older := range []bool{false, true} {
		t.Run(fmt.Sprint("older=", older), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { readsHistory(t, older) })
		})
	}
}

func readsHistory(t *testing.T, older bool) {
	w := newWorld(t, "fra", "iad", "sin", "gru", "syd")
	w.before = func(n *starling.Node) {
		if older {
			n.WithoutHistories()
		}
	}
	for _, p := range w.peers {
		w.start(p.ID)
	}
	author := w.dial("alice", 0)
	const events = 300
	fill(t, author, "r", events, 1000)
	ok(t, author.Close())
	bulk := func(n *starling.Node) (sum float64) {
		page := scrape(n)
		for _, p := range w.peers {
			sum += value(t, page, fmt.Sprintf(`starling_link_messages_total{class="bulk",direction="received",peer=%q}`, p.ID))
		}
		return sum
	}
	frames := 0. // to nodes that have no replica
	for i, p := range w.peers {
		n := w.nodes[p.ID].node
		had := bulk(n)
		c := w.dial("bob", i)
		for after := uint64(0); after < events; {
			page, err := c.History(t.Context(), "r", after, 0)
			ok(t, err)
			after = page.Events[len(page.Events)-1].Seq
		}
		frames += bulk(n) - had
		if open := n.Histories(); older && open > 0 {
			t.Errorf("%s: %d sessions", p.ID, open)
		}
		ok(t, c.Close())
	}
	if older != (frames < 5) {
		t.Errorf("%v frames of bulk", frames)
	}
	time.Sleep(90 * time.Second) // a session outlives its last page by one minute
	for _, p := range w.peers {
		if n := w.nodes[p.ID].node.Histories(); n != 0 {
			t.Errorf("%s: %d sessions after a pause", p.ID, n)
		}
	}
	w.stopAll()
}
