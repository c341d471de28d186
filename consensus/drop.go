package consensus

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/starling-im/starling/wire"
)

// droppedKey marks a group whose data is gone while its tip may not be yet.
const (
	droppedVersion = 1
	droppedKey     = "dropped"
)

// groupTables are those whose keys begin with a group.
var groupTables = []byte{tableLog, tableStable, tableMeta, tableData}

// Held returns the groups of which there is anything on this node's disk, in
// order: those to be started again after a restart.
func (h *Host) Held() ([]uint32, error) {
	found := map[uint32]bool{}
	for _, table := range []byte{tableStable, tableMeta, tableLog} {
		for next := uint64(0); next < 1<<32; {
			group, ok, err := h.s.firstGroup(table, uint32(next))
			if err != nil {
				return nil, err
			}
			if !ok {
				break
			}
			found[group] = true
			next = uint64(group) + 1
		}
	}
	all := make([]uint32, 0, len(found))
	for g := range found {
		all = append(all, g)
	}
	slices.Sort(all)
	return all, nil
}

// firstGroup returns the first group with keys in a table, from a group on.
func (s *store) firstGroup(table byte, from uint32) (group uint32, ok bool, err error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: key(table, from, ""), UpperBound: []byte{table + 1}})
	if err != nil {
		return 0, false, s.fail(err)
	}
	if ok = it.First(); ok {
		group = binary.BigEndian.Uint32(it.Key()[1:])
	}
	if err := it.Close(); err != nil {
		return 0, false, s.fail(err)
	}
	return group, ok, nil
}

// Drop ends this node's replica of a group and removes all of its data, durably
// when it returns. Whoever is added again begins anew. The errors are
// *wire.Error: conflict while the group counts on the replica (see
// Status.Removed), and unavailable. A replica that was not started is dropped
// as told.
func (h *Host) Drop(id uint32) error {
	h.starting.Lock() // nobody starts it meanwhile
	defer h.starting.Unlock()
	if err := h.down(); err != nil {
		return wire.Errorf(wire.CodeUnavailable, "%v", err)
	}
	if g := h.group(id); g != nil {
		if _, in := find(g.replicas(g.instance()), h.cfg.Node); in && !g.removed() {
			return later("group %d counts on its replica on this node", id)
		}
		h.remove(g)
	}
	if err := h.s.drop(id); err != nil {
		return wire.Errorf(wire.CodeUnavailable, "%v", err)
	}
	h.cfg.Log.Info("replica is dropped", "group", id)
	return nil
}

// close ends what runs for a group.
func (g *group) close() {
	g.cancel()
	g.restarting.Lock() // whoever restarts it now sees that it is over
	wait := g.instance().stop()
	g.restarting.Unlock()
	wait()
	g.running.Wait()
	g.fsm.close()
}

// drop removes a group. All of its keys go at once; then its tip, which is
// outside of the store. A tip without data would be taken for a loss.
func (s *store) drop(group uint32) error {
	b := s.db.NewBatch()
	for _, table := range groupTables {
		if err := b.DeleteRange(key(table, group, ""), tableEnd(table, group), nil); err != nil {
			return s.fail(err)
		}
	}
	_ = b.Set(key(tableMeta, group, droppedKey), []byte{droppedVersion}, nil)
	if err := s.commit(b, s.write); err != nil {
		return err
	}
	return s.forget(group)
}

// forget removes the tip of a group that was dropped, and the mark.
func (s *store) forget(group uint32) error {
	if s.guard != nil {
		s.guard.change(func() { delete(s.guard.tips, group) })
		if err := s.err(); err != nil {
			return err
		}
	}
	b := s.db.NewBatch()
	_ = b.Delete(key(tableMeta, group, droppedKey), nil)
	return s.commit(b, pebble.NoSync)
}

// resumeDrops finishes what a crash has interrupted.
func (s *store) resumeDrops() error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{tableMeta}, UpperBound: []byte{tableMeta + 1}})
	if err != nil {
		return s.fail(err)
	}
	var groups []uint32
	for ok := it.First(); ok; ok = it.Next() {
		if string(it.Key()[5:]) == droppedKey {
			if err := checkVersion("mark of a dropped group", it.Value(), droppedVersion); err != nil {
				_ = it.Close()
				return err
			}
			groups = append(groups, binary.BigEndian.Uint32(it.Key()[1:]))
		}
	}
	if err := it.Close(); err != nil {
		return s.fail(err)
	}
	for _, g := range groups {
		if err := s.forget(g); err != nil {
			return fmt.Errorf("group %d was half dropped: %w", g, err)
		}
	}
	return nil
}
