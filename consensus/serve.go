package consensus

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/starling-im/starling/wire"
)

// Serve reads the ordered stream of a peer until it ends: nil at its regular
// end or when the Host closes, else what was wrong with it. node must have
// been authenticated.
func (h *Host) Serve(node string, s Stream) error {
	defer s.Close()
	release, err := h.serving(s)
	if err != nil {
		return err
	}
	defer release()
	p := h.peer(node)
	p.retry()
	defer p.dictionary.Store(0) // the next process of the node may be of an older release
	r, known := wire.NewReader(s, wire.NodeFrame), false
	for {
		m, err := r.Raft()
		if err != nil {
			p.failAll(fmt.Errorf("consensus: stream from %s ended: %w", node, err))
			if errors.Is(err, io.EOF) || h.ctx.Err() != nil {
				return nil
			}
			return err
		}
		if m.GetLife() != nil || !known {
			if err := h.greeted(p, m.GetLife()); err != nil {
				return err
			}
			if !known {
				defer p.serving()()
			}
			known = true
			continue
		}
		if b := m.GetBeats(); b != nil {
			h.beatsCame(p, m.Id, b)
			continue
		}
		if b := m.GetBeatReplies(); b != nil {
			p.beats.repliesCame(m.Id, b)
			continue
		}
		if !h.agree(m.Group, m.Epoch) {
			h.disagree(p, m)
			continue
		}
		if isAnswer(m) {
			p.answered(m.Id, m, nil)
			continue
		}
		if g := h.group(m.Group); g == nil {
			if m.GetAppend() != nil {
				h.join(m.Group)
			}
			h.refuse(p, m, notHere)
		} else if m.GetFindTip() != nil {
			g.findTip(p, m)
		} else if m.GetFindPlace() != nil {
			g.findPlace(p, m)
		} else if !g.inbox.push(p, m) {
			h.refuse(p, m, tooMany)
		}
	}
}

// What peers are told who ask in vain.
const (
	notHere = "group is not here"
	tooMany = "too many requests wait"
)

func (h *Host) refuse(p *peer, m *wire.RaftMessage, why string) {
	if m.Id != 0 {
		a := answer(m.Group, m.Id, nil, errors.New(why))
		a.Epoch = h.epochs.of(m.Group)
		_ = p.send(a, false)
	}
}

// inbox holds the requests of peers to one group, in order. It costs a
// goroutine only while there are any.
type inbox struct {
	g *group

	mu    sync.Mutex
	queue []inboxItem
	bytes int
	busy  bool
	// leads is the node that last sent an AppendEntries, open how many of it
	// wait for Raft, and heard when the last one came or was answered.
	leads string
	open  int
	heard time.Time
}

// heardFrom returns when a node that leads was last heard. Where this node's
// disk is slow Raft takes requests up late, and the leader, which waits for the
// answer, sends nothing: that is no silence of the leader.
func (b *inbox) heardFrom(leader string) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.leads != leader:
		return time.Time{}
	case b.open > 0:
		return time.Now()
	}
	return b.heard
}

func (it inboxItem) leads() bool { return it.beat != nil || it.m.GetAppend() != nil }

// took notes that Raft has answered a request.
func (b *inbox) took(it inboxItem) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if it.leads() && it.from.node == b.leads && b.open > 0 {
		b.open--
		b.heard = time.Now()
	}
}

// inboxItem is a request; one of m and beat is set.
type inboxItem struct {
	from *peer
	m    *wire.RaftMessage
	beat *wire.Beat
	id   uint64 // of beat
	size int
	came time.Time
}

// push queues a request; false means that the inbox is full.
func (b *inbox) push(from *peer, m *wire.RaftMessage) bool {
	size := 0
	for _, e := range m.GetAppend().GetEntries() {
		size += len(e.Data)
	}
	return b.add(inboxItem{from: from, m: m, size: size})
}

// pushBeat is push for a request that came with those of other groups.
func (b *inbox) pushBeat(from *peer, id uint64, beat *wire.Beat) bool {
	return b.add(inboxItem{from: from, beat: beat, id: id})
}

func (b *inbox) add(it inboxItem) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) >= inboxMessages || len(b.queue) > 0 && b.bytes+it.size > inboxBytes {
		return false
	}
	it.came = time.Now()
	if it.leads() {
		if b.leads != it.from.node {
			b.leads, b.open = it.from.node, 0
		}
		b.open++
		b.heard = it.came
	}
	b.queue = append(b.queue, it)
	b.bytes += it.size
	if !b.busy {
		b.busy = b.g.start(b.work)
	}
	return true
}

// work hands requests to Raft one by one: its main loop handles no more.
func (b *inbox) work() {
	ch := make(chan raft.RPCResponse, 1)
	for {
		b.mu.Lock()
		if len(b.queue) == 0 {
			b.queue, b.busy = nil, false
			b.mu.Unlock()
			return
		}
		it := b.queue[0]
		b.queue[0] = inboxItem{}
		b.queue = b.queue[1:]
		b.bytes -= it.size
		b.mu.Unlock()
		ok := b.handle(it, ch)
		b.took(it)
		if !ok {
			ch = make(chan raft.RPCResponse, 1) // Raft may still answer into the other
		}
	}
}

func (b *inbox) handle(it inboxItem, ch chan raft.RPCResponse) bool {
	c, err := it.command()
	var resp raft.RPCResponse
	r, appends := c.(*raft.AppendEntriesRequest)
	if appends {
		b.g.logs.rebase(r)
	}
	cut, d := false, b.g.doubt()
	if err == nil {
		resp.Response, cut, err = b.g.screen(d, c)
	}
	if err == nil && resp.Response == nil {
		if appends {
			c = shown(r)
		}
		resp, err = b.g.deliver(raft.RPC{Command: c, RespChan: ch}, ch)
	}
	if err == nil {
		err = resp.Error
	}
	if took, ok := resp.Response.(*raft.AppendEntriesResponse); ok && err == nil && took.Success && it.raftsOwn() {
		b.g.told(r, it.left())
	}
	if b.g.h.down() == nil {
		it.answer(b.g.epoch, resp.Response, err, d.lost(), cut)
	}
	return err == nil
}

// shown is a request that has a follower commit no entry but those that the request
// shows to be the leader's: rule 5 of AppendEntries in figure 2 of the Raft paper,
// min(leaderCommit, index of last new entry). hashicorp/raft takes the end of the
// follower's log for the latter. A leader that was cut off or stalled has entries of
// its own there; told of a commit by a request that ends before them it applied
// these, and its data differed from the others' for good.
//
// It is a copy: told needs what the leader has said.
func shown(r *raft.AppendEntriesRequest) *raft.AppendEntriesRequest {
	last := r.PrevLogEntry
	if n := len(r.Entries); n > 0 {
		last = r.Entries[n-1].Index
	}
	s := *r
	s.LeaderCommitIndex = min(r.LeaderCommitIndex, last)
	return &s
}

// raftsOwn says that the leader's Raft wants an answer; to hints there is none.
func (it inboxItem) raftsOwn() bool { return it.beat != nil || it.m.Id != 0 }

// left is a moment at which the message had been made, less its way here.
func (it inboxItem) left() time.Time {
	if it.beat != nil {
		return it.came.Add(-beatGather)
	}
	return it.came
}

func (it inboxItem) command() (any, error) {
	if it.beat != nil {
		return appendOf(it.from.node, it.beat), nil
	}
	return command(it.from.node, it.m)
}

// answer sends Raft's answer. Of a replica in doubt it says so; cut says that
// the replica did not get all of the request.
func (it inboxItem) answer(epoch uint64, response any, err error, doubtful, cut bool) {
	if it.beat != nil {
		r := beatReply(response, err)
		r.Doubtful = doubtful && r.Error == ""
		it.from.beats.reply(it.id, r)
		return
	}
	if it.m.Id == 0 {
		return
	}
	m := answer(it.m.Group, it.m.Id, response, err)
	m.Epoch = epoch
	if r := m.GetAppendReply(); r != nil && doubtful {
		r.Doubtful, r.Success = true, r.Success && !cut
	}
	_ = it.from.send(m, false)
}

// deliver gives an RPC to the group's Raft and waits for the response.
func (g *group) deliver(rpc raft.RPC, ch <-chan raft.RPCResponse) (raft.RPCResponse, error) {
	stopped := g.instance().stopped
	select {
	case g.trans.rpc <- rpc:
	case <-stopped:
		return raft.RPCResponse{}, errClosed
	}
	select {
	case r := <-ch:
		return r, nil
	case <-stopped:
		return raft.RPCResponse{}, errClosed
	}
}

// ServeSnapshot receives one snapshot from a peer and installs it.
func (h *Host) ServeSnapshot(node string, s Stream) error {
	defer s.Close()
	release, err := h.serving(s)
	if err != nil {
		return err
	}
	defer release()
	r := wire.NewReader(stalling{s}, wire.NodeFrame)
	m, err := r.Raft()
	if err != nil {
		return err
	}
	reply, err := h.receive(node, m, r.Rest())
	_, err2 := stalling{s}.Write(wire.AppendMessage(nil, answer(m.Group, m.Id, reply, err)))
	return errors.Join(err, err2)
}

func (h *Host) receive(node string, m *wire.RaftMessage, data io.Reader) (any, error) {
	g, head := h.group(m.Group), m.GetSnapshot()
	if g == nil || head == nil || !h.agree(m.Group, m.Epoch) {
		return nil, wire.Errorf(wire.CodeBadRequest, "no snapshot of a group that is here")
	}
	release, err := h.slot(h.receiving)
	if err != nil {
		return nil, err
	}
	defer release()
	hd := header(node)
	ch := make(chan raft.RPCResponse, 1)
	resp, err := g.deliver(raft.RPC{RespChan: ch, Reader: io.LimitReader(data, int64(head.SizeBytes)), Command: &raft.InstallSnapshotRequest{
		RPCHeader: hd, SnapshotVersion: raft.SnapshotVersionMax, Term: head.Term, Leader: hd.Addr,
		LastLogIndex: head.LastLogIndex, LastLogTerm: head.LastLogTerm,
		Configuration: head.Configuration, ConfigurationIndex: head.ConfigurationIndex, Size: int64(head.SizeBytes),
	}}, ch)
	if err != nil {
		return nil, err
	}
	if errors.Is(resp.Error, errHave) {
		return &raft.InstallSnapshotResponse{RPCHeader: header(h.cfg.Node), Term: head.Term, Success: true}, nil
	}
	if g.snaps.over.Swap(false) {
		// Raft still counts on a log that conflicted with the leader's and
		// that it has just removed: it would refuse all that follows.
		g.start(func() { g.restart("its log conflicted with a snapshot") })
	}
	return resp.Response, resp.Error
}
