package mesh

import (
	"context"
	"testing"
)

// TestResolveCancelled has somebody ask for a name who does not wait for the answer: the
// next one gets it all the same.
func TestResolveCancelled(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	r := new(resolver)
	_, _ = r.resolve(cancelled, "localhost:1")
	if _, err := r.resolve(t.Context(), "localhost:1"); err != nil {
		t.Error(err)
	}
}
