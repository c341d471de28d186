package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"
)

// openRaftStore opens the store that all groups of a server share, and so
// share its syncs.
func openRaftStore(dir string) (*pebble.DB, error) {
	return pebble.Open(dir, &pebble.Options{
		FormatMajorVersion: pebble.FormatNewest, MemTableSize: 64 << 20, MemTableStopWritesThreshold: 3, Logger: silent{},
	})
}

// silent implements pebble.Logger.
type silent struct{}

// Infof says nothing.
func (silent) Infof(string, ...any) {}

// Errorf says nothing: what fails is returned too.
func (silent) Errorf(string, ...any) {}

// Fatalf ends the server.
func (silent) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// groupStore is the log and the stable store of one group. A key is the group,
// a table, and an index or a name.
type groupStore struct {
	db    *pebble.DB
	group uint32
}

const (
	logTable    = 'l'
	stableTable = 's'
)

func (s *groupStore) key(table byte) []byte {
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 16), s.group), table)
}

func (s *groupStore) logKey(index uint64) []byte {
	return binary.BigEndian.AppendUint64(s.key(logTable), index)
}

// StoreLogs implements raft.LogStore.
func (s *groupStore) StoreLogs(logs []*raft.Log) error {
	b := s.db.NewBatch()
	for _, l := range logs {
		value := make([]byte, 0, 17+len(l.Data))
		value = append(value, byte(l.Type))
		value = binary.BigEndian.AppendUint64(value, l.Term)
		value = binary.BigEndian.AppendUint64(value, uint64(l.AppendedAt.UnixNano()))
		value = append(value, l.Data...)
		if err := b.Set(s.logKey(l.Index), value, nil); err != nil {
			return err
		}
	}
	return errors.Join(b.Commit(pebble.Sync), b.Close())
}

// StoreLog implements raft.LogStore.
func (s *groupStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// GetLog implements raft.LogStore.
func (s *groupStore) GetLog(index uint64, l *raft.Log) error {
	value, closer, err := s.db.Get(s.logKey(index))
	if errors.Is(err, pebble.ErrNotFound) {
		return raft.ErrLogNotFound
	}
	if err != nil {
		return err
	}
	defer closer.Close()
	if len(value) < 17 {
		return fmt.Errorf("entry %d is %d bytes short", index, 17-len(value))
	}
	*l = raft.Log{
		Index: index, Type: raft.LogType(value[0]), Term: binary.BigEndian.Uint64(value[1:]),
		AppendedAt: time.Unix(0, int64(binary.BigEndian.Uint64(value[9:]))), Data: append([]byte(nil), value[17:]...),
	}
	return nil
}

// FirstIndex implements raft.LogStore.
func (s *groupStore) FirstIndex() (uint64, error) { return s.edge((*pebble.Iterator).First) }

// LastIndex implements raft.LogStore.
func (s *groupStore) LastIndex() (uint64, error) { return s.edge((*pebble.Iterator).Last) }

// edge is the index at one end of the log, 0 if it is empty.
func (s *groupStore) edge(seek func(*pebble.Iterator) bool) (index uint64, err error) {
	from := s.key(logTable)
	i, err := s.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: s.key(logTable + 1)})
	if err != nil {
		return 0, err
	}
	if seek(i) {
		index = binary.BigEndian.Uint64(i.Key()[len(from):])
	}
	return index, i.Close()
}

// DeleteRange implements raft.LogStore.
func (s *groupStore) DeleteRange(first, last uint64) error {
	return s.db.DeleteRange(s.logKey(first), s.logKey(last+1), pebble.Sync)
}

func (s *groupStore) stableKey(name []byte) []byte { return append(s.key(stableTable), name...) }

// Set implements raft.StableStore.
func (s *groupStore) Set(name, value []byte) error {
	return s.db.Set(s.stableKey(name), value, pebble.Sync)
}

// errNoValue has the text that package raft takes for an absent value.
var errNoValue = errors.New("not found")

// Get implements raft.StableStore.
func (s *groupStore) Get(name []byte) ([]byte, error) {
	value, closer, err := s.db.Get(s.stableKey(name))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, errNoValue
	}
	if err != nil {
		return nil, err
	}
	return append([]byte(nil), value...), closer.Close()
}

// SetUint64 implements raft.StableStore.
func (s *groupStore) SetUint64(name []byte, value uint64) error {
	return s.Set(name, binary.BigEndian.AppendUint64(nil, value))
}

// GetUint64 implements raft.StableStore.
func (s *groupStore) GetUint64(name []byte) (uint64, error) {
	value, err := s.Get(name)
	if err != nil || len(value) != 8 {
		return 0, err
	}
	return binary.BigEndian.Uint64(value), nil
}
