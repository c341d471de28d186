package consensus

import (
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/starling-im/starling/wire"
)

// The epoch of a group is when it was last recovered with loss, 0 = never. Each
// message of a group carries its sender's. Replicas of two epochs have two
// histories, so they never come to speak of the log: the one with the higher
// epoch refuses, and tells; the other one is out, for good and on its disk too.

const (
	epochVersion = 1
	epochBytes   = 1 + 8
	// epochKey is a replica's record of the epoch that its data is of.
	epochKey = "epoch"
	// inquireFor bounds the time in which a replica that starts asks the others
	// for their epoch before it votes, and inquireEvery is how often it asks.
	inquireFor   = 2 * time.Second
	inquireEvery = 100 * time.Millisecond
)

var errOutlived = errors.New("consensus: replica is of an earlier epoch than its group")

// epochs are the highest epochs heard of, by group; they are in the store too,
// and stay there when a replica is dropped.
type epochs struct {
	s *store

	writing sync.Mutex // held while one is compared and written
	mu      sync.Mutex
	known   map[uint32]uint64
}

func openEpochs(s *store) (*epochs, error) {
	e := &epochs{s: s, known: map[uint32]uint64{}}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{tableEpoch}, UpperBound: []byte{tableEpoch + 1}})
	if err != nil {
		return nil, s.fail(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		epoch, err := decodeEpoch(it.Value())
		if err != nil {
			return nil, errors.Join(err, it.Close())
		}
		e.known[binary.BigEndian.Uint32(it.Key()[1:])] = epoch
	}
	if err := it.Close(); err != nil {
		return nil, s.fail(err)
	}
	return e, nil
}

func encodeEpoch(epoch uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{epochVersion}, epoch)
}

func decodeEpoch(b []byte) (uint64, error) {
	if err := checkVersion("epoch of a group", b, epochVersion); err != nil {
		return 0, err
	}
	if len(b) != epochBytes {
		return 0, errors.New("epoch of a group is malformed")
	}
	return binary.BigEndian.Uint64(b[1:]), nil
}

func (e *epochs) of(group uint32) uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.known[group]
}

// raise notes an epoch durably, unless a higher one is known.
func (e *epochs) raise(group uint32, epoch uint64) error {
	e.writing.Lock()
	defer e.writing.Unlock()
	if epoch <= e.of(group) {
		return nil
	}
	if err := e.s.set(key(tableEpoch, group, ""), encodeEpoch(epoch)); err != nil {
		return err
	}
	e.set(group, epoch)
	return nil
}

func (e *epochs) set(group uint32, epoch uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.known[group] = max(e.known[group], epoch)
}

// epochOf returns the epoch of a group's data on this node.
func (s *store) epochOf(group uint32) (uint64, error) {
	value, ok, err := s.get(key(tableMeta, group, epochKey))
	if err != nil || !ok {
		return 0, err
	}
	return decodeEpoch(value)
}

// begins gives a replica its epoch: that of its data, or, where it has none yet,
// the one that the group is in. outlived says that the data is of an earlier one.
func (g *group) begins() (outlived bool, err error) {
	have, err := g.h.s.epochOf(g.cfg.ID)
	if err != nil {
		return false, err
	}
	g.epoch = have
	known := g.h.epochs.of(g.cfg.ID)
	if have >= known {
		return false, nil
	}
	last, err := g.logs.LastIndex()
	if err != nil {
		return false, err
	}
	if _, resumes, err := g.h.s.get(key(tableMeta, g.cfg.ID, restoringKey)); err != nil || resumes || last > 0 || g.snaps.meta.ID != "" {
		return true, err
	}
	g.epoch = known
	return false, g.h.s.set(key(tableMeta, g.cfg.ID, epochKey), encodeEpoch(known))
}

// outlive says that a group was recovered in an epoch: a replica on this node
// that is of an earlier one takes part no more. What it has stays on the disk
// until the group wants a replica here again.
func (h *Host) outlive(id uint32, epoch uint64) {
	if epoch <= h.epochs.of(id) || h.epochs.raise(id, epoch) != nil {
		return
	}
	if g := h.group(id); g != nil && g.epoch < epoch {
		h.start(func() { h.retire(id) })
	}
}

// Has reports whether this node takes part in a group.
func (h *Host) Has(id uint32) bool { return h.group(id) != nil }

// Outlived reports whether a group was recovered without the replica that this
// node has or could have; it gets another one when a leader wants that.
func (h *Host) Outlived(id uint32) bool {
	known := h.epochs.of(id)
	if known == 0 {
		return false
	}
	if g := h.group(id); g != nil {
		return g.epoch < known
	}
	have, err := h.s.epochOf(id)
	return err == nil && have < known
}

// retire ends a replica of an earlier epoch.
func (h *Host) retire(id uint32) {
	h.starting.Lock()
	defer h.starting.Unlock()
	g := h.group(id)
	if g == nil || !g.outlived() || h.down() != nil {
		return
	}
	h.cfg.Log.Warn("a replica takes part no more: its group was recovered without it", "group", id, "epoch", g.epoch, "now", h.epochs.of(id))
	h.remove(g)
}

// remove ends what runs for a group; h.starting is held.
func (h *Host) remove(g *group) {
	h.mu.Lock()
	delete(h.groups, g.cfg.ID)
	h.mu.Unlock()
	g.close()
	if h.cfg.Left != nil {
		h.cfg.Left(g.cfg.ID)
	}
}

// outlived reports whether the group was recovered without this replica.
func (g *group) outlived() bool { return g.epoch < g.h.epochs.of(g.cfg.ID) }

// agree compares the epoch of a message with this node's. Only where it reports
// true the message may be looked at.
func (h *Host) agree(id uint32, epoch uint64) bool {
	if epoch > h.epochs.of(id) {
		h.outlive(id, epoch)
	}
	known, g := h.epochs.of(id), h.group(id)
	return epoch == known && (g == nil || g.epoch == known)
}

// disagree answers a message of another epoch, so that its sender learns of a
// higher one.
func (h *Host) disagree(p *peer, m *wire.RaftMessage) {
	if isAnswer(m) {
		p.answered(m.Id, nil, errOutlived)
		return
	}
	a := answer(m.Group, m.Id, nil, errOutlived)
	a.Epoch = h.epochs.of(m.Group)
	_ = p.send(a, false) // also where no answer is waited for
}

// inquire asks the other voters of a replica that starts for their epoch. Until
// all have answered, or for a while, it gives no vote: two of three that come
// back after the third went on without them must hear of that first.
func (g *group) inquire() {
	defer g.inquired.Store(true)
	var mu sync.Mutex
	answered := map[string]bool{}
	tick := time.NewTicker(inquireEvery)
	defer tick.Stop()
	for begun := time.Now(); time.Since(begun) < inquireFor; {
		mu.Lock()
		silent := slices.DeleteFunc(g.voters(), func(node string) bool { return node == g.h.cfg.Node || answered[node] })
		mu.Unlock()
		if len(silent) == 0 {
			return
		}
		for _, node := range silent {
			// Of term 0: it is always refused, and changes nothing.
			m := preVote(g.cfg.ID, g.epoch, 0, 0, 0)
			g.h.peer(node).ask(m, false, func(_ *wire.RaftMessage, err error) {
				if said := (*peerError)(nil); err == nil || errors.As(err, &said) {
					mu.Lock()
					answered[node] = true
					mu.Unlock()
				}
			})
		}
		select {
		case <-tick.C:
		case <-g.ctx.Done():
			return
		}
	}
}
