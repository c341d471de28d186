package mesh

import (
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

// TestMute has a link be quiet, then busy, then without answers: only the last is mute.
func TestMute(t *testing.T) {
	began := time.Now()
	h := health{heard: began}
	for _, look := range []struct {
		at             time.Duration
		sent, received uint64
		mute           bool
	}{
		{1 * time.Second, 10, 10, false},
		{2 * time.Second, 10, 10, false},
		{5 * time.Second, 10, 10, false}, // quiet for as long as one likes
		{6 * time.Second, 14, 10, false}, // a burst whose answer is on its way
		{7 * time.Second, 14, 14, false},
		{8 * time.Second, 18, 14, false},
		{9 * time.Second, 19, 14, false},
		{10 * time.Second, 20, 14, true},
		{11 * time.Second, 24, 14, false}, // and again after as long
		{13 * time.Second, 24, 14, true},
	} {
		if got := h.mute(began.Add(look.at), quic.ConnectionStats{PacketsSent: look.sent, PacketsReceived: look.received}); got != look.mute {
			t.Errorf("after %v: mute is %v", look.at, got)
		}
	}
}
