package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/cmd/edge-node/internal/home"
	"github.com/starling-im/starling/cmd/edge-node/internal/trace"
	"github.com/starling-im/starling/edge"
)

// tracedJSON is what trace --json prints.
type tracedJSON struct {
	trace.Message
	Total float64     `json:"total_ms"`
	Tree  *trace.Step `json:"tree"`
}

// On one machine the steps to each client sum to the time between the sending and its
// having the message, and none takes less than nothing.
func TestTrace(t *testing.T) {
	t.Setenv("STARLING_HOME", t.TempDir())
	ctx, stop := context.WithCancel(t.Context())
	out, in := io.Pipe()
	var dev sync.WaitGroup
	dev.Go(func() {
		run(ctx, []string{"dev", "--json", "--regions", "fra,iad", "--nodes", "4"}, nil, in, testLog{t, "dev"})
		in.Close()
	})
	defer dev.Wait()
	defer stop()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("dev said %q: %v", line, err)
	}
	c := newCollector(t)
	traced := func(args ...string) string {
		t.Helper()
		var said, failed bytes.Buffer
		if code := run(ctx, append([]string{"trace"}, args...), nil, &said, &failed); code != exitOK {
			t.Fatalf("trace %q ends with %d: %s", args, code, failed.String())
		}
		return said.String()
	}
	m := lines[tracedJSON](t, traced("lobby", "--create", "--json", "--from", "iad", "--otlp", c.URL))[0]
	if len(m.Clients) != 8 || m.Seq != 2 || m.Total <= 0 {
		t.Errorf("%d clients, seq %d, %.3f ms", len(m.Clients), m.Seq, m.Total)
	}
	seen := map[string]bool{}
	for _, client := range m.Clients {
		steps := pathTo(m.Tree, client.Node)
		if len(steps) == 0 {
			t.Errorf("no path to the client at %s", client.Node)
			continue
		}
		sum := 0.0
		for _, s := range steps {
			seen[s.What] = true
			sum += s.Took
			if s.Took < 0 {
				t.Errorf("%v takes %.3f ms", s, s.Took)
			}
		}
		if took := float64(client.Got-m.Sent) / 1000; sum < took-1 || sum > took+1 {
			t.Errorf("the steps to %s sum to %.3f ms, it took %.3f", client.Node, sum, took)
		}
	}
	for _, what := range []string{trace.Way, starling.HopEdge, trace.Queue, trace.Quorum, starling.HopApply, starling.HopWrite} {
		if !seen[what] {
			t.Errorf("no step is a %s", what)
		}
	}
	c.check(t, m)
	if text := traced("lobby", "--region", "fra"); !strings.Contains(text, "4 of 4 clients have it") || !strings.Contains(text, "a quorum has it on disk\n") {
		t.Errorf("the tree is\n%s", text)
	}
	if text := traced("lobby", "--region", "fra", "--region", "iad"); !strings.Contains(text, "8 of 8 clients have it") {
		t.Errorf("of two regions the tree is\n%s", text)
	}
	remembered(t, c, m, traced)
	traceRefuses(t, lines[ready](t, line)[0].Context)
}

// traceRefuses asks for what a mesh cannot do, or not all of it: the exit status says so,
// and the user learns what to do.
func traceRefuses(t *testing.T, file string) {
	t.Helper()
	mesh, err := home.Load("", file)
	if err != nil {
		t.Fatal(err)
	}
	dead, full := withDeadNode(t, mesh), fullNode(t, mesh)
	var all sync.WaitGroup
	for args, says := range map[string][]string{
		"lobby --region nowhere": {`no region "nowhere"; it has fra, iad`},
		"typo":                   {`there is no room "typo": look for its name with edge-node rooms, or say --create`},
		"lobby --app nope":       {`no key of app "nope", only of demo, starling` + "\n"},
		"lobby --within 1ns":     {"give it more time with --within: no node at ", "UDP may be blocked on the way: try --transport websocket"},
		"lobby --within 1s --from sin --context " + dead: {"cannot be sent from sin: name another region with --from"},
		"lobby --within 4s --context " + dead: {
			"8 of 9 clients have it", "the room cannot be followed at sin-1: no answer\n", "no client has the message at sin-1",
		},
		"lobby --as many --within 1s --context " + full: {
			`waiting: too_many: user "many" has 16 connections already`, `lets you in within 1s: too_many: user "many" has 16 connections already`,
		},
		"--id 00000000000000000000000000000000": {"no node remembers the trace"},
	} {
		all.Go(func() {
			var said bytes.Buffer
			code := run(t.Context(), words("trace "+args), nil, &said, &said)
			for _, want := range says {
				if code != exitFailed || !strings.Contains(said.String(), want) {
					t.Errorf("trace %s: status %d, %s; want %q", args, code, said.String(), want)
				}
			}
		})
	}
	all.Wait()
}

// remembered looks a trace up that is over: the same steps as far as nodes took them, as a
// tree, as JSON and for a collector.
func remembered(t *testing.T, c *collector, m tracedJSON, traced func(...string) string) {
	t.Helper()
	if text := traced("--id", m.Trace); !strings.Contains(text, "a quorum has it on disk\n") || strings.Count(text, "writes it to the client of trace") != len(m.Clients) {
		t.Errorf("what is remembered is\n%s", text)
	}
	c.spans = nil
	again := lines[tracedJSON](t, traced("--id", strings.ToUpper(m.Trace), "--json", "--otlp", c.URL))[0]
	if again.Seq != m.Seq || again.User != m.User || len(again.Hops) < len(m.Hops) || again.Total <= 0 {
		t.Errorf("seq %d of %s, %d hops, %.3f ms are remembered of seq %d of %s with %d hops", again.Seq, again.User, len(again.Hops), again.Total, m.Seq, m.User, len(m.Hops))
	}
	c.check(t, again)
}

// withDeadNode returns the context of a mesh that also has a node which is not there.
func withDeadNode(t *testing.T, mesh *home.Context) string {
	t.Helper()
	dead, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer dead.Close()
	return contextOf(t, mesh, append(slices.Clone(mesh.Nodes), home.Node{ID: "sin-1", Region: "sin", Addr: dead.LocalAddr().String()}))
}

// fullNode returns the context of a node of a mesh that has no place for the user many.
func fullNode(t *testing.T, mesh *home.Context) string {
	t.Helper()
	token, err := mint(mesh, mesh.App, edge.Claims{User: "many"})
	if err != nil {
		t.Fatal(err)
	}
	for range 16 {
		c, err := (&app{stderr: io.Discard, logLevel: "error"}).dial(t.Context(), mesh, connection{addrs: []string{mesh.Nodes[0].Addr}, token: token})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
	return contextOf(t, mesh, mesh.Nodes[:1])
}

// contextOf writes the context of a mesh with other nodes, and returns its file.
func contextOf(t *testing.T, mesh *home.Context, nodes []home.Node) string {
	t.Helper()
	other := *mesh
	other.Name, other.Nodes = filepath.Join(t.TempDir(), "other.json"), nodes
	path, err := other.Save("")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// pathTo are the steps to the client at a node, nil if there are none.
func pathTo(s *trace.Step, node string) []*trace.Step {
	for _, next := range s.Then {
		if next.What == trace.Way && next.To == "" && next.From == node {
			return []*trace.Step{next}
		}
		if rest := pathTo(next, node); rest != nil {
			return append([]*trace.Step{next}, rest...)
		}
	}
	return nil
}

// span is a part of one that a collector of OpenTelemetry gets.
type span struct {
	TraceID, SpanID, ParentSpanID, Name string
	StartTimeUnixNano, EndTimeUnixNano  string
}

func (s span) times(t *testing.T) (begin, end int64) {
	begin, err1 := strconv.ParseInt(s.StartTimeUnixNano, 10, 64)
	end, err2 := strconv.ParseInt(s.EndTimeUnixNano, 10, 64)
	if err1 != nil || err2 != nil || end < begin {
		t.Errorf("a span from %q to %q", s.StartTimeUnixNano, s.EndTimeUnixNano)
	}
	return begin, end
}

// collector takes traces as the protocol of OpenTelemetry says.
type collector struct {
	*httptest.Server
	spans []span
}

func newCollector(t *testing.T) *collector {
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		var body struct {
			ResourceSpans []struct {
				ScopeSpans []struct{ Spans []span }
			}
		}
		if err := json.NewDecoder(q.Body).Decode(&body); err != nil || q.URL.Path != "/v1/traces" || q.Header.Get("Content-Type") != "application/json" {
			http.Error(w, "this is no trace", http.StatusBadRequest)
			return
		}
		for _, r := range body.ResourceSpans {
			for _, s := range r.ScopeSpans {
				c.spans = append(c.spans, s.Spans...)
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// check holds the spans against the tree: one for each step, behind that of the step
// before, where that ended.
func (c *collector) check(t *testing.T, m tracedJSON) {
	t.Helper()
	byID := map[string]span{}
	for _, s := range c.spans {
		byID[s.SpanID] = s
	}
	roots := 0
	for _, s := range c.spans {
		begin, end := s.times(t)
		parent, ok := byID[s.ParentSpanID]
		switch {
		case s.TraceID != m.Trace:
			t.Errorf("a span of trace %q, not %q", s.TraceID, m.Trace)
		case s.ParentSpanID == "":
			roots++
			if begin != m.Sent*1000 || end < begin+int64(m.Total*1e6)-1000 {
				t.Errorf("the root is from %d to %d, the message was sent at %d and took %.3f ms", begin, end, m.Sent*1000, m.Total)
			}
		case !ok:
			t.Errorf("the parent %q of %q is not there", s.ParentSpanID, s.Name)
		default:
			before, after := parent.times(t)
			if parent.ParentSpanID == "" {
				after = before // the root is of all steps
			}
			if begin != after {
				t.Errorf("%q begins at %d, %q before it ends at %d", s.Name, begin, parent.Name, after)
			}
		}
	}
	if want := countSteps(m.Tree); roots != 1 || len(byID) != want {
		t.Errorf("%d spans, %d roots, want %d steps and one root", len(byID), roots, want)
	}
}

func countSteps(s *trace.Step) int {
	n := 1
	for _, next := range s.Then {
		n += countSteps(next)
	}
	return n
}
