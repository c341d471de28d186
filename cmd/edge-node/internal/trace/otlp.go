package trace

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What OpenTelemetry's collectors take over HTTP, as JSON (OTLP 1.x, the part of it that
// a trace needs). The exporter of its SDK brings gRPC along, which would be 12 MB more.
type (
	otlpTraces struct {
		ResourceSpans []otlpResourceSpans `json:"resourceSpans"`
	}
	otlpResourceSpans struct {
		Resource   otlpResource     `json:"resource"`
		ScopeSpans []otlpScopeSpans `json:"scopeSpans"`
	}
	otlpResource struct {
		Attributes []otlpAttribute `json:"attributes"`
	}
	otlpScopeSpans struct {
		Scope otlpScope  `json:"scope"`
		Spans []otlpSpan `json:"spans"`
	}
	otlpScope struct {
		Name string `json:"name"`
	}
	otlpSpan struct {
		TraceID    string          `json:"traceId"`
		SpanID     string          `json:"spanId"`
		Parent     string          `json:"parentSpanId,omitempty"`
		Name       string          `json:"name"`
		Kind       int             `json:"kind"`
		Start      string          `json:"startTimeUnixNano"`
		End        string          `json:"endTimeUnixNano"`
		Attributes []otlpAttribute `json:"attributes"`
	}
	otlpAttribute struct {
		Key   string    `json:"key"`
		Value otlpValue `json:"value"`
	}
	otlpValue struct {
		String string `json:"stringValue"`
	}
)

const (
	// otlpInternal is the kind of a span that is neither a client's nor a server's.
	otlpInternal = 1
	// exportWithin bounds an export, and otlpAnswer how much of what a collector says
	// against it is read, in bytes.
	exportWithin = 10 * time.Second
	otlpAnswer   = 1 << 10
)

// OTLPAddr makes of what a user names the address that takes traces: of a collector's
// root its path for them.
func OTLPAddr(addr string) (string, error) {
	u, err := url.Parse(addr)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "", fmt.Errorf("%q is not http[s]://host:port", addr)
	}
	if strings.Trim(u.Path, "/") == "" {
		u.Path = "/v1/traces"
	}
	return u.String(), nil
}

// Export sends each step as a span to a collector's address. A span's parent is that of
// the step before, and the root is all of the time until the last client has it.
func (m *Message) Export(ctx context.Context, addr string) error {
	body, err := json.Marshal(m.otlp())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, exportWithin)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, addr, bytes.NewReader(body))
	if err != nil {
		return err
	}
	q.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(q)
	if err != nil {
		return fmt.Errorf("the collector does not answer: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode/100 != 2 {
		said, _ := io.ReadAll(io.LimitReader(answer.Body, otlpAnswer))
		return fmt.Errorf("the collector at %s refuses the trace: %s %s", addr, answer.Status, bytes.TrimSpace(said))
	}
	return nil
}

func (m *Message) otlp() otlpTraces {
	spans := map[string][]otlpSpan{} // by the node that they are of; "" = a client
	var add func(s *Step, parent string, begin int64)
	count := 0
	add = func(s *Step, parent string, begin int64) {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s/%s/%d", m.Trace, m.ID, count))
		count++
		span := otlpSpan{
			TraceID: m.Trace, SpanID: hex.EncodeToString(sum[:8]), Parent: parent, Name: s.What, Kind: otlpInternal,
			Start: nanos(begin), End: nanos(max(begin, s.end)), Attributes: attributes("room", m.Room, "what", s.String(), "from", s.From, "to", s.To),
		}
		if parent == "" {
			span.End = nanos(s.latest())
		}
		node := s.Node
		if node == "" {
			node = s.From
		}
		spans[node] = append(spans[node], span)
		for _, next := range s.Then {
			add(next, span.SpanID, s.end)
		}
	}
	add(m.Tree(), "", m.Sent)
	var all otlpTraces
	for node, of := range spans {
		all.ResourceSpans = append(all.ResourceSpans, otlpResourceSpans{
			Resource:   otlpResource{attributes("service.name", "edge-node", "service.instance.id", node)},
			ScopeSpans: []otlpScopeSpans{{otlpScope{"starling"}, of}},
		})
	}
	slices.SortFunc(all.ResourceSpans, func(a, b otlpResourceSpans) int {
		return strings.Compare(a.ScopeSpans[0].Spans[0].Start, b.ScopeSpans[0].Spans[0].Start)
	})
	return all
}

func nanos(us int64) string { return strconv.FormatInt(us*1000, 10) }

// attributes are pairs of name and value; those without a value are left out.
func attributes(pairs ...string) (all []otlpAttribute) {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			all = append(all, otlpAttribute{pairs[i], otlpValue{pairs[i+1]}})
		}
	}
	return all
}
