// Package oracle judges what was recorded while a mesh was used and broken. It
// knows nothing of how a mesh works, only what its users were promised:
//
//	rule         holds if
//	Stored       whatever was acked is in every complete reading that began later
//	OneOrder     a seq of a room has one content, at all observers and in all acks
//	Dense        who follows or reads a room sees 1, 2, 3 … without hole or repeat
//	Once         an id has one seq, in all acks and at all observers
//	DeviceOrder  a device's sends to a room have rising seqs, in the order of sending
//	RealTime     a room is linearizable: what ended before another began has the smaller seq
//	Never        what was rejected is seen by nobody
//	NoInvention  whatever is seen was sent, to that room and by that user
//	SameState    replicas of a group that have applied as much have the same state
//
// A history is recorded in the test's process (Recorder), or put together of
// lines that other processes wrote (Decode, AddAcks, AddExport).
package oracle

import (
	"hash/fnv"
	"slices"
	"sync"
)

// Outcome is how a send ended for its sender.
type Outcome string

// The three ways in which a send ends.
const (
	Acked    Outcome = "acked"
	Rejected Outcome = "rejected"
	Unknown  Outcome = "unknown"
)

// Send is one attempt of a user to send something. A send that is tried again
// by the user is recorded again, with the same ID and N.
type Send struct {
	App     string  `json:"app,omitempty"`
	Room    string  `json:"room"`
	User    string  `json:"user,omitempty"` // "" = not recorded, fits any
	Device  string  `json:"device,omitempty"`
	ID      string  `json:"id"`
	Hash    uint64  `json:"hash,omitempty"`   // of the content, see Sum; 0 = not recorded, fits any
	N       int     `json:"n,omitempty"`      // place among the device's sends to the room; 0 = no claim
	Call    int64   `json:"call,omitempty"`   // Unix ns, as all times here
	Return  int64   `json:"return,omitempty"` // 0 = not before the end
	Outcome Outcome `json:"outcome"`
	Seq     uint64  `json:"seq,omitempty"` // of an ack
}

// Seen is an event as an observer got it. Those of one observer and room stand
// in the order in which they came.
type Seen struct {
	Observer string `json:"observer"`
	App      string `json:"app,omitempty"`
	Room     string `json:"room"`
	Seq      uint64 `json:"seq"`
	User     string `json:"user,omitempty"`
	ID       string `json:"id"`
	Hash     uint64 `json:"hash,omitempty"`
	At       int64  `json:"at,omitempty"` // 0 = not recorded
}

// Follow says that an observer of a room begins after a seq other than 0. Who
// follows a room anew is another observer.
type Follow struct {
	Observer string `json:"observer"`
	App      string `json:"app,omitempty"`
	Room     string `json:"room"`
	After    uint64 `json:"after"`
}

// Read says that an observer asked a room for its events, and that Head was
// the last one.
type Read struct {
	Observer string `json:"observer"`
	App      string `json:"app,omitempty"`
	Room     string `json:"room"`
	Head     uint64 `json:"head"`
	Call     int64  `json:"call"`
	Return   int64  `json:"return"`
	// Linearizable: the answer was to contain what had been acked before.
	Linearizable bool `json:"linearizable,omitempty"`
	// Complete: what there was from 1 to Head is recorded as seen.
	Complete bool `json:"complete,omitempty"`
}

// State is what a replica of a group had made of its log up to an index.
type State struct {
	Node    string `json:"node"`
	Group   uint32 `json:"group"`
	Applied uint64 `json:"applied"`
	Hash    uint64 `json:"hash"`
}

// History is all that was recorded.
type History struct {
	Sends   []Send
	Seen    []Seen
	Follows []Follow
	Reads   []Read
	States  []State
}

// Sum is the Hash of a content.
func Sum(content string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(content))
	return max(h.Sum64(), 1)
}

// Recorder gathers a history. Its methods are safe for concurrent use.
type Recorder struct {
	mu sync.Mutex
	h  History
}

// Add adds a Send, Seen, Follow, Read or State.
func (r *Recorder) Add(record any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.h.add(record)
}

func (h *History) add(record any) {
	switch x := record.(type) {
	case Send:
		h.Sends = append(h.Sends, x)
	case Seen:
		h.Seen = append(h.Seen, x)
	case Follow:
		h.Follows = append(h.Follows, x)
	case Read:
		h.Reads = append(h.Reads, x)
	case State:
		h.States = append(h.States, x)
	default:
		panic("oracle: a record of no kind")
	}
}

// History returns what was recorded until now.
func (r *Recorder) History() *History {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &History{
		Sends: slices.Clone(r.h.Sends), Seen: slices.Clone(r.h.Seen), Follows: slices.Clone(r.h.Follows),
		Reads: slices.Clone(r.h.Reads), States: slices.Clone(r.h.States),
	}
}
