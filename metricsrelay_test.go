package starling_test

import (
	"bufio"
	"math"
	"net/http/httptest"
	"testing"
	"testing/synctest"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/encoding/protodelim"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/client"
)

// natively returns a metric as Prometheus has it where it takes native histograms.
func natively(t *testing.T, n *starling.Node, name string) *dto.Histogram {
	t.Helper()
	answer := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/metrics", nil)
	r.Header.Set("Accept", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	n.Metrics().ServeHTTP(answer, r)
	for in := bufio.NewReader(answer.Body); ; {
		var f dto.MetricFamily
		if err := protodelim.UnmarshalFrom(in, &f); err != nil {
			t.Fatalf("%s is not exported: %v", name, err)
		}
		if f.GetName() == name {
			return f.Metric[0].GetHistogram()
		}
	}
}

// Histograms are native, fine and sparse, and have some buckets for others.
func TestHistogramsAreNative(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "fra", "iad", "sin")
		for _, p := range w.peers {
			w.start(p.ID)
		}
		c := w.dial("alice", 0)
		f, err := c.Follow(t.Context(), "r", 0)
		ok(t, err)
		const events = 20
		for range events {
			_, err := c.Publish(t.Context(), client.Message{Room: "r", Content: "x"})
			ok(t, err)
			_, err = f.Next(t.Context())
			ok(t, err)
		}
		for _, name := range []string{"starling_relay_wait_seconds", "starling_relay_turn_seconds"} {
			h := natively(t, w.nodes["fra-1"].node, name)
			if h.GetSchema() != 3 || h.GetSampleCount() < events || h.GetZeroThreshold() != math.Exp2(-20) {
				t.Errorf("%s is %v", name, h)
			}
			// In a bubble no time passes while somebody works: all is brief.
			if last := h.Bucket[len(h.Bucket)-1]; h.GetZeroCount() == 0 || last.GetUpperBound() != 4 || last.GetCumulativeCount() != h.GetSampleCount() {
				t.Errorf("%s is %v", name, h)
			}
		}
		ok(t, c.Close())
		w.stopAll()
	})
}
