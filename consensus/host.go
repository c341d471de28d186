package consensus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/starling-im/starling/wire"
)

// Host is one node's share of all groups. Open makes one.
type Host struct {
	cfg    Config
	s      *store
	lives  *lives
	epochs *epochs
	ctx    context.Context // ends when the Host closes or its store breaks
	cancel context.CancelFunc

	sending, receiving chan struct{} // a slot for each snapshot in flight

	starting slowLock // held by Start, Drop and Recover; Close waits for it
	joins    joins

	mu      sync.Mutex
	groups  map[uint32]*group
	peers   map[string]*peer
	streams map[Stream]struct{} // served
	closing bool                // no new proposals
	closed  bool                // no new goroutines
	running sync.WaitGroup
	lanes   sync.WaitGroup // those of running that carry commands
}

// slowLock is a lock that is held while timers run: who waits for it waits as on
// a channel, so that virtual time goes on.
type slowLock chan struct{}

func (l slowLock) Lock()   { l <- struct{}{} }
func (l slowLock) Unlock() { <-l }

// Open opens the folder. Its errors include ErrLocked and a *wire.Error with
// wire.CodeNewerFormat.
func Open(cfg Config) (*Host, error) {
	if cfg.Node == "" || cfg.Dir == "" || cfg.Machine == nil || cfg.Dial == nil {
		return nil, errors.New("consensus: Config needs Node, Dir, Machine and Dial")
	}
	h := &Host{
		cfg:       cfg.withDefaults(),
		starting:  make(slowLock, 1),
		sending:   make(chan struct{}, snapshotsInFlight),
		receiving: make(chan struct{}, snapshotsInFlight),
		groups:    map[uint32]*group{}, peers: map[string]*peer{}, streams: map[Stream]struct{}{},
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	s, err := openStore(h.cfg, func(err error) {
		h.cancel() // nothing leaves this node any more
		h.cfg.Log.Error("storage failed", "error", err)
		h.cfg.Fatal(err)
	})
	if err != nil {
		h.cancel()
		return nil, err
	}
	h.s = s
	if h.lives, err = openLives(s); err != nil {
		h.cancel()
		return nil, errors.Join(err, s.close())
	}
	h.epochs, err = openEpochs(s)
	if err == nil {
		err = s.resumeDrops()
	}
	if err == nil {
		err = clearSnapshots(s, h.cfg.FS, h.snapshotDir())
	}
	if err != nil {
		h.cancel()
		return nil, errors.Join(fmt.Errorf("consensus: data folder %s: %w", h.cfg.Dir, err), s.close())
	}
	h.start(h.tend)
	h.start(h.renew)
	h.start(h.watchDisk)
	h.start(h.watchLeaders)
	return h, nil
}

func (h *Host) snapshotDir() string { return h.cfg.FS.PathJoin(h.cfg.Dir, "snapshots") }

// Start takes part in a group, with the state on disk if there is any. For a
// group that runs already it does nothing, so that a caller may start all
// groups again whenever it hears of new ones.
//
// A replica that was outlived (see Outlived) is not started either: it is made
// anew once a leader of the group sends entries to it.
func (h *Host) Start(cfg Group) error { return h.startGroup(cfg, false) }

func (h *Host) startGroup(cfg Group, anew bool) error {
	h.starting.Lock()
	defer h.starting.Unlock()
	if err := h.down(); err != nil {
		return err
	}
	if h.group(cfg.ID) != nil {
		return nil
	}
	g, err := h.open(cfg)
	if errors.Is(err, errOutlived) && anew {
		h.cfg.Log.Warn("a replica is made anew: its group was recovered without it, and what it had is removed", "group", cfg.ID)
		if err = h.s.drop(cfg.ID); err == nil {
			g, err = h.open(cfg)
		}
	} else if errors.Is(err, errOutlived) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("consensus: group %d: %w", cfg.ID, err)
	}
	h.begin(g)
	return nil
}

// begin lets a group that was opened take part.
func (h *Host) begin(g *group) {
	h.mu.Lock()
	h.groups[g.cfg.ID] = g
	h.mu.Unlock()
	g.greet()
	if !g.inquired.Load() {
		g.start(g.inquire)
	}
	if g.doubt() != sure {
		g.start(g.settle)
	}
	if g.cfg.Preferred {
		g.start(g.campaign)
	}
}

func (h *Host) group(id uint32) *group {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.groups[id]
}

func (h *Host) all() []*group {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.SortedFunc(maps.Values(h.groups), func(a, b *group) int { return int(a.cfg.ID) - int(b.cfg.ID) })
}

func (h *Host) peer(node string) *peer {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.peers[node]
	if p == nil {
		p = newPeer(h, node)
		h.peers[node] = p
	}
	return p
}

// known returns the peers of whom there was ever anything to say.
func (h *Host) known() []*peer {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Collect(maps.Values(h.peers))
}

// start runs fn on a goroutine that Close waits for, unless the Host is closed.
func (h *Host) start(fn func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.running.Go(fn)
	return true
}

// down returns why the Host does nothing any more, nil while it works.
func (h *Host) down() error {
	if err := h.s.err(); err != nil {
		return err
	}
	if h.ctx.Err() != nil {
		return errClosed
	}
	return nil
}

// slot waits for a place among the snapshots in flight.
func (h *Host) slot(slots chan struct{}) (release func(), err error) {
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, nil
	case <-h.ctx.Done():
		return nil, errClosed
	}
}

// serving notes a stream that Close must end.
func (h *Host) serving(s Stream) (release func(), err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errClosed
	}
	h.streams[s] = struct{}{}
	h.running.Add(1)
	return func() {
		h.mu.Lock()
		delete(h.streams, s)
		h.mu.Unlock()
		h.running.Done()
	}, nil
}

// Leader returns the node that leads a group as far as this node knows, or "".
func (h *Host) Leader(id uint32) string {
	if g := h.group(id); g != nil && !h.s.stall.stalled() {
		return g.leader()
	}
	return ""
}

// Read calls fn with a consistent view of a group's data on this node, which
// may be behind the leader's. The Reader must not be used after fn returns, and
// fn must not call Read. The errors are *wire.Error: not_leader if the group is
// not on this node, unavailable (also where the disk has lost something and the
// replica has not caught up), and shutting_down once the Host closes.
func (h *Host) Read(id uint32, fn func(Reader)) error {
	g := h.group(id)
	if g == nil {
		return noGroup(id)
	}
	if d := g.doubt(); d == behind || d == unknown {
		return wire.Errorf(wire.CodeUnavailable, "group %d must catch up first: %s", id, d)
	}
	err := g.fsm.read(fn)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errClosed):
		return wire.Errorf(wire.CodeShuttingDown, "the node is going away")
	}
	return wire.Errorf(wire.CodeUnavailable, "%v", err)
}

func noGroup(id uint32) *wire.Error {
	return wire.Errorf(wire.CodeNotLeader, "group %d is not on this node", id)
}

// Status returns what is known of each group, by id.
func (h *Host) Status() []Status {
	var all []Status
	for _, g := range h.all() {
		all = append(all, g.status())
	}
	return all
}

// Copies returns how many commands were sent to each peer in AppendEntries,
// repeats included.
func (h *Host) Copies() map[string]uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := map[string]uint64{}
	for node, p := range h.peers {
		m[node] = p.copies.Load()
	}
	return m
}

// Close ends everything in less than a second; commands under way get a moment
// to be answered. It must be called once.
func (h *Host) Close() error {
	h.mu.Lock()
	h.closing = true
	h.mu.Unlock()
	h.drain()
	h.mu.Lock()
	h.closed = true
	streams := slices.Collect(maps.Keys(h.streams))
	peers := slices.Collect(maps.Values(h.peers))
	h.mu.Unlock()
	h.cancel()
	h.starting.Lock() // a group that starts now is among all, and none starts later
	all := h.all()
	h.starting.Unlock()
	var stopping []func()
	for _, g := range all {
		stopping = append(stopping, g.instance().stop())
	}
	for _, p := range peers {
		p.close()
	}
	for _, s := range streams {
		_ = s.Close()
	}
	for _, wait := range stopping {
		wait()
	}
	h.running.Wait()
	for _, g := range h.all() {
		g.fsm.close()
	}
	return h.s.close()
}

// drain waits until no command is under way, but not for long.
func (h *Host) drain() {
	idle := make(chan struct{})
	go func() {
		h.lanes.Wait()
		close(idle)
	}()
	timer := time.NewTimer(drainTimeout)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
	case <-h.ctx.Done():
	}
}
