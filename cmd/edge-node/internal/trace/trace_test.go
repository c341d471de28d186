package trace

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/starling-im/starling"
)

const start = 1_800_000_000_000_000 // Unix µs

func hop(node, what string, arrived, left int64) starling.TraceHop {
	return starling.TraceHop{Node: node, Region: node[:3], What: what, Message: "m", Seq: 7, Arrived: start + arrived, Left: start + left}
}

func (m *Message) with(h starling.TraceHop, edit func(*starling.TraceHop)) {
	if edit != nil {
		edit(&h)
	}
	m.Hops = append(m.Hops, h)
}

// far is a message from Singapore to a room of Frankfurt, which Washington holds too,
// and a second node of Singapore follows. Washington's clock is a second ahead. It was
// sent twice: the first time the leader did not take it.
func far() *Message {
	m := &Message{Trace: "0af7651916cd43dd8448eb211c80319c", Room: "lobby", ID: "m", Seq: 7, User: "trace", Sent: start, Acked: start + 180_600}
	m.Clients = []Client{{"fra-1", "fra", start + 101_000}, {"iad-1", "iad", start + 142_000}, {"sin-2", "sin", start + 183_000}, {"sin-9", "sin", 0}}
	m.Clocks = []Clock{{"fra-1", 0.2, 0.5}, {"iad-1", 1000, 2}, {"sin-1", 0, 1}}
	to := func(node, user string) func(*starling.TraceHop) {
		return func(h *starling.TraceHop) { h.To, h.User = node, user }
	}
	m.with(hop("sin-1", starling.HopEdge, 100, 200), to("iad-1", "trace"))
	m.with(hop("iad-1", starling.HopPropose, 1_001_000, -start), nil)
	m.with(hop("sin-1", starling.HopEdge, 400, 500), to("fra-1", "trace"))
	m.with(hop("fra-1", starling.HopPropose, 80_500, 81_000), func(h *starling.TraceHop) { h.Queued = 500 })
	m.with(hop("fra-1", starling.HopApply, 100_000, 100_100), nil)
	m.with(hop("fra-1", starling.HopWrite, 100_100, 100_600), func(h *starling.TraceHop) { h.To, h.Queued = "sin-2", 200 })
	m.with(hop("fra-1", starling.HopWrite, 100_100, 101_500), to("", "trace"))
	m.with(hop("fra-1", starling.HopWrite, 100_100, 102_500), to("", "bob"))
	m.with(hop("iad-1", starling.HopApply, 1_141_000, 1_141_100), nil)
	m.with(hop("sin-2", starling.HopRelay, 181_000, 181_000), func(h *starling.TraceHop) { h.From = "fra-1" })
	m.with(hop("sin-1", starling.HopAck, 180_000, 180_000), nil)
	m.with(hop("sin-1", starling.HopApply, 1, 1), func(h *starling.TraceHop) { h.Message = "another" })
	return m
}

const drawn = `lobby, seq 7: 3 of 4 clients have it, the last after 183.0 ms (trace 0af7651916cd43dd8448eb211c80319c)

   TOOK MS      AT MS
     0.400      0.400  from the sender to sin-1 in sin
     0.100      0.500  sin-1 takes it, and finds the leader
    80.000     80.500  sin-1 → fra-1 in fra
     0.500     81.000  fra-1 leads: waits for its turn
    19.000    100.000  a quorum has it on disk
    41.000    141.000  ├─ fra-1 → iad-1 in iad, by Raft
     0.100    141.100  │  iad-1 applies it
     0.900    142.000  │  to the client at iad-1 in iad
     0.100    100.100  └─ fra-1 applies it
                          (and writes it to another client)
     0.900    101.000     ├─ fra-1 writes it to the client
     0.000    101.000     │  to the client at fra-1 in fra
    79.900    180.000     ├─ ack: fra-1 → sin-1 in sin
     0.600    180.600     │  ack: to the sender
     0.500    100.600     └─ fra-1 writes it to sin-2, after 0.200 ms of waiting
    80.400    181.000        fra-1 → sin-2 in sin
     2.000    183.000        to the client at sin-2 in sin

The clock of iad-1 is 1000.0 ms ahead of this machine's, give or take 2.0 ms; its times are corrected by that.
How far the clocks of sin-2 are from this machine's is not known: ways to and from there are off by it.
`

func TestDraw(t *testing.T) {
	var b strings.Builder
	if err := far().Draw(&b); err != nil || b.String() != drawn {
		t.Errorf("%v\n%s", err, b.String())
	}
}

// Whatever hops are missing, the steps to a client sum to the time that it took.
func TestStepsAddUp(t *testing.T) {
	for missing := range far().Hops {
		m := far()
		m.Hops = append(m.Hops[:missing:missing], m.Hops[missing+1:]...)
		checkSums(t, m)
	}
	m := far()
	m.Hops = nil
	checkSums(t, m)
}

func checkSums(t *testing.T, m *Message) {
	t.Helper()
	sums := map[string]float64{}
	var walk func(s *Step, sum float64)
	walk = func(s *Step, sum float64) {
		sum += s.Took
		if s.What == Way && s.To == "" {
			sums[s.From] = sum
		}
		for _, next := range s.Then {
			walk(next, sum)
		}
	}
	walk(m.Tree(), 0)
	for _, c := range m.Clients {
		want := ms(c.Got - m.Sent)
		if got := sums[c.Node]; c.Got != 0 && max(got-want, want-got) > 0.001 {
			t.Errorf("the steps to %s sum to %.3f ms, it took %.3f", c.Node, got, want)
		}
	}
}

func TestExport(t *testing.T) {
	for addr, want := range map[string]string{
		"http://otel:4318": "http://otel:4318/v1/traces", "https://otel/": "https://otel/v1/traces", "http://otel/own/way": "http://otel/own/way",
		"otel:4318": "", "ftp://otel": "", "http://": "",
	} {
		if got, err := OTLPAddr(addr); got != want || (err == nil) != (want != "") {
			t.Errorf("OTLPAddr(%q) = %q, %v", addr, got, err)
		}
	}
	refuses := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no room", http.StatusInsufficientStorage)
	}))
	defer refuses.Close()
	if err := far().Export(t.Context(), refuses.URL); err == nil || !strings.Contains(err.Error(), "507 Insufficient Storage no room") {
		t.Errorf("a collector that refuses: %v", err)
	}
	refuses.Close()
	if err := far().Export(t.Context(), refuses.URL); err == nil {
		t.Error("a collector that is not there takes the trace")
	}
}
