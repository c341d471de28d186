package geo

import "slices"

// outcomeSteps bounds the steps of Outcome; a group of three voters that moves
// altogether takes ten.
const outcomeSteps = 64

// Outcome returns what becomes of a group if each next step towards what is wanted
// works out, and why there is no further one. New replicas have caught up at once in it.
func Outcome(now Config, want func(Config) Placement) (end Config, why string) {
	for range outcomeSteps {
		now.CaughtUp = slices.Concat(now.Voters, now.Learners)
		step, because := NextStep(now, want(now))
		why = because
		if step.Do == "" {
			break
		}
		now = now.after(step)
	}
	return now, why
}

// after returns a group as it is after a step.
func (c Config) after(s Step) Config {
	node := []string{s.Node}
	switch s.Do {
	case Lead:
		c.Leader = s.Node
	case AddLearner:
		c.Learners = append(slices.Clone(c.Learners), s.Node)
	case Promote:
		c.Learners, c.Voters = less(c.Learners, node), append(slices.Clone(c.Voters), s.Node)
	case Demote:
		c.Voters, c.Learners = less(c.Voters, node), append(slices.Clone(c.Learners), s.Node)
	case Remove:
		c.Voters, c.Learners = less(c.Voters, node), less(c.Learners, node)
	}
	return c
}
