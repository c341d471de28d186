package wire

import (
	"bytes"
	"math"
	"testing"
)

// Signals that were encoded once for all are the frame that protobuf makes.
func TestAppendSignals(t *testing.T) {
	for _, s := range []*Signals{
		{},
		{States: []*UserState{{User: "bob", State: State_STATE_AWAY}}},
		{Typing: []string{"bob"}, Others: 300, Sessions: 1, Users: 1, Edition: 7, Live: []*Line{{User: "bob", Content: "hé", TsMs: 1}, {}}},
	} {
		encoded := EncodeSignals(s)
		for _, n := range []uint64{0, 1, 127, 128, math.MaxUint64} {
			s.Follow, s.Said = n, n/2
			got := AppendSignals([]byte("before"), s.Follow, s.Said, encoded)
			want := AppendMessage([]byte("before"), &Frame{Body: &Frame_Signals{s}})
			if !bytes.Equal(got, want) {
				t.Errorf("%v: %x, want %x", s, got, want)
			}
		}
	}
}
