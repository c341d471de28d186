package consensus

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/starling-im/starling/wire"
)

const (
	// beatGather is how long AppendEntries without entries wait for those of
	// other groups to the same node. Raft sends them every tenth to fifth of
	// Config.Heartbeat, so a follower notices nothing.
	beatGather = 20 * time.Millisecond
	// replyGather is how long their answers wait for others.
	replyGather = 5 * time.Millisecond
	// beatsMost bounds those of one message.
	beatsMost = 4096
)

// beats let the heartbeats of all groups to one node travel together, and the
// answers to those of the other node.
//
// Nothing overtakes: whatever else goes to the node takes along first what has
// been gathered. So what a group says and answers arrives in the order in which
// it was said, as over a stream of its own.
type beats struct {
	p *peer

	mu      sync.Mutex
	next    uint64 // id of the next beat; the ids of requests are others
	waiting map[uint64]beatDone
	out     []*wire.Beat // the last one has the id before next
	replies []*wire.BeatReply
	first   uint64      // the id of the Beat that replies[0] answers
	timer   *time.Timer // of flush
	due     time.Time   // when it fires, zero = never
}

// beatDone is told the answer to a beat, once.
type beatDone func(*wire.BeatReply, error)

func newBeats(p *peer) *beats {
	return &beats{p: p, next: rand.Uint64(), waiting: map[uint64]beatDone{}}
}

// add queues a request without entries.
func (b *beats) add(group uint32, epoch uint64, r *raft.AppendEntriesRequest, done beatDone) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.out = append(b.out, &wire.Beat{Group: group, Epoch: epoch, Term: r.Term, PrevLogIndex: r.PrevLogEntry, PrevLogTerm: r.PrevLogTerm, LeaderCommit: r.LeaderCommitIndex})
	b.waiting[b.next] = done
	b.next++
	if len(b.out) >= beatsMost {
		b.flush()
		return
	}
	b.within(beatGather)
}

// reply queues the answer to a beat of the other node.
func (b *beats) reply(id uint64, r *wire.BeatReply) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.replies) == 0 {
		b.first = id
	}
	r.Offset = int64(id - b.first)
	b.replies = append(b.replies, r)
	if len(b.replies) >= beatsMost {
		b.flush()
		return
	}
	b.within(replyGather)
}

// within makes sure that there is a flush in time; mu is held.
func (b *beats) within(d time.Duration) {
	due := time.Now().Add(d)
	switch {
	case !b.due.IsZero() && !due.Before(b.due):
	case b.timer == nil:
		b.due, b.timer = due, time.AfterFunc(d, b.fire)
	default:
		b.due = due
		b.timer.Reset(d)
	}
}

func (b *beats) fire() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.flush()
}

// before calls send after what was gathered has been sent.
func (b *beats) before(send func() error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.flush()
	return send()
}

// flush sends what was gathered; mu is held.
func (b *beats) flush() {
	b.due = time.Time{}
	if len(b.replies) > 0 {
		_ = b.p.push(&wire.RaftMessage{Id: b.first, Body: &wire.RaftMessage_BeatReplies{BeatReplies: &wire.BeatReplies{Replies: b.replies}}}, false)
		b.replies = nil
	}
	if len(b.out) == 0 {
		return
	}
	n := uint64(len(b.out))
	from := b.next - n
	err := b.p.push(&wire.RaftMessage{Id: from, Body: &wire.RaftMessage_Beats{Beats: &wire.Beats{Beats: b.out}}}, false)
	b.out = nil
	if err != nil {
		go b.fail(from, n, err) // who waits may have the peer's locks
		return
	}
	time.AfterFunc(requestTimeout, func() { b.fail(from, n, errTimeout) })
}

// fail ends those of n beats that still wait.
func (b *beats) fail(from, n uint64, err error) {
	for id := from; id != from+n; id++ {
		b.answered(id, nil, err)
	}
}

// failAll ends all that were sent: their answers were lost with a stream.
func (b *beats) failAll(err error) {
	b.mu.Lock()
	lost := b.waiting
	b.waiting, b.out = map[uint64]beatDone{}, nil
	b.mu.Unlock()
	for _, done := range lost {
		done(nil, err)
	}
}

// answered ends a beat, if it still waits.
func (b *beats) answered(id uint64, r *wire.BeatReply, err error) {
	b.mu.Lock()
	done := b.waiting[id]
	delete(b.waiting, id)
	b.mu.Unlock()
	if done == nil {
		return
	}
	if err == nil && r.Error != "" {
		r, err = nil, fmt.Errorf("consensus: %s: %s", b.p.node, r.Error)
	}
	done(r, err)
}

// repliesCame takes the answers of the other node.
func (b *beats) repliesCame(first uint64, m *wire.BeatReplies) {
	for _, r := range m.Replies {
		b.answered(first+uint64(r.Offset), r, nil)
	}
}

// beatsCame hands the beats of another node to their groups, like any request.
func (h *Host) beatsCame(p *peer, first uint64, m *wire.Beats) {
	for i, beat := range m.Beats {
		id := first + uint64(i)
		if !h.agree(beat.Group, beat.Epoch) {
			h.disagree(p, &wire.RaftMessage{Group: beat.Group})
			p.beats.reply(id, &wire.BeatReply{Error: errOutlived.Error()})
		} else if g := h.group(beat.Group); g == nil {
			h.join(beat.Group)
			p.beats.reply(id, &wire.BeatReply{Error: notHere})
		} else if !g.inbox.pushBeat(p, id, beat) {
			p.beats.reply(id, &wire.BeatReply{Error: tooMany})
		}
	}
}

// append turns a beat of a node into what Raft takes.
func appendOf(node string, b *wire.Beat) *raft.AppendEntriesRequest {
	return &raft.AppendEntriesRequest{
		RPCHeader: header(node), Term: b.Term, PrevLogEntry: b.PrevLogIndex, PrevLogTerm: b.PrevLogTerm, LeaderCommitIndex: b.LeaderCommit,
	}
}

// beatReply turns Raft's response to a beat into an answer.
func beatReply(response any, err error) *wire.BeatReply {
	r, ok := response.(*raft.AppendEntriesResponse)
	if err == nil && !ok {
		err = errors.New("no answer to AppendEntries")
	}
	if err != nil {
		return &wire.BeatReply{Error: err.Error()}
	}
	return &wire.BeatReply{Term: r.Term, LastLog: r.LastLog, Success: r.Success, NoRetryBackoff: r.NoRetryBackoff}
}
