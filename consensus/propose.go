package consensus

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/starling-im/starling/wire"
)

// proposal is a command that waits, and whom to tell.
type proposal struct {
	command []byte
	left    func() // may be nil
	done    func(any, error)
}

// lanes carry the commands of one group to Raft. All commands that wait leave
// together in one entry; up to Config.Depth entries are under way, each on a
// lane, which is a goroutine that ends when nothing waits. Where a commit takes
// long even without load, since voters are far apart, more lanes follow, each
// a pace after the one before.
type lanes struct {
	g *group
	// order is held from taking a batch until Raft has it, so that entries
	// follow each other as their commands did.
	order sync.Mutex

	mu      sync.Mutex
	waiting []proposal
	bytes   int
	running int
	newest  *batch
	failing *batch // the newest one when a batch failed, until it is answered
	epoch   uint64 // of the chain of entries, see entry
	number  uint64
	refused time.Time // since when Raft refuses all because of a transfer
	pacing  bool      // a lane waits for its pace
	held    bool      // nothing leaves, see hold
	idle    chan struct{}
	far     trip
}

// batch is one entry under way.
type batch struct {
	proposals []proposal
	start     time.Time
	prev      <-chan struct{} // closed when the batch before is answered
	answered  chan struct{}
	// behind are those that waited or came when a batch failed, to be failed
	// after the newest batch of that moment; guarded by lanes.mu.
	behind []proposal
}

// Propose puts a command into a group's log. It never blocks. done is called
// exactly once, in the order of the calls of Propose (a refusal as overloaded
// comes at once), and must be quick; the command must not change before.
//
// Errors are *wire.Error: too_large, overloaded and not_leader (with the
// leader, if known) are certain to have had no effect; after unavailable it is
// unknown. When a command fails, all that wait behind it fail too.
func (h *Host) Propose(id uint32, command []byte, done func(result any, err error)) {
	h.ProposeTold(id, command, nil, done)
}

// ProposeTold is Propose that calls left, which must be quick, when the command has
// waited for its turn and goes to the disks of the voters.
func (h *Host) ProposeTold(id uint32, command []byte, left func(), done func(result any, err error)) {
	if len(command) > EntryBytes {
		done(nil, wire.TooLarge("command", uint64(len(command)), EntryBytes))
		return
	}
	g := h.group(id)
	if g == nil {
		done(nil, noGroup(id))
		return
	}
	if err := g.lanes.add(proposal{command, left, done}); err != nil {
		done(nil, err)
	}
}

// begin starts a new chain of entries.
func (l *lanes) begin() { l.epoch, l.number = rand.Uint64(), 0 }

// add queues a command. Its error is certain and has nothing to do with the
// commands before, so it need not wait for their answers.
func (l *lanes) add(p proposal) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) >= QueuedCommands || len(l.waiting) > 0 && l.bytes+len(p.command) > QueuedBytes {
		return l.overloaded(len(l.waiting))
	}
	if l.failing != nil {
		if n := len(l.failing.behind); n >= 2*QueuedCommands {
			return l.overloaded(n)
		}
		l.failing.behind = append(l.failing.behind, p)
		return nil
	}
	if lane := l.another(); lane != nil {
		if !l.g.h.startLane(lane) {
			return shuttingDown()
		}
		l.running++
	}
	l.waiting = append(l.waiting, p)
	l.bytes += len(p.command)
	return nil
}

func (l *lanes) overloaded(waiting int) *wire.Error {
	return wire.Errorf(wire.CodeOverloaded, "group %d has %d commands waiting", l.g.cfg.ID, waiting).After(overloadPause)
}

func shuttingDown() *wire.Error {
	return wire.Errorf(wire.CodeShuttingDown, "the node is shutting down")
}

// startLane is start for a lane: none starts once Close waits for them.
func (h *Host) startLane(fn func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closing || h.down() != nil {
		return false
	}
	h.lanes.Add(1)
	h.running.Go(func() {
		defer h.lanes.Done()
		fn()
	})
	return true
}

// run is one lane.
func (l *lanes) run() {
	for {
		b, future := l.next()
		if b == nil {
			return
		}
		o, err := l.await(future)
		if err == nil && !l.more() {
			l.g.hint(o.index, o.term)
		}
		<-b.prev
		l.answer(b, o, err)
		close(b.answered)
	}
}

// next takes what waits and hands it to Raft. Without anything to do it ends
// the lane.
func (l *lanes) next() (*batch, raft.ApplyFuture) {
	l.order.Lock()
	defer l.order.Unlock()
	l.mu.Lock()
	b, e := l.take()
	if b == nil {
		l.ended()
		l.mu.Unlock()
		return nil, nil
	}
	l.mu.Unlock()
	r := l.g.instance()
	if r.State() != raft.Leader || l.g.h.s.stall.stalled() {
		return b, refusedFuture{raft.ErrNotLeader}
	}
	for _, p := range b.proposals {
		if p.left != nil {
			p.left()
		}
	}
	return b, r.Apply(e.encode(), l.g.h.cfg.ProposeTimeout)
}

// take is called with mu held.
func (l *lanes) take() (*batch, entry) {
	n, size := 0, 0
	for n < len(l.waiting) && (n == 0 || size+len(l.waiting[n].command) <= EntryBytes) {
		size += len(l.waiting[n].command)
		n++
	}
	if n == 0 || l.held {
		return nil, entry{}
	}
	b := &batch{proposals: l.waiting[:n:n], start: time.Now(), answered: make(chan struct{})}
	l.waiting = l.waiting[n:]
	l.bytes -= size
	if l.newest != nil {
		b.prev = l.newest.answered
	} else {
		b.prev = closedChannel
	}
	l.newest = b
	e := entry{stamp: b.start.UnixMilli(), epoch: l.epoch, number: l.number, commands: make([][]byte, n)}
	l.number++
	for i, p := range b.proposals {
		e.commands[i] = p.command
	}
	return b, e
}

var closedChannel = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

func (l *lanes) more() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting) > 0
}

// await waits for what becomes of an entry, but not for ever: Raft may forget
// a future when it stops.
func (l *lanes) await(f raft.ApplyFuture) (*outcome, error) {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	timer := time.NewTimer(l.g.h.cfg.ProposeTimeout)
	defer timer.Stop()
	select {
	case err := <-done:
		if err != nil {
			return nil, l.translate(err)
		}
	case <-timer.C:
		return nil, wire.Errorf(wire.CodeUnavailable, "group %d did not commit within %v", l.g.cfg.ID, l.g.h.cfg.ProposeTimeout)
	case <-l.g.h.ctx.Done():
		return nil, wire.Errorf(wire.CodeUnavailable, "the node is shutting down")
	}
	o, _ := f.Response().(*outcome)
	switch {
	case o == nil: // the store broke while applying
		return nil, wire.Errorf(wire.CodeUnavailable, "storage failed")
	case o.void:
		return nil, l.g.notLeader()
	}
	return o, nil
}

// translate says what an error of Raft means for commands.
func (l *lanes) translate(err error) error {
	switch {
	case errors.Is(err, raft.ErrLeadershipTransferInProgress):
		l.transferring()
		return l.g.notLeader()
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrEnqueueTimeout):
		return l.g.notLeader()
	}
	return wire.Errorf(wire.CodeUnavailable, "group %d: %v", l.g.cfg.ID, err)
}

// notLeader is a certain refusal with a hint.
func (g *group) notLeader() *wire.Error {
	e := wire.Errorf(wire.CodeNotLeader, "this node does not lead group %d", g.cfg.ID)
	if leader := g.leader(); leader != g.h.cfg.Node {
		e.Node = leader
	}
	return e
}

// answer tells the proposers of a batch.
func (l *lanes) answer(b *batch, o *outcome, err error) {
	l.mu.Lock()
	if err != nil {
		// Those behind fail too, after the batches that are under way, and so
		// do those that come until their senders have been told.
		l.failing = l.newest
		l.failing.behind = append(l.failing.behind, l.waiting...)
		l.waiting, l.bytes = nil, 0
		l.begin()
	} else {
		l.refused = time.Time{}
	}
	l.mu.Unlock()
	for i, p := range b.proposals {
		if err != nil {
			p.done(nil, err)
		} else {
			p.done(o.results[i], nil)
		}
	}
	b.proposals = nil // newest stays
	for {
		behind := l.takeBehind(b)
		if len(behind) == 0 {
			return
		}
		for _, p := range behind {
			p.done(nil, l.g.notLeader())
		}
	}
}

// takeBehind takes those to be failed after a batch; once there are none, what
// comes is taken again.
func (l *lanes) takeBehind(b *batch) []proposal {
	l.mu.Lock()
	defer l.mu.Unlock()
	behind := b.behind
	b.behind = nil
	if len(behind) == 0 && l.failing == b {
		l.failing = nil
	}
	return behind
}

// refusedFuture is the answer for entries that Raft was never given.
type refusedFuture struct{ err error }

func (f refusedFuture) Error() error  { return f.err }
func (f refusedFuture) Response() any { return nil }
func (f refusedFuture) Index() uint64 { return 0 }

// transferring ends a transfer of leadership that hangs: as long as one is
// under way Raft refuses everything.
func (l *lanes) transferring() {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch now := time.Now(); {
	case l.refused.IsZero():
		l.refused = now
	case now.Sub(l.refused) > transferTimeout:
		l.refused = time.Time{}
		l.g.start(func() { l.g.restart("a transfer of leadership hangs") })
	}
}
