package starling_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/geo"
	"github.com/starling-im/starling/internal/simnet"
)

// Nobody is elected while nobody has died, though one packet in a hundred is
// lost: three voters chat a little for a while, for 24 hours in the long form,
// in one region and in three.
//
// The loss is where the real system has it, below QUIC: packets of a simulated
// network are lost, real quic-go finds that out and sends again, and what is
// behind in the stream waits. Package consensus has the same test with a model
// of that (lossy in failover_test.go), which cannot tell whether the model is
// right; this one can, and 24 hours take minutes all the same.
func TestNobodyIsElectedOverLossyPaths(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		regions []string
		survive geo.Survive
	}{
		"in a region": {[]string{"fra", "fra", "fra"}, geo.SurviveNode},   // silence counts after 500 ms
		"far apart":   {[]string{"fra", "iad", "sin"}, geo.SurviveRegion}, // after 1.5 s
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // each is one story in which hardly two things happen at once
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, c.regions...)
				w.survive = c.survive
				for _, p := range w.peers {
					w.start(p.ID)
				}
				alice := w.dial("alice", 0)
				say := func(n int) {
					_, err := alice.Publish(t.Context(), client.Message{Room: fmt.Sprint("room-", n%7), Content: "hello"})
					ok(t, err)
				}
				for n := range 10 { // until leaders are at home
					say(n)
					time.Sleep(time.Second)
				}
				w.net.Make(simnet.Noise{Loss: 0.01})
				before, lost := w.terms(), w.net.Lost()
				began, sent := time.Now(), 0
				watch := time.Duration(rounds(1, 24*60)) * time.Minute
				for part := range 4 { // which a long run tells of
					for ; time.Since(began) < watch*time.Duration(part+1)/4; sent++ {
						say(sent)
						time.Sleep(15 * time.Second)
					}
					elections := uint64(0)
					after := w.terms()
					for group, term := range after {
						elections += term - before[group]
					}
					t.Logf("%v: %d groups, %d messages, %d packets lost, %d elections", time.Since(began).Round(time.Second), len(after), sent, w.net.Lost()-lost, elections)
					if elections > 0 || len(after) < 2 {
						t.Errorf("%d elections, and nobody had died: terms were %v, are %v", elections, before, after)
						break
					}
				}
				w.net.Make(simnet.Noise{})
				ok(t, alice.Close())
				w.stopAll()
			})
		})
	}
}

// terms are those of all groups; each has a leader.
func (w *world) terms() map[uint32]uint64 {
	w.t.Helper()
	answer, err := w.nodes[w.peers[0].ID].node.Operate(w.t.Context(), "groups")
	ok(w.t, err)
	var groups []starling.GroupInfo
	ok(w.t, json.Unmarshal(answer, &groups))
	terms := make(map[uint32]uint64)
	for _, g := range groups {
		if g.Leader == "" || len(g.Replicas) != len(w.peers) {
			w.t.Errorf("group %d is led by %q and has %d replicas", g.ID, g.Leader, len(g.Replicas))
		}
		terms[g.ID] = g.Term
	}
	return terms
}
