package starling_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/internal/oracle"
	"github.com/starling-im/starling/internal/simnet"
)

// A bad network costs throughput, not correctness.
func TestFault07BadNetwork(t *testing.T) {
	t.Parallel()
	for name, n := range map[string]simnet.Noise{
		"loss 1 %":   {Loss: 0.01},
		"loss 5 %":   {Loss: 0.05},
		"loss 20 %":  {Loss: 0.2},
		"repeated":   {Replay: 0.2},
		"reordered":  {Jitter: 50 * time.Millisecond},
		"corrupted":  {Corrupt: 0.05},
		"everything": {Loss: 0.02, Replay: 0.05, Corrupt: 0.02, Jitter: 20 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range rounds(1, 20) {
				holds(t, scenario{seed: seed, acts: []act{untilAcked, noise(n), chat(5 * time.Second), heal(), chat(time.Second)}})
			}
		})
	}
}

// Nodes are cut off from each other in many ways; clients reach all of them.
func TestFault08Partitions(t *testing.T) {
	t.Parallel()
	five := []string{"fra", "iad", "sin", "gru", "syd"}
	for name, x := range map[string]struct {
		regions []string
		cut     act
	}{
		"a follower":                     {nil, cut(follower)},
		"the leader":                     {nil, cut(leader)},
		"everybody":                      {nil, func(s *story) { cut(follower)(s); cut(leader)(s) }},
		"the leader hears nobody":        {nil, deafen(leader)},
		"a follower hears nobody":        {nil, deafen(follower)},
		"nobody hears the leader":        {nil, deafen(others(leader))},
		"the leader comes and goes":      {nil, flap(leader)},
		"a follower comes and goes":      {nil, flap(follower)},
		"two of five":                    {five, cut(nodes("fra-1", "syd-1"))},
		"the leader's link to one other": {nil, func(s *story) { s.net.Cut(s.hosts(leader(s)), s.hosts(follower(s))) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range rounds(1, 20) {
				holds(t, scenario{seed: seed, regions: x.regions, acts: []act{
					untilAcked, sometime(2 * time.Second), x.cut, chat(9 * time.Second), heal(), chat(3 * time.Second),
				}})
			}
		})
	}
}

// The negative control: what a leader that was cut off has on its own disk is
// not what was acked meanwhile. Taken for a linearizable read it is refused.
func TestLocalReadOfAnOldLeaderIsRefused(t *testing.T) {
	t.Parallel()
	stale := func(s *story) {
		id := s.named["old"][0]
		for i, p := range s.peers {
			if p.ID != id {
				continue
			}
			c := s.dial("stale", i)
			defer c.Close()
			read := oracle.Read{Observer: "stale", App: "demo", Room: "lobby", Linearizable: true, Call: time.Now().UnixNano()}
			ctx, cancel := context.WithTimeout(s.t.Context(), openWithin)
			defer cancel()
			page, err := c.History(ctx, "lobby", 0, 1) // without Linearizable
			ok(s.t, err)
			read.Head, read.Return = page.Head, time.Now().UnixNano()
			s.rec.Add(read)
		}
	}
	found, _ := play(t, scenario{acts: []act{
		untilAcked, chat(time.Second), mark("old", leader), cut(marked("old")), chat(10 * time.Second), stale, heal(), chat(time.Second),
	}})
	refused := slices.IndexFunc(found, func(f oracle.Finding) bool { return f.Rule == oracle.RealTime && !f.Undecided })
	if refused < 0 {
		t.Errorf("found %v; a stale read is not among it", found)
	} else {
		t.Logf("as it should: %v", found[refused])
	}
	for _, f := range found {
		if f.Rule != oracle.RealTime {
			t.Errorf("found %v", f)
		}
	}
}

// The directory's group has no quorum: rooms go on where theirs has, and new
// ones are made there.
func TestFault16DirectoryWithoutQuorum(t *testing.T) {
	t.Parallel()
	for seed := range rounds(1, 20) {
		holds(t, scenario{seed: seed, regions: []string{"fra", "iad", "sin", "gru", "syd"}, acts: []act{
			untilAcked, chat(2 * time.Second), killDirectory, makeRooms, chat(3 * time.Second), restart, chat(2 * time.Second),
		}})
	}
}

// killDirectory kills two voters of the directory, such that a group of rooms
// keeps its quorum.
func killDirectory(s *story) {
	n := s.nodes[s.peers[0].ID].node
	dir := n.VotersOf(0)
	for _, pair := range [][]string{{dir[0], dir[1]}, {dir[0], dir[2]}, {dir[1], dir[2]}} {
		for group := range uint32(len(s.peers)) {
			if g := n.VotersOf(group + 1); len(g) == 3 && !hasAll(g, pair) {
				kill(nodes(pair...), 0)(s)
				return
			}
		}
	}
	s.t.Fatal("every group has the voters of the directory: the test needs other regions")
}

func hasAll(list, of []string) bool {
	return !slices.ContainsFunc(of, func(x string) bool { return !slices.Contains(list, x) })
}

// makeRooms sends to rooms that are not there yet. Those whose group has a
// quorum must be made.
func makeRooms(s *story) {
	at := slices.IndexFunc(s.peers, func(p starling.Peer) bool { return s.nodes[p.ID] != nil })
	n := s.nodes[s.peers[at].ID].node
	made := 0
	for i := range 30 {
		room := fmt.Sprint("new-", i)
		group, err := n.GroupOf("demo", room)
		ok(s.t, err)
		alive := 0
		for _, v := range n.VotersOf(group) {
			if s.nodes[v] != nil {
				alive++
			}
		}
		if alive < 2 || made == 3 {
			continue
		}
		ctx, cancel := context.WithTimeout(s.t.Context(), 2*heals)
		x := oracle.Send{App: "demo", Room: room, User: "user-" + s.peers[at].Region, ID: room, Hash: oracle.Sum("x"), Call: time.Now().UnixNano(), Outcome: oracle.Acked}
		ack, err := s.clients[at].Publish(ctx, client.Message{Room: room, ID: x.ID, Content: "x"})
		cancel()
		if err != nil {
			s.t.Errorf("seed %d: %s of group %d, which has a quorum, was not made: %v", s.seed, room, group, err)
			continue
		}
		x.Seq, x.Return = ack.Seq, time.Now().UnixNano()
		s.rec.Add(x)
		made++
		s.rooms = append(s.rooms, room) // to be read at the end
		for i, p := range s.peers {
			s.follow(s.clients[i], "follower-"+p.Region, room)
		}
	}
	if made == 0 {
		s.t.Errorf("seed %d: no room was made", s.seed)
	}
}
