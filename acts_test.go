package starling_test

import (
	"slices"
	"time"

	"github.com/starling-im/starling/internal/simdisk"
	"github.com/starling-im/starling/internal/simnet"
)

// who names nodes when an act takes place.
type who func(s *story) []string

func nodes(ids ...string) who { return func(*story) []string { return ids } }

func all(s *story) (ids []string) {
	for _, p := range s.peers {
		ids = append(ids, p.ID)
	}
	return ids
}

// leader is the node that leads the lobby. It waits until there is one.
func leader(s *story) []string {
	for deadline := time.Now().Add(openWithin); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		for id, r := range s.nodes {
			for _, l := range r.node.Holds("demo", s.rooms[0]) {
				if l == id {
					return []string{id}
				}
			}
		}
	}
	s.t.Fatalf("seed %d: nobody leads %s", s.seed, s.rooms[0])
	return nil
}

// follower is a node that does not lead the lobby.
func follower(s *story) []string {
	rest := others(leader)(s)
	return rest[:1]
}

func others(w who) who {
	return func(s *story) []string {
		not := w(s)
		return slices.DeleteFunc(all(s), func(id string) bool { return slices.Contains(not, id) })
	}
}

func (s *story) hosts(ids []string) (hosts []string) {
	for _, id := range ids {
		hosts = append(hosts, s.host(id))
	}
	return hosts
}

// chat lets time pass.
func chat(d time.Duration) act { return func(*story) { time.Sleep(d) } }

// sometime lets up to d pass.
func sometime(d time.Duration) act {
	return func(s *story) { time.Sleep(time.Duration(s.rng.Int64N(int64(d)))) }
}

// untilAcked waits for the first ack.
func untilAcked(s *story) {
	for deadline := time.Now().Add(openWithin); len(s.rec.History().Sends) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("seed %d: nothing is acked after %v", s.seed, openWithin)
		}
	}
}

// kill takes the power from nodes, at one moment: of their disks what was
// synced is left, and keep percent of the rest.
func kill(w who, keep int) act {
	return func(s *story) {
		ids := w(s)
		for _, id := range ids {
			_ = s.nodes[id].conn.Close()
		}
		for _, id := range ids {
			s.disks[id] = s.disks[id].PowerLoss(keep)
		}
		for _, id := range ids {
			s.stop(id)
		}
	}
}

// restart starts the nodes that do not run.
func restart(s *story) {
	for _, p := range s.peers {
		if s.nodes[p.ID] == nil {
			s.start(p.ID)
		}
	}
}

// cut cuts nodes off from the others; clients still reach them.
func cut(w who) act {
	return func(s *story) {
		ids := w(s)
		s.net.Cut(s.hosts(ids), s.hosts(others(nodes(ids...))(s)))
	}
}

// deafen lets nodes hear nothing of the others, who hear them.
func deafen(w who) act {
	return func(s *story) {
		ids := w(s)
		s.net.CutOneWay(s.hosts(others(nodes(ids...))(s)), s.hosts(ids))
	}
}

// flap cuts nodes off and back again, each for a second.
func flap(w who) act {
	return func(s *story) {
		ids := w(s)
		s.net.Flap(s.hosts(ids), s.hosts(others(nodes(ids...))(s)), time.Second)
	}
}

// noise makes the network bad.
func noise(n simnet.Noise) act { return func(s *story) { s.net.Make(n) } }

// disk lets something happen to the disks of nodes.
func disk(w who, f simdisk.Fault) act {
	return func(s *story) {
		for _, id := range w(s) {
			ok(s.t, s.disks[id].Inflict(f))
		}
	}
}

// heal makes the network and the disks whole.
func heal() act {
	return func(s *story) {
		s.net.Heal()
		s.net.Make(simnet.Noise{})
		for _, d := range s.disks {
			d.Heal()
		}
	}
}

// mark gives the nodes that w names now a name for later acts.
func mark(name string, w who) act {
	return func(s *story) { s.named[name] = w(s) }
}

func marked(name string) who { return func(s *story) []string { return s.named[name] } }
