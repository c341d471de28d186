package geo

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// randomScene is a group in any configuration, sensible or not, on nodes in any
// state.
func randomScene(r *rand.Rand) *scene {
	regions := []string{"fra", "iad", "sin", "box"}
	pick := func() string { return regions[r.IntN(len(regions))] }
	s := &scene{policy: Policy{Home: pick(), Survive: []Survive{SurviveNode, SurviveRegion, SurviveNone}[r.IntN(3)], Key: fmt.Sprint(r.Uint32())}}
	if r.IntN(4) == 0 {
		s.policy.Forbid = []string{pick()}
	}
	for i := range 2 + r.IntN(10) {
		n := NodeState{Site: Site{fmt.Sprint("n", i), pick()}, State: Alive, Load: r.IntN(4)}
		s.nodes = append(s.nodes, n)
	}
	s.disturb(r)
	order := r.Perm(len(s.nodes))
	for i, k := range order[:min(len(order), 1+r.IntN(7))] {
		if i < 5 {
			s.now.Voters = append(s.now.Voters, s.nodes[k].Node)
		} else {
			s.now.Learners = append(s.now.Learners, s.nodes[k].Node)
		}
	}
	s.now.Leader = s.now.Voters[0]
	return s
}

// disturb gives some nodes another state.
func (s *scene) disturb(r *rand.Rand) {
	for i := range s.nodes {
		n := &s.nodes[i]
		switch r.IntN(8) {
		case 0:
			n.State, n.FailedFor = Failed, time.Duration(r.IntN(30))*time.Minute
		case 1:
			n.State = []State{Leaving, Left, Draining}[r.IntN(3)]
		case 2:
			n.State = Alive
		}
		n.Load = r.IntN(4)
	}
}

// aliveVoters counts the voters that are there now.
func (s *scene) aliveVoters() (count int) {
	for _, n := range s.nodes {
		if n.State.Answers() && slices.Contains(s.now.Voters, n.Node) {
			count++
		}
	}
	return count
}

// From wherever a group is, steps lead to what is wanted, and none of them
// takes the quorum away, while nodes catch up as they like and fail.
func TestStepsLeadToThePlacement(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 0))
		s := randomScene(r)
		quiet, steps := 0, 0
		for round := 0; quiet < 3; round++ {
			if round > 120 {
				t.Fatalf("seed %d: no end: %s, wanted %+v", seed, s.show(), Place(s.policy, s.nodes, s.now, Pops()))
			}
			if round < 20 && r.IntN(5) == 0 {
				s.disturb(r)
			}
			for _, n := range slices.Concat(s.now.Voters, s.now.Learners) {
				if !slices.Contains(s.now.CaughtUp, n) && (round > 60 || r.IntN(3) == 0) {
					s.now.CaughtUp = append(s.now.CaughtUp, n)
				}
			}
			before, had := s.show(), s.aliveVoters() >= quorum(len(s.now.Voters))
			step, why := s.step()
			has := s.aliveVoters() >= quorum(len(s.now.Voters))
			if had && !has || step.Do != "" && !had || why == "" {
				t.Fatalf("seed %d: from %s by %v (%s) to %s", seed, before, step, why, s.show())
			}
			switch steps++; {
			case step.Do == "" && round > 60:
				quiet++
			case step.Do == Promote && !slices.Contains(s.now.CaughtUp, step.Node):
				t.Fatalf("seed %d: %v before it has caught up", seed, step)
			}
		}
		s.checkArrived(t, seed)
	}
}

// checkArrived compares a group at rest with what is wanted.
func (s *scene) checkArrived(t *testing.T, seed uint64) {
	want := Place(s.policy, s.nodes, s.now, Pops())
	if s.now.Leader == "" {
		return // without a quorum it stays as it is
	}
	for _, v := range less(s.now.Voters, want.Voters) {
		if alive := less(s.now.Alive, less(s.now.Alive, s.now.Voters)); len(less(alive, []string{v})) < quorum(len(s.now.Voters)-1) {
			return // a wanted voter is dead, and this one holds its place
		}
	}
	if len(less(want.Voters, s.now.Voters))+len(less(s.now.Voters, want.Voters)) > 0 ||
		len(less(want.Learners, s.now.Learners))+len(less(s.now.Learners, want.Learners)) > 0 || s.now.Leader != want.Voters[0] {
		t.Fatalf("seed %d: at rest with %s, wanted %+v", seed, s.show(), want)
	}
	for _, n := range s.nodes {
		if slices.Contains(want.Voters, n.Node) && !s.policy.allows(n.Region) && want.UnderReplicated == "" {
			t.Fatalf("seed %d: %v votes where no content may be", seed, n)
		}
	}
}
