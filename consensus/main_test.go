package consensus

import (
	"bytes"
	"testing"

	"go.uber.org/goleak"

	"github.com/starling-im/starling/wire"
)

func TestMain(m *testing.M) {
	// The codecs of wire are shared by all bubbles, so they must come to be
	// outside of any.
	big := answer(1, 1, nil, nil)
	big.Error = string(make([]byte, 10_000))
	if _, err := wire.NewReader(bytes.NewReader(wire.AppendCompressed(nil, big, 0)), wire.NodeFrame).Raft(); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}
