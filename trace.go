package starling

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/starling-im/starling/relay"
	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// What a node remembers of traced messages, in memory: the newest traces, and of each
// the first hops.
const (
	tracesKept = 256
	hopsKept   = 64
)

// What a node does with a traced message, in this order. A retry does some of it again.
const (
	HopEdge    = "edge"    // takes it from the client User, and passes it on to the leader To
	HopPropose = "propose" // leads its group: waits for its turn, then gives it to the voters
	HopApply   = "apply"   // holds a replica: applies it when a quorum has it
	HopRelay   = "relay"   // holds none, and gets it from From
	HopWrite   = "write"   // writes it to the node To, or to the client User
	HopAck     = "ack"     // has the leader's word, for the client User
)

// TraceHop is one row of the answer to the query "trace": what one node did with a
// message, by its own clock, in Unix microseconds.
type TraceHop struct {
	Node    string `json:"node"`
	Region  string `json:"region"`
	What    string `json:"what"`
	Message string `json:"message"` // its client_msg_id
	Seq     uint64 `json:"seq,omitzero"`
	From    string `json:"from,omitempty"` // the node that it came from, if that is known
	To      string `json:"to,omitempty"`   // the node that it went to
	User    string `json:"user,omitempty"` // the client that it came from or went to
	Arrived int64  `json:"arrived_us"`
	Left    int64  `json:"left_us,omitzero"` // 0 = it has not
	// Queued is how much of the time between it waited for others.
	Queued int64 `json:"queued_us,omitzero"`
}

// What operators may ask of traces, and what nodes ask each other.
const (
	queryTrace     = "trace"      // ID: 32 hex digits
	queryTraceHere = "trace.here" // ID
)

type traceID = [room.TraceBytes]byte

// tracer notes what this node does with traced messages. With all others it has
// nothing to do: each of its methods looks first whether there is a trace, which takes
// two comparisons and no memory.
type tracer struct {
	node, region string

	mu    sync.Mutex
	kept  map[traceID][]TraceHop
	order [tracesKept]traceID // those in kept: a ring
	next  int                 // in order: the oldest
}

func newTracer(node, region string) *tracer {
	return &tracer{node: node, region: region, kept: make(map[traceID][]TraceHop)}
}

func micros(t time.Time) int64 { return t.UnixMicro() }

// note keeps a hop, as long as there is room.
func (t *tracer) note(trace []byte, h TraceHop) {
	h.Node, h.Region = t.node, t.region
	id := traceID(trace)
	t.mu.Lock()
	defer t.mu.Unlock()
	hops, known := t.kept[id]
	if !known {
		if len(t.kept) == tracesKept {
			delete(t.kept, t.order[t.next])
		}
		t.order[t.next] = id
		t.next = (t.next + 1) % tracesKept
	}
	if len(hops) < hopsKept {
		t.kept[id] = append(hops, h)
	}
}

// amend changes the last hop of a message that is what.
func (t *tracer) amend(trace []byte, message, what string, change func(*TraceHop)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h := last(t.kept[traceID(trace)], []byte(message), what); h != nil {
		change(h)
	}
}

// last returns the last hop of a message that is one of these, nil if there is none.
func last(hops []TraceHop, message []byte, what ...string) *TraceHop {
	for i := len(hops) - 1; i >= 0; i-- {
		if hops[i].Message == string(message) && slices.Contains(what, hops[i].What) {
			return &hops[i]
		}
	}
	return nil
}

// of returns the hops of a trace.
func (t *tracer) of(id traceID) []TraceHop {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]TraceHop{}, t.kept[id]...)
}

// published notes that a client's command has come, and returns what notes its ack
// before done is told.
func (t *tracer) published(c *room.Command, done func(*wire.Ack, error)) func(*wire.Ack, error) {
	if c.Trace == "" {
		return done
	}
	trace, h := []byte(c.Trace), TraceHop{What: HopEdge, Message: c.ClientMsgID, User: c.User, Arrived: micros(time.Now())}
	t.note(trace, h)
	return func(ack *wire.Ack, err error) {
		if err == nil {
			h.What, h.Seq, h.Arrived = HopAck, ack.Seq, micros(time.Now())
			h.Left = h.Arrived
			t.note(trace, h)
		}
		done(ack, err)
	}
}

// traceOf returns the trace and the id of an encoded command; nil if it is not traced.
func traceOf(command []byte) (trace []byte, message string) {
	if trace = room.Trace(command); trace == nil {
		return nil, ""
	}
	c, err := room.DecodeCommand(command)
	if err != nil {
		return nil, ""
	}
	return trace, c.ClientMsgID
}

// sent notes that a command leaves the edge for the leader of its group.
func (t *tracer) sent(command []byte, leader string) {
	trace, message := traceOf(command)
	if trace == nil {
		return
	}
	t.amend(trace, message, HopEdge, func(h *TraceHop) { h.To, h.Left = leader, micros(time.Now()) })
}

// proposed notes that a command has come to its leader, and returns what notes that it
// has left the queue there; nil if it is not traced.
func (t *tracer) proposed(command []byte) (left func()) {
	trace, message := traceOf(command)
	if trace == nil {
		return nil
	}
	arrived := micros(time.Now())
	t.note(trace, TraceHop{What: HopPropose, Message: message, Arrived: arrived})
	return func() {
		t.amend(trace, message, HopPropose, func(h *TraceHop) {
			h.Left = micros(time.Now())
			h.Queued = h.Left - h.Arrived
		})
	}
}

// arrived notes that an event has come, from the log of its group or from the node
// that is followed, before its followers hear of it; a zero time is now.
func (t *tracer) arrived(event []byte, what, from string, at time.Time) {
	trace := wire.EventTrace(event)
	if trace == nil {
		return
	}
	now := time.Now()
	if at.IsZero() {
		at = now
	}
	t.note(trace, TraceHop{What: what, Message: string(wire.EventClientMsgID(event)), Seq: wire.EventSeq(event), From: from, Arrived: micros(at), Left: micros(now)})
}

// wrote notes that an event was written to a peer, in a write that has begun at a
// time and is just done. What this node knows nothing else of is history. It is called for
// each follower of a room: once there are the hops that are kept, it does nothing.
func (t *tracer) wrote(event []byte, p relay.Peer, begun time.Time) {
	trace := wire.EventTrace(event)
	if trace == nil {
		return
	}
	now := micros(time.Now())
	t.mu.Lock()
	defer t.mu.Unlock()
	hops := t.kept[traceID(trace)]
	if len(hops) >= hopsKept {
		return
	}
	came := last(hops, wire.EventClientMsgID(event), HopApply, HopRelay)
	if came == nil {
		return
	}
	t.kept[traceID(trace)] = append(hops, TraceHop{
		Node: t.node, Region: t.region, What: HopWrite, Message: came.Message, Seq: wire.EventSeq(event), To: p.Node, User: p.User,
		Arrived: came.Left, Queued: max(0, micros(begun)-came.Left), Left: now,
	})
}

// traceQuery answers what is asked about traces; ok is false if it is nothing of this.
func (n *Node) traceQuery(ctx context.Context, p relay.Peer, q *wire.Query) (answer []byte, ok bool, err error) {
	here := q.What == queryTraceHere && p.Node != ""
	if !here && (q.What != queryTrace || p.Node != "") {
		return nil, false, nil
	}
	if !here {
		if err := (arity{1, 1}).check(p, q); err != nil {
			return nil, true, err
		}
	}
	id, err := parseTrace(q.Args)
	if err != nil {
		return nil, true, err
	}
	hops := n.tracer.of(id)
	if !here {
		hops = gather(ctx, n, &wire.Query{What: queryTraceHere, Args: q.Args}, hops)
		slices.SortStableFunc(hops, func(a, b TraceHop) int { return cmp.Compare(a.Arrived, b.Arrived) })
		hops = fitting(hops)
	}
	answer, err = json.Marshal(hops)
	return answer, true, err
}

func parseTrace(args []string) (id traceID, err error) {
	if len(args) == 1 {
		if b, err := hex.DecodeString(args[0]); err == nil && len(b) == len(id) {
			return traceID(b), nil
		}
	}
	return id, wire.Errorf(wire.CodeBadRequest, "the query %q takes a trace id of %d hex digits, not %q", queryTrace, 2*len(id), args)
}
