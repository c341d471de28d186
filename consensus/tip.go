package consensus

import (
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// writesKey is a group's record of how many durable writes it had. It is part
// of each of them, and tells whether the store still holds the last one.
const (
	writesVersion = 1
	writesKey     = "writes"
)

// sync writes b durably, with the group's tip, which move brings up to date.
// The store's log and the tip are synced at the same time, and sync returns
// when both are: what follows from b may then leave the node.
func (s *store) sync(b *pebble.Batch, group uint32, move func(*tip)) error {
	if s.guard == nil {
		return s.commit(b, s.write)
	}
	defer s.stall.begin()()
	return s.try(func() error {
		t := s.guard.tip(group)
		n, err := s.claim(b, t, group, move)
		if err != nil {
			return err
		}
		if err := b.SyncWait(); err != nil {
			return err
		}
		if err := b.Close(); err != nil || s.err() != nil {
			return err
		}
		s.guard.durable(t, n)
		return nil
	})
}

// claim gives b its number and its place in the log. The guard has the number
// before that, so that whoever syncs the log next syncs it too.
func (s *store) claim(b *pebble.Batch, t *tip, group uint32, move func(*tip)) (uint64, error) {
	t.order.Lock()
	defer t.order.Unlock()
	s.guard.mu.Lock()
	n, target := t.writes+1, t.entry
	t.writes = n
	move(t)
	if t.doubt != sure && t.entry.less(target) {
		t.entry = target // to be reached before the doubt ends
	}
	s.guard.claimed = true
	s.guard.mu.Unlock()
	if err := b.Set(key(tableMeta, group, writesKey), encodeWrites(n), nil); err != nil {
		return 0, err
	}
	return n, s.db.ApplyNoSyncWait(b, s.write)
}

func encodeWrites(n uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{writesVersion}, n)
}

// writes returns the number of the last durable write that the store holds of
// a group, 0 if there is none.
func (s *store) writes(group uint32) (uint64, error) {
	value, ok, err := s.get(key(tableMeta, group, writesKey))
	if err != nil || !ok {
		return 0, err
	}
	if err := checkVersion("number of writes", value, writesVersion); err != nil {
		return 0, err
	}
	if len(value) != 9 {
		return 0, fmt.Errorf("number of writes of %d bytes", len(value))
	}
	return binary.BigEndian.Uint64(value[1:]), nil
}

// examine compares what the store holds of a group with its tip, once at the
// start of the group, and writes down a doubt before anything else happens.
// empty says that there is neither log nor snapshot; last is the newest entry.
func (s *store) examine(group uint32, empty bool, last logID) (doubt, error) {
	if s.guard == nil {
		return sure, nil
	}
	n, err := s.writes(group)
	if err != nil {
		return sure, err
	}
	g := s.guard
	g.mu.Lock()
	known := g.tips[group] != nil
	g.mu.Unlock()
	t := g.tip(group)
	d := sure
	g.change(func() {
		switch {
		case !known && empty:
			t.doubt = fresh
		case !known:
			t.writes, t.synced, t.entry = n, n, last
			if g.lost > 0 {
				t.doubt = unknown
			}
		case n < t.synced && t.doubt != fresh && t.doubt != unknown:
			t.doubt = behind
		case n < t.writes && t.doubt == sure:
			t.doubt = unsure
		}
		d = t.doubt
	})
	return d, s.err()
}
