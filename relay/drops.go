package relay

// class says of what signals are, in the order in which they give way: who types is said
// again by itself and how users are is asked again, while what is said live is lost for good.
type class int

const (
	ofTyping class = iota
	ofPresence
	ofOccupancy
	ofLive
)

var classes = [...]string{"typing", "presence", "occupancy", "live"}

// early: it gives way to the others while there is still place.
func (c class) early() bool { return c <= ofPresence }

// below is how many bytes may wait for a peer that is to get signals of the class, of most
// for any.
func (c class) below(most int) int {
	if c.early() {
		return most / 2
	}
	return most
}

// The reasons for which signals are dropped.
const (
	dropRate = "rate" // a session says too many
	dropFull = "full" // there is no place for it
	dropSlow = "slow" // a client or a node does not read fast enough
	dropLive = "live" // more is said live than is told
)

// Drop is why signals were dropped, and of which class they were; docs/reference/metrics.md
// has the words.
type Drop struct{ Reason, Class string }

func (c class) drop(reason string) Drop { return Drop{reason, classes[c]} }

// noDrops counts none of all that there can be, so that each has a count from the start.
func noDrops() map[Drop]uint64 {
	drops := map[Drop]uint64{ofLive.drop(dropLive): 0}
	for c := range classes {
		for _, reason := range []string{dropRate, dropFull, dropSlow} {
			drops[class(c).drop(reason)] = 0
		}
	}
	delete(drops, ofOccupancy.drop(dropRate)) // no session says it
	return drops
}
