package consensus

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"
)

// stableStore keeps the term and the vote of one group.
//
// Raft writes the term of a vote and the candidate one after the other. A
// crash in between would leave the new term with the old candidate, and the
// node could vote twice in it. So the term is held back until the candidate
// comes, and both are written in one synced batch.
type stableStore struct {
	s     *store
	group uint32

	mu       sync.Mutex
	voteTerm uint64 // held back
}

var _ raft.StableStore = (*stableStore)(nil)

const (
	stableVersion  = 1
	currentTermKey = "CurrentTerm"
	voteTermKey    = "LastVoteTerm"
	voteCandKey    = "LastVoteCand"
)

func (t *stableStore) Set(k, value []byte) error {
	if string(k) != voteCandKey {
		return t.quiet(t.s.set(key(tableStable, t.group, string(k)), append([]byte{stableVersion}, value...)))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.vote(value)
}

// vote writes the term that is held back and the candidate; mu is held.
func (t *stableStore) vote(candidate []byte) error {
	b := t.s.db.NewBatch()
	_ = b.Set(key(tableStable, t.group, voteTermKey), stableUint64(t.voteTerm), nil)
	_ = b.Set(key(tableStable, t.group, voteCandKey), append([]byte{stableVersion}, candidate...), nil)
	return t.s.sync(b, t.group, t.reached(t.voteTerm))
}

func (t *stableStore) Get(k []byte) ([]byte, error) {
	value, ok, err := t.s.get(key(tableStable, t.group, string(k)))
	if err != nil || !ok {
		return nil, err
	}
	if err := checkVersion("raft term and vote", value, stableVersion); err != nil {
		return nil, t.s.fail(err)
	}
	return value[1:], nil
}

func (t *stableStore) SetUint64(k []byte, value uint64) error {
	if string(k) == voteTermKey {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.voteTerm = value
		return t.s.err()
	}
	if old, err := t.GetUint64(k); err == nil && old == value && value != 0 {
		return nil // Raft writes the term that it has just read, at each start
	}
	b := t.s.db.NewBatch()
	_ = b.Set(key(tableStable, t.group, string(k)), stableUint64(value), nil)
	return t.quiet(t.s.sync(b, t.group, t.reached(value)))
}

// reached moves the tip to a term.
func (t *stableStore) reached(term uint64) func(*tip) {
	return func(at *tip) { at.term = max(at.term, term) }
}

// spend makes sure that this replica gives no vote in any term up to this one.
// It is called while no Raft runs on the group.
func (t *stableStore) spend(term uint64) error {
	current, err := t.GetUint64([]byte(currentTermKey))
	if err != nil {
		return err
	}
	voted, err := t.GetUint64([]byte(voteTermKey))
	if err != nil {
		return err
	}
	if current < term {
		if err := t.SetUint64([]byte(currentTermKey), term); err != nil {
			return err
		}
	}
	if voted >= term {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.voteTerm = term
	return t.vote(nil) // nobody has this name
}

func (t *stableStore) GetUint64(k []byte) (uint64, error) {
	value, err := t.Get(k)
	if err != nil || value == nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, t.s.fail(fmt.Errorf("raft %s of %d bytes", k, len(value)))
	}
	return binary.BigEndian.Uint64(value), nil
}

// quiet hides an error from Raft, which panics where a term cannot be saved.
// The store is broken then: no message leaves this node any more, and Fatal
// ends the process with the reason instead of a stack trace.
func (t *stableStore) quiet(err error) error {
	if t.s.err() != nil {
		return nil
	}
	return err
}

func stableUint64(v uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{stableVersion}, v)
}
