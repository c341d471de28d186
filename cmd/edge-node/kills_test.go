package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/starling-im/starling/internal/oracle"
)

// kills is how often processes are killed, and how long people stay in the
// same rooms meanwhile: what is judged after each round begins there.
type kills struct {
	rounds, stay int
	args         []string // of dev
}

// TestKills kills some processes of a mesh, or all, again and again while
// people chat. After each round all that was acked is there, once and in
// order, and all replicas are equal. The long form is of three regions and of
// as many of its 200 rounds as the time for tests allows.
func TestKills(t *testing.T) {
	t.Parallel()
	k := kills{rounds: 3, stay: 3, args: []string{"--regions", "fra", "--nodes", "3"}}
	if os.Getenv("STARLING_LONG") != "" {
		k = kills{rounds: 200, stay: 10}
	}
	j := judgedMesh(t, k.args...)
	began := time.Now()
	var h *oracle.History
	past := map[string]*oracle.History{} // what was sent and asked, by the rooms of that time
	var healed []time.Duration
	done := 0
	for ; done < k.rounds && !t.Failed() && !nearlyOver(t); done++ {
		if done%k.stay == 0 {
			place := fmt.Sprintf("at-%d/", done)
			j.enter(place+"lobby", place+"kitchen", place+"garden")
		}
		healed = append(healed, j.round(1+done%len(j.Nodes)))
		h = j.judge()
		past[j.rooms[0]] = &oracle.History{Sends: h.Sends, Reads: h.Reads}
		if (done+1)%5 == 0 {
			acked, reads := count(past)
			progress(t, "%d of %d rounds, %d acked, %d reads, %v", done+1, k.rounds, acked, reads, time.Since(began).Round(time.Second))
		}
	}
	j.readAgain(past)
	slices.Sort(healed)
	acked, reads := count(past)
	progress(t, "kills: %d of %d rounds, %d kills, %d sends acked, all stored once and in order, %d reads up to date, replicas equal; everyone sends again after %v (median), %v (longest); %v",
		done, k.rounds, sum(j.struck), acked, reads, healed[len(healed)/2].Round(time.Millisecond), healed[len(healed)-1].Round(time.Millisecond), time.Since(began).Round(time.Second))
	if !t.Failed() {
		refuses(t, h)
	}
}

// progress says something at once where a long form is watched.
func progress(t *testing.T, format string, args ...any) {
	t.Logf(format, args...)
	if os.Getenv("STARLING_LONG") != "" && !t.Failed() {
		fmt.Printf(format+"\n", args...)
	}
}

// nearlyOver reports whether the tests must end soon, with those still to come.
func nearlyOver(t *testing.T) bool {
	deadline, ok := t.Deadline()
	return ok && time.Until(deadline) < 3*time.Minute
}

// count counts the acked sends, and the reads that had to be up to date.
func count(past map[string]*oracle.History) (acked, reads int) {
	for _, h := range past {
		reads += len(h.Reads)
		for _, s := range h.Sends {
			if s.Outcome == oracle.Acked {
				acked++
			}
		}
	}
	return acked, reads
}

func sum(m map[string]int) (n int) {
	for _, x := range m {
		n += x
	}
	return n
}

// round kills so many nodes at a moment of a talk, some of them once more when
// they have hardly begun again, and returns after how long everyone has the
// ack of a send that began after the first kill.
func (j *judged) round(victims int) time.Duration {
	j.talk()
	j.flows(time.Now())
	passes(j.t.Context(), below(j.rng, 300*time.Millisecond))
	nodes := j.names()
	j.rng.Shuffle(len(nodes), func(a, b int) { nodes[a], nodes[b] = nodes[b], nodes[a] })
	struck := time.Now()
	j.strike(j.t, os.Kill, nodes[:victims]...)
	j.back(j.t)
	if j.rng.IntN(4) == 0 {
		passes(j.t.Context(), below(j.rng, 500*time.Millisecond))
		j.strike(j.t, os.Kill, nodes[0])
		j.back(j.t)
	}
	return j.flows(struck)
}

// readAgain reads all rooms that there ever were, and judges once more.
func (j *judged) readAgain(past map[string]*oracle.History) {
	for _, name := range slices.Sorted(maps.Keys(past)) {
		h := past[name]
		rec := new(oracle.Recorder)
		rooms := map[string]bool{}
		for _, s := range h.Sends {
			rec.Add(s)
			rooms[s.Room] = true
		}
		for room := range rooms {
			j.export(rec, j.clients[0], "last", room)
		}
		for _, f := range oracle.Check(rec.History()) {
			j.t.Errorf("at the end: %v", f)
		}
	}
}

// refuses doctors a history that was found to be sound: the judge must tell.
func refuses(t *testing.T, sound *oracle.History) {
	some := slices.IndexFunc(sound.Sends, func(s oracle.Send) bool { return s.Outcome == oracle.Acked && s.N == 3 })
	next := slices.IndexFunc(sound.Sends, func(s oracle.Send) bool {
		x := sound.Sends[some]
		return s.User == x.User && s.Room == x.Room && s.N == x.N+1
	})
	acked, after := sound.Sends[some], sound.Sends[next]
	for _, x := range []struct {
		name   string
		rule   oracle.Rule
		doctor func(h *oracle.History)
	}{
		{"an acked event is gone", oracle.Stored, func(h *oracle.History) {
			h.Seen = slices.DeleteFunc(h.Seen, func(e oracle.Seen) bool { return e.ID == acked.ID })
		}},
		{"an event is stored twice", oracle.Once, func(h *oracle.History) {
			for i, e := range h.Seen {
				if e.ID == after.ID {
					h.Seen[i].ID, h.Seen[i].Hash = acked.ID, acked.Hash
				}
			}
		}},
		{"two sends of a device changed places", oracle.DeviceOrder, func(h *oracle.History) {
			h.Sends[some].Seq, h.Sends[next].Seq = after.Seq, acked.Seq
			for i, e := range h.Seen {
				switch e.ID {
				case acked.ID:
					h.Seen[i].ID, h.Seen[i].Hash = after.ID, after.Hash
				case after.ID:
					h.Seen[i].ID, h.Seen[i].Hash = acked.ID, acked.Hash
				}
			}
		}},
		{"a follower saw another event", oracle.OneOrder, func(h *oracle.History) { h.Seen[0].Hash++ }},
		{"a follower missed an event", oracle.Dense, func(h *oracle.History) { h.Seen = h.Seen[1:] }},
		{"a read answers from the past", oracle.RealTime, func(h *oracle.History) {
			last := h.Reads[len(h.Reads)-1]
			last.Call, last.Return, last.Head, last.Complete = last.Return+1, last.Return+2, acked.Seq, false
			h.Reads = append(h.Reads, last)
		}},
		{"a rejected send is seen", oracle.Never, func(h *oracle.History) { h.Sends[some].Outcome = oracle.Rejected }},
		{"somebody else's words", oracle.NoInvention, func(h *oracle.History) { h.Sends = slices.Delete(h.Sends, some, some+1) }},
		{"a replica differs", oracle.SameState, func(h *oracle.History) { h.States[0].Hash++ }},
	} {
		t.Run(x.name, func(t *testing.T) {
			h := &oracle.History{
				Sends: slices.Clone(sound.Sends), Seen: slices.Clone(sound.Seen), Reads: slices.Clone(sound.Reads), States: slices.Clone(sound.States),
			}
			x.doctor(h)
			if found := oracle.Check(h, x.rule); len(found) == 0 || found[0].Undecided {
				t.Errorf("it is not refused: %v", found)
			}
		})
	}
}
