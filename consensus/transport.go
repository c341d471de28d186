package consensus

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/starling-im/starling/wire"
)

// transport is one group's way to its other replicas: it shares the streams
// of the Host with all groups.
type transport struct {
	h     *Host
	group uint32
	epoch uint64
	rpc   chan raft.RPC
	hints hints
	// progress is what answers tell of the other replicas.
	progress progress
	// doubts are the replicas that take committed entries only.
	doubts peerDoubts

	// handing is set while the lead is handed over, for which Raft waits for
	// answers to requests without entries.
	handing  atomic.Bool
	openings sync.Mutex
	opened   map[string]uint64 // the term in which each peer was sent a first request
}

func newTransport(h *Host, cfg Group, epoch uint64) *transport {
	t := &transport{h: h, group: cfg.ID, epoch: epoch, rpc: make(chan raft.RPC), opened: map[string]uint64{}}
	t.hints.t = t
	return t
}

var (
	_ raft.Transport   = (*transport)(nil)
	_ raft.WithPreVote = (*transport)(nil)
)

func (t *transport) Consumer() <-chan raft.RPC     { return t.rpc }
func (t *transport) LocalAddr() raft.ServerAddress { return raft.ServerAddress(t.h.cfg.Node) }

func (t *transport) EncodePeer(_ raft.ServerID, a raft.ServerAddress) []byte { return []byte(a) }
func (t *transport) DecodePeer(b []byte) raft.ServerAddress                  { return raft.ServerAddress(b) }

// SetHeartbeatHandler is ignored: that short cut lets a follower answer a
// heartbeat while its main loop changes term, and a vote may be lost so.
func (t *transport) SetHeartbeatHandler(func(raft.RPC)) {}

func (t *transport) AppendEntries(id raft.ServerID, _ raft.ServerAddress, r *raft.AppendEntriesRequest, to *raft.AppendEntriesResponse) error {
	done := make(chan error, 1)
	t.append(t.h.peer(string(id)), r, to, func(err error) { done <- err })
	return <-done
}

// append sends a request and calls done when to holds the answer.
func (t *transport) append(p *peer, r *raft.AppendEntriesRequest, to *raft.AppendEntriesResponse, done func(error)) {
	if t.h.s.stall.stalled() {
		done(errStalled)
		return
	}
	if t.replaced(r) {
		done(errReplaced)
		return
	}
	if t.spare(p.node, r) {
		defer t.rest()
	}
	p.count(r)
	if len(r.Entries) == 0 && !t.opens(p.node, r) && !t.handing.Load() {
		p.beats.add(t.group, t.epoch, r, func(m *wire.BeatReply, err error) {
			var reply *wire.AppendEntriesReply
			if err == nil {
				reply = &wire.AppendEntriesReply{Term: m.Term, LastLog: m.LastLog, Success: m.Success, NoRetryBackoff: m.NoRetryBackoff, Doubtful: m.Doubtful}
			}
			done(t.replied(p.node, r, to, reply, err))
		})
		return
	}
	p.ask(appendMessage(t.group, t.epoch, r), true, func(m *wire.RaftMessage, err error) {
		reply := m.GetAppendReply()
		if err == nil && reply == nil {
			err = wrongAnswer(m)
		}
		done(t.replied(p.node, r, to, reply, err))
	})
	t.hints.appended(p.node, r)
}

var errReplaced = errors.New("consensus: entries were read while the log changed")

// replaced says that the log may have changed while Raft read the request from it.
// A leader's Raft goes on sending while it already takes entries from the next one,
// which replace its own: the request would have an entry of before and one of after,
// and no log in the group is like that. Raft moves its term up before it removes
// anything. And an entry that was cut off with the snapshot is no entry to be sent.
func (t *transport) replaced(r *raft.AppendEntriesRequest) bool {
	for _, e := range r.Entries {
		if e.Type == standIn {
			return true
		}
	}
	g := t.h.group(t.group)
	return g != nil && g.instance().CurrentTerm() != r.Term
}

// opens reports whether r is the first with which a leader compares its log with
// a peer's: entries wait for the answer, so it must not wait for other groups.
func (t *transport) opens(node string, r *raft.AppendEntriesRequest) bool {
	if r.PrevLogEntry == 0 { // a heartbeat
		return false
	}
	t.openings.Lock()
	defer t.openings.Unlock()
	if r.Term <= t.opened[node] {
		return false
	}
	t.opened[node] = r.Term
	return true
}

// replied takes the answer to a request, and returns what Raft is to think of it.
func (t *transport) replied(node string, r *raft.AppendEntriesRequest, to *raft.AppendEntriesResponse, reply *wire.AppendEntriesReply, err error) error {
	if err == nil {
		t.doubts.saw(node, reply)
		*to = raft.AppendEntriesResponse{
			RPCHeader: header(node), Term: reply.Term, LastLog: reply.LastLog, Success: reply.Success, NoRetryBackoff: reply.NoRetryBackoff,
		}
		if !to.Success && reply.Doubtful && uncommitted(r) {
			err = errDoubtful
		}
	}
	t.progress.saw(node, r, to, err)
	return err
}

// count adds the commands of r to those copied to the peer.
func (p *peer) count(r *raft.AppendEntriesRequest) {
	n := 0
	for _, e := range r.Entries {
		if e.Type == raft.LogCommand {
			n += commandCount(e.Data)
		}
	}
	p.copies.Add(uint64(n))
}

func (t *transport) RequestVote(id raft.ServerID, _ raft.ServerAddress, r *raft.RequestVoteRequest, to *raft.RequestVoteResponse) error {
	m, err := t.h.peer(string(id)).askWait(&wire.RaftMessage{Group: t.group, Epoch: t.epoch, Body: &wire.RaftMessage_Vote{Vote: &wire.RequestVote{
		Term: r.Term, LastLogIndex: r.LastLogIndex, LastLogTerm: r.LastLogTerm, LeadershipTransfer: r.LeadershipTransfer,
	}}}, false)
	if err != nil {
		return err
	}
	v := m.GetVoteReply()
	if v == nil {
		return wrongAnswer(m)
	}
	*to = raft.RequestVoteResponse{RPCHeader: header(string(id)), Term: v.Term, Granted: v.Granted}
	return nil
}

func (t *transport) RequestPreVote(id raft.ServerID, _ raft.ServerAddress, r *raft.RequestPreVoteRequest, to *raft.RequestPreVoteResponse) error {
	m, err := t.h.peer(string(id)).askWait(preVote(t.group, t.epoch, r.Term, r.LastLogIndex, r.LastLogTerm), false)
	if err != nil {
		return err
	}
	v := m.GetPreVoteReply()
	if v == nil {
		return wrongAnswer(m)
	}
	*to = raft.RequestPreVoteResponse{RPCHeader: header(string(id)), Term: v.Term, Granted: v.Granted}
	return nil
}

func preVote(group uint32, epoch, term, lastIndex, lastTerm uint64) *wire.RaftMessage {
	return &wire.RaftMessage{Group: group, Epoch: epoch, Body: &wire.RaftMessage_PreVote{PreVote: &wire.RequestVote{
		Term: term, LastLogIndex: lastIndex, LastLogTerm: lastTerm,
	}}}
}

func (t *transport) TimeoutNow(id raft.ServerID, _ raft.ServerAddress, _ *raft.TimeoutNowRequest, to *raft.TimeoutNowResponse) error {
	_, err := t.h.peer(string(id)).askWait(&wire.RaftMessage{Group: t.group, Epoch: t.epoch, Body: &wire.RaftMessage_TimeoutNow{TimeoutNow: &wire.TimeoutNow{}}}, false)
	to.RPCHeader = header(string(id))
	return err
}

// InstallSnapshot sends a snapshot over a stream of its own: one frame, the
// bytes, and the answer comes back as one frame.
func (t *transport) InstallSnapshot(id raft.ServerID, _ raft.ServerAddress, r *raft.InstallSnapshotRequest, to *raft.InstallSnapshotResponse, data io.Reader) error {
	ctx, cancel := context.WithTimeout(t.h.ctx, dialTimeout)
	defer cancel()
	s, err := t.h.cfg.Dial(ctx, string(id), true)
	if err != nil {
		return err
	}
	defer s.Close()
	defer context.AfterFunc(t.h.ctx, func() { _ = s.Close() })()
	head := wire.AppendMessage(nil, &wire.RaftMessage{Group: t.group, Epoch: t.epoch, Id: 1, Body: &wire.RaftMessage_Snapshot{Snapshot: &wire.InstallSnapshot{
		Term: r.Term, LastLogIndex: r.LastLogIndex, LastLogTerm: r.LastLogTerm,
		Configuration: r.Configuration, ConfigurationIndex: r.ConfigurationIndex, SizeBytes: uint64(r.Size),
	}}})
	w := stalling{s}
	if _, err := w.Write(head); err != nil {
		return err
	}
	if _, err := io.Copy(w, data); err != nil {
		return err
	}
	if err := s.SetReadDeadline(time.Now().Add(installTimeout)); err != nil {
		return err
	}
	m, err := wire.NewReader(s, wire.NodeFrame).Raft()
	if err != nil {
		return err
	}
	reply := m.GetSnapshotReply()
	if reply == nil {
		return wire.Errorf(wire.CodeInternal, "%s did not install the snapshot: %s", id, m.Error)
	}
	*to = raft.InstallSnapshotResponse{RPCHeader: header(string(id)), Term: reply.Term, Success: reply.Success}
	return nil
}

// stalling gives up a stream that takes or gives nothing for wire.WriteStall.
type stalling struct{ s Stream }

func (s stalling) Write(b []byte) (int, error) {
	if err := s.s.SetWriteDeadline(time.Now().Add(wire.WriteStall)); err != nil {
		return 0, err
	}
	return s.s.Write(b)
}

func (s stalling) Read(b []byte) (int, error) {
	if err := s.s.SetReadDeadline(time.Now().Add(wire.WriteStall)); err != nil {
		return 0, err
	}
	return s.s.Read(b)
}

// AppendEntriesPipeline lets the leader send on before the answer has come.
func (t *transport) AppendEntriesPipeline(id raft.ServerID, _ raft.ServerAddress) (raft.AppendPipeline, error) {
	return &pipeline{
		t: t, p: t.h.peer(string(id)),
		slots:  make(chan struct{}, pipelined),
		out:    make(chan raft.AppendFuture, 16*pipelined), // Raft takes them at once, but not in step
		closed: make(chan struct{}),
	}, nil
}

type pipeline struct {
	t      *transport
	p      *peer
	slots  chan struct{} // one for each request without an answer
	out    chan raft.AppendFuture
	once   sync.Once
	closed chan struct{}

	mu    sync.Mutex
	order []*appendFuture // as sent
}

// appendFuture is one pipelined request.
type appendFuture struct {
	start time.Time
	req   *raft.AppendEntriesRequest
	resp  *raft.AppendEntriesResponse
	err   error
	done  bool // guarded by the pipeline's mu until it is given out
}

func (f *appendFuture) Error() error                          { return f.err }
func (f *appendFuture) Start() time.Time                      { return f.start }
func (f *appendFuture) Request() *raft.AppendEntriesRequest   { return f.req }
func (f *appendFuture) Response() *raft.AppendEntriesResponse { return f.resp }

func (l *pipeline) AppendEntries(r *raft.AppendEntriesRequest, to *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, errClosed
	case <-l.t.h.ctx.Done():
		return nil, errClosed
	}
	f := &appendFuture{start: time.Now(), req: r, resp: to}
	l.mu.Lock()
	l.order = append(l.order, f)
	l.mu.Unlock()
	l.t.append(l.p, r, to, func(err error) { l.finish(f, err) })
	return f, nil
}

// finish gives out all futures at the head of the line that are done. A failed
// one has an unsuccessful response, at which Raft leaves the pipeline: it then
// takes no more of them, and may wait in AppendEntries. So finish never waits
// for Raft; a pipeline whose answers are not taken is closed instead.
func (l *pipeline) finish(f *appendFuture, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f.err, f.done = err, true
	for len(l.order) > 0 && l.order[0].done {
		select {
		case l.out <- l.order[0]:
		default:
			l.once.Do(func() { close(l.closed) })
			return
		}
		l.order = l.order[1:]
		<-l.slots
	}
}

func (l *pipeline) Consumer() <-chan raft.AppendFuture { return l.out }

func (l *pipeline) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}
