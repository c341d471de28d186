package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/cmd/edge-node/internal/trace"
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
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
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
	m := lines[tracedJSON](t, traced("lobby", "--json", "--from", "iad", "--otlp", c.URL))[0]
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
	var failed bytes.Buffer
	if code := run(ctx, []string{"trace", "lobby", "--region", "nowhere"}, nil, &failed, &failed); code != exitFailed || !strings.Contains(failed.String(), `no region "nowhere"`) {
		t.Errorf("an unknown region: status %d, %s", code, failed.String())
	}
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
