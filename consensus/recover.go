package consensus

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/raft"

	"github.com/starling-im/starling/wire"
)

// Recover lets a group go on with what the replica on this node has, as its one
// voter, where a quorum of voters is lost for good or in doubt. Entries that
// this replica lacks are lost, though they may have been acknowledged. The group
// gets a higher epoch, which is returned: no replica of an earlier one has a say
// any more, and what such a node has is removed once it gets a replica again.
// command is of the machine, and the first one of the epoch; of gives it the
// epoch.
//
// Nothing here knows whether the others are lost: that is for the caller to find
// out, and for an operator to decide. The errors are *wire.Error: not_leader if
// the group is not here, bad_request if the replica has nothing or was taken out
// of the group, conflict if it leads with a quorum, unavailable.
func (h *Host) Recover(id uint32, of func(epoch uint64) (command []byte)) (epoch uint64, err error) {
	h.starting.Lock()
	defer h.starting.Unlock()
	g := h.group(id)
	if g == nil {
		return 0, noGroup(id)
	}
	last, err := g.lastID(g.instance().LastIndex())
	switch {
	case err != nil:
		return 0, wire.Errorf(wire.CodeUnavailable, "%v", err)
	case last.index <= 1:
		return 0, wire.Errorf(wire.CodeBadRequest, "the replica of group %d on this node has nothing", id)
	case g.removed():
		return 0, wire.Errorf(wire.CodeBadRequest, "the replica of group %d on this node was taken out of the group", id)
	case g.instance().State() == raft.Leader && g.barrier() == nil:
		return 0, wire.Errorf(wire.CodeConflict, "group %d has a leader and a quorum", id)
	}
	epoch = max(g.epoch+1, uint64(max(0, time.Now().UnixMilli())))
	h.cfg.Log.Warn("a group is recovered by hand, with this replica alone", "group", id, "epoch", epoch, "last", last.index, "doubt", g.doubt().String())
	h.remove(g)
	if err = g.goAlone(epoch, of(epoch)); err == nil {
		g.cfg.Preferred = true // it leads at once
		g, err = h.open(g.cfg)
	}
	if err != nil {
		return 0, wire.Errorf(wire.CodeUnavailable, "%v", h.s.fail(fmt.Errorf("group %d in the middle of a recovery: %w", id, err)))
	}
	h.begin(g)
	return epoch, nil
}

// goAlone writes the beginning of an epoch, in one batch: the term, the
// configuration with this node alone and the first command. A crash leaves all of
// it or nothing. The doubt ends after that: a crash in between leaves one that
// ends by itself, since the log is longer than any tip, or a replica that can be
// recovered again.
func (g *group) goAlone(epoch uint64, command []byte) error {
	last, err := g.lastID(g.lastIndex())
	if err != nil {
		return err
	}
	current, err := g.stable.GetUint64([]byte(currentTermKey))
	if err != nil {
		return err
	}
	term := max(current, last.term, g.tipTerm()) + 1
	alone := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: raft.ServerID(g.h.cfg.Node), Address: raft.ServerAddress(g.h.cfg.Node)}}}
	e := entry{stamp: time.Now().UnixMilli(), epoch: rand.Uint64(), commands: [][]byte{command}}
	var entries []*raft.Log
	// A snapshot brings data that is newer than the log: what the log lacks of it is
	// filled up with entries that say nothing, or the first ones would be skipped as applied.
	for applied := g.fsm.position().index; last.index < applied; last.index++ {
		entries = append(entries, &raft.Log{Index: last.index + 1, Term: term, Type: raft.LogNoop})
	}
	entries = append(entries,
		&raft.Log{Index: last.index + 1, Term: term, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(alone)},
		&raft.Log{Index: last.index + 2, Term: term, Type: raft.LogCommand, Data: e.encode()})
	b := g.h.s.db.NewBatch()
	_ = b.Set(key(tableStable, g.cfg.ID, currentTermKey), stableUint64(term), nil)
	_ = b.Set(key(tableMeta, g.cfg.ID, epochKey), encodeEpoch(epoch), nil)
	_ = b.Set(key(tableEpoch, g.cfg.ID, ""), encodeEpoch(epoch), nil)
	g.logs.put(b, entries)
	if err := g.logs.append(b, entries); err != nil {
		return err
	}
	g.h.epochs.set(g.cfg.ID, epoch)
	if d := g.doubt(); d != sure && !g.setDoubt(d, sure, logID{term, last.index + 2}) {
		return fmt.Errorf("the doubt (%v) does not end", d)
	}
	return nil
}

// lastIndex is the last entry of a log on which no Raft runs.
func (g *group) lastIndex() uint64 {
	last, _ := g.logs.LastIndex()
	g.snaps.mu.Lock()
	defer g.snaps.mu.Unlock()
	return max(last, g.snaps.meta.Index)
}

// tipTerm is the highest term in which this replica may have voted.
func (g *group) tipTerm() uint64 {
	gd := g.h.s.guard
	if gd == nil {
		return 0
	}
	t := gd.tip(g.cfg.ID)
	gd.mu.Lock()
	defer gd.mu.Unlock()
	return t.term
}

// LastStamp returns when the newest command in the data was given its time by
// its leader; false if the log does not say.
func (h *Host) LastStamp(id uint32) (time.Time, bool) {
	g := h.group(id)
	if g == nil {
		return time.Time{}, false
	}
	for i := g.fsm.position().index; i > 0; i-- {
		var l raft.Log
		if g.logs.GetLog(i, &l) != nil || l.Index != i {
			return time.Time{}, false
		}
		if l.Type != raft.LogCommand {
			continue
		}
		if e, err := decodeEntry(l.Data); err == nil {
			return time.UnixMilli(e.stamp), true
		}
	}
	return time.Time{}, false
}
