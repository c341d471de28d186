package main

import (
	"testing"
	"time"

	"github.com/starling-im/starling"
)

func TestWhatANodeSaysOfItself(t *testing.T) {
	until := time.Date(2026, 12, 28, 1, 2, 3, 0, time.Local)
	well := starling.NodeHere{CertificateUntil: until.UnixMilli(), Out: starling.DrainInfo{Node: "n", Stage: starling.StageServing}}
	goes, doubts := well, well
	goes.Out.Stage, goes.Out.Clients = starling.StageClients, 3
	doubts.Doubts = []starling.DoubtInfo{{Group: 2, Why: "disk is old or was empty"}, {Group: 3, Why: "lost its newest records", Last: 7, Tip: 9}}
	const cert = "cert     good until 2026-12-28 01:02:03\n"
	for _, c := range []struct {
		here    *starling.NodeHere
		revoked bool
		want    string
	}{
		{nil, false, "answers  no\n"},
		{nil, true, ""},
		{&well, false, cert},
		{&goes, false, cert + "out      3 clients are asked to go to other nodes\n"},
		{&doubts, false, cert + "doubt    group 2: disk is old or was empty: it has no vote, waits for others to say how far the group is\n" +
			"doubt    group 3: lost its newest records: it has no vote, its log has come to 7 of 9\n"},
	} {
		if got := hereText(c.here, c.revoked); got != c.want {
			t.Errorf("%+v: %q, want %q", c.here, got, c.want)
		}
	}
}
