package main

import (
	"math/rand/v2"
	"time"
)

// The kinds of workloads beside durable.
const (
	kindIdle      = "idle"
	kindFanout    = "fanout"
	kindRooms     = "rooms"
	kindReconnect = "reconnect"
)

// A relayWork says what the crowd of a turn does.
type relayWork struct {
	Kind       string
	Clients    int
	Publishers int
	Window     int // messages that are on their way at any time
	Size       int // bytes of a message; 0 = as in chat
	Seconds    float64
	WarmUp     time.Duration
}

// The rooms of kindRooms, and how many are in each.
const (
	manyRooms   = 200
	leastInRoom = 5
	mostInRoom  = 50
)

// members are the clients that follow each room: every system gets the same.
func (w relayWork) members() [][]int {
	dice := rand.New(rand.NewPCG(1, 2))
	if w.Kind != kindRooms {
		return [][]int{dice.Perm(w.Clients)}
	}
	all := make([][]int, manyRooms)
	for i := range all {
		n := leastInRoom + dice.IntN(mostInRoom-leastInRoom+1)
		all[i] = dice.Perm(w.Clients)[:min(n, w.Clients)]
	}
	return all
}

// meanMembers is how many deliveries a message becomes.
func (w relayWork) meanMembers() int {
	sum, members := 0, w.members()
	for _, m := range members {
		sum += len(m)
	}
	return max(1, sum/len(members))
}

// quiet is the rate of fanout-10, in messages per s.
const quiet = 10

// A step is a phase of a workload; rate gives its messages per s, 0 = as many
// as go, from those of the first phase.
type step struct {
	name string
	rate func(most float64) float64
}

func (w relayWork) phases() []step {
	most := func(float64) float64 { return 0 }
	if w.Kind == kindRooms {
		return []step{{kindRooms, most}}
	}
	return []step{
		{"fanout-max", most},
		{"fanout-half", func(most float64) float64 { return most / 2 }},
		{"fanout-10", func(float64) float64 { return quiet }},
	}
}

// chatBytes are the lengths of messages in public IRC and Gitter rooms: of
// 330,000 in UTF-8, the middles of fifty parts of the same number.
var chatBytes = [...]int{
	2, 3, 4, 6, 8, 10, 12, 14, 16, 18, 19, 21, 23, 25, 27, 29, 30, 32, 34, 36, 38, 40, 42, 44, 46,
	49, 51, 53, 56, 58, 61, 64, 67, 71, 74, 78, 82, 87, 92, 97, 104, 110, 118, 126, 137, 149, 165, 187, 220, 297,
}

// size is the length of the next message. One that is shorter than its stamp
// gets as long as that.
func (w relayWork) size(dice *rand.Rand) int {
	if w.Size > 0 {
		return w.Size
	}
	return chatBytes[dice.IntN(len(chatBytes))]
}
