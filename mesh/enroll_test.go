package mesh

import (
	"bytes"
	"context"
	"net"
	"testing"
	"testing/synctest"

	"github.com/starling-im/starling/identity"
	"github.com/starling-im/starling/internal/simnet"
)

// TestEnrollSizes asks to become a node of a cluster whose directory is large, and asks
// too much.
func TestEnrollSizes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, simnet.Options{})
		directory := bytes.Repeat([]byte("x"), 2<<20)
		cfg := w.config("a", addrA)
		cfg.Enroll = func(context.Context, net.Addr, []byte) []byte { return directory }
		start(t, cfg)
		q := Question{Addr: addrA, Cluster: cluster, Pin: identity.PinOf(cfg.Credentials.Root), Request: make([]byte, enrollBytes), Conn: w.net.Conn(addrB)}
		if answer, err := Enroll(t.Context(), q); err != nil || !bytes.Equal(answer, directory) {
			t.Errorf("%d bytes, %v", len(answer), err)
		}
		q.Request = append(q.Request, 0)
		if answer, err := Enroll(t.Context(), q); err == nil {
			t.Errorf("a question that is too long is answered with %d bytes", len(answer))
		}
	})
}
