package consensus

import (
	"cmp"
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// group is this node's replica of one group.
type group struct {
	h      *Host
	cfg    Group
	logs   *logStore
	stable *stableStore
	snaps  *snapshotStore
	fsm    *fsm
	trans  *transport
	inbox  inbox
	lanes  lanes
	reads  reads
	fresh  freshness

	epoch    uint64       // see epochs
	inquired atomic.Bool  // the replica may vote, see inquire
	opened   atomic.Int64 // since when the replica is in doubt, Unix ns
	settles  sync.Mutex   // held by settle
	finders  atomic.Int32 // FindTip being answered
	blank    blank
	place    place
	standing standing
	joined   sync.Mutex // guards running against the end of ctx
	turn     sync.Mutex // held while the configuration changes or the lead is handed over

	ctx     context.Context // ends with the Host, or when the group is dropped
	cancel  context.CancelFunc
	running sync.WaitGroup

	begun      time.Time
	stoodAfter time.Time // the silence after which this node stood; only for watchLeaders

	// Raft is replaced where it hangs; see restart.
	raft       atomic.Pointer[instance]
	restarting sync.Mutex
}

// instance is one life of a group's Raft.
type instance struct {
	*raft.Raft
	stopped chan struct{} // closed when it answers no more
	once    sync.Once
	handing chan struct{} // full while it hands over
}

// stop begins to stop; the function it returns waits for the end.
func (i *instance) stop() (wait func()) {
	select {
	case i.handing <- struct{}{}: // from now on it is not asked to
	case <-time.After(handsOverAfter):
	case <-i.stopped:
	}
	f := i.Shutdown()
	i.once.Do(func() { close(i.stopped) })
	return func() { _ = f.Error() }
}

func (h *Host) open(cfg Group) (*group, error) {
	cfg.Heartbeat = cmp.Or(cfg.Heartbeat, h.cfg.Heartbeat)
	logs, err := openLog(h.s, cfg.ID)
	if err != nil {
		return nil, err
	}
	g := &group{
		h: h, cfg: cfg, logs: logs,
		stable: &stableStore{s: h.s, group: cfg.ID},
		snaps:  &snapshotStore{h: h, s: h.s, group: cfg.ID, logs: logs},
		begun:  time.Now(),
	}
	g.ctx, g.cancel = context.WithCancel(h.ctx)
	g.inbox.g, g.lanes.g, g.reads.g = g, g, g
	g.lanes.begin()
	if err := g.snaps.load(); err != nil {
		return nil, err
	}
	if outlived, err := g.begins(); outlived || err != nil {
		g.cancel()
		return nil, cmp.Or(err, errOutlived)
	}
	g.trans = newTransport(h, cfg, g.epoch)
	if err := g.examine(); err != nil {
		return nil, err
	}
	if err := g.snaps.resume(); err != nil {
		return nil, err
	}
	g.fsm = &fsm{s: h.s, group: cfg.ID, snaps: g.snaps, conf: g.snaps.configuration()}
	if value, ok, err := h.s.get(key(tableMeta, cfg.ID, positionKey)); err != nil {
		return nil, err
	} else if ok {
		if g.fsm.pos, err = decodePosition(value); err != nil {
			return nil, err
		}
	}
	if err := g.bootstrap(); err != nil {
		return nil, err
	}
	if err := g.spendVotes(); err != nil {
		return nil, err
	}
	g.inquired.Store(g.doubt() == fresh) // it must ask for more than that
	g.fsm.m = h.cfg.Machine(cfg.ID)
	return g, g.run()
}

// bootstrap gives a group without state its first configuration. Term and
// entry are one batch: Raft's own way would leave a group that can never elect
// anybody if it was interrupted between them.
func (g *group) bootstrap() error {
	last, err := g.logs.LastIndex()
	if err != nil || last > 0 || g.snaps.meta.ID != "" || g.epoch > 0 {
		return err // in a later epoch the first configuration is history
	}
	var c raft.Configuration
	in := false
	for _, node := range g.cfg.Voters {
		in = in || node == g.h.cfg.Node
		c.Servers = append(c.Servers, raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(node), Address: raft.ServerAddress(node)})
	}
	if !in {
		return nil // it waits until the leader adds it
	}
	first := []*raft.Log{{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(c)}}
	b := g.h.s.db.NewBatch()
	_ = b.Set(key(tableStable, g.cfg.ID, currentTermKey), stableUint64(1), nil)
	g.logs.put(b, first)
	return g.logs.append(b, first)
}

// run starts a Raft on the group's state.
func (g *group) run() error { return g.runOn(g.logs) }

func (g *group) runOn(logs raft.LogStore) error {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(g.h.cfg.Node)
	c.HeartbeatTimeout = raftShare * g.cfg.Heartbeat
	c.ElectionTimeout = raftShare * g.cfg.Heartbeat
	c.LeaderLeaseTimeout = raftShare * g.cfg.Heartbeat * 8 / 10
	if g.doubt() != sure || g.place.isSilent() {
		c.HeartbeatTimeout, c.ElectionTimeout = neverStands, neverStands
	}
	// Followers learn of a commit from hint, so this is only the safety net,
	// and the main cost of an idle group.
	c.CommitTimeout = g.h.cfg.CommitTimeout
	c.MaxAppendEntries = maxAppendEntries
	// Commands are gathered before Raft. Without its own queue a command that
	// could not be handed over is certain not to take effect.
	c.BatchApplyCh = false
	c.ShutdownOnRemove = false
	c.NoSnapshotRestoreOnStart = true // the data is on disk, and newer
	c.TrailingLogs = g.h.cfg.TrailingLogs
	c.SnapshotThreshold = g.h.cfg.SnapshotEvery
	c.SnapshotInterval = g.h.cfg.SnapshotInterval
	c.NoLegacyTelemetry = true
	c.Logger = newRaftLogger(g.h.cfg.Log, g.cfg.ID)
	r, err := raft.NewRaft(c, g.fsm, logs, g.stable, g.snaps, g.trans)
	if err != nil {
		return err
	}
	g.raft.Store(&instance{Raft: r, stopped: make(chan struct{}), handing: make(chan struct{}, 1)})
	return nil
}

func (g *group) instance() *instance { return g.raft.Load() }

// start runs fn on a goroutine for which both the Host and Drop wait, unless
// either has begun.
func (g *group) start(fn func()) bool {
	g.joined.Lock()
	defer g.joined.Unlock()
	if g.ctx.Err() != nil {
		return false
	}
	g.running.Add(1)
	if !g.h.start(func() { defer g.running.Done(); fn() }) {
		g.running.Done()
		return false
	}
	return true
}

// restart replaces a Raft that cannot go on. The state is on disk; to the
// others it is a replica that was gone for a moment.
func (g *group) restart(why string) {
	g.restartWith(why, func() error { return nil })
}

// restartWith is restart with something to be done while no Raft runs; it
// reports whether a new one does.
func (g *group) restartWith(why string, between func() error) bool {
	g.restarting.Lock()
	defer g.restarting.Unlock()
	if g.h.down() != nil {
		return false
	}
	if why != "" {
		if g.ctx.Err() != nil {
			return false
		}
		level := slog.LevelWarn
		if g.instance().LastIndex() == 0 {
			level = slog.LevelInfo // as each new replica is
		}
		g.h.cfg.Log.Log(g.ctx, level, "raft is started again", "group", g.cfg.ID, "reason", why)
	}
	g.instance().stop()()
	if !g.removed() {
		g.place.addedAgain() // if it ever was: the next Raft has heard of nobody, and cannot tell
	}
	if g.h.down() != nil {
		return false
	}
	err := between()
	if err == nil {
		err = g.run()
	}
	if err != nil {
		_ = g.h.s.fail(err)
	}
	if g.h.down() != nil {
		g.instance().stop()() // Close may have seen the old one
		return false
	}
	return true
}

func (g *group) leader() string {
	_, id := g.instance().LeaderWithID()
	if string(id) == g.h.cfg.Node && g.h.s.stall.stalled() {
		return "" // it holds its heartbeats back, so another may lead
	}
	return string(id)
}

func (g *group) voters() []string {
	var v []string
	for _, s := range g.instance().GetConfiguration().Configuration().Servers {
		if s.Suffrage == raft.Voter {
			v = append(v, string(s.ID))
		}
	}
	return v
}

func (g *group) status() Status {
	r := g.instance()
	d, tip := g.doubtful()
	state := strings.ToLower(r.State().String())
	if g.h.s.stall.stalled() {
		state = "stalled"
	}
	last := r.LastIndex()
	newest, _ := g.lastID(last)
	return Status{
		Doubt: d.String(), Tip: tip,
		ID: g.cfg.ID, Leader: g.leader(), State: state, Term: r.CurrentTerm(),
		Applied: g.fsm.position().index, Commit: r.CommitIndex(), LastIndex: last, LastTerm: newest.term, Voters: g.voters(),
		Epoch: g.epoch, Replicas: g.replicas(r), ConfigIndex: g.fsm.configured().index, Removed: g.removed(),
	}
}
