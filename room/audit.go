package room

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// Check audits a room against all that the store holds of it: events dense up
// to the head, exactly one receipt for each event, the count of members. It
// reads the room's whole history. A room that does not exist must have nothing.
func Check(r Reader, id ID) error {
	s, _ := Load(r, id)
	if err := s.Check(); err != nil {
		return fmt.Errorf("%v: %w", id, err)
	}
	if group, ok := Moved(r, id); ok && s.Access != 0 {
		return fmt.Errorf("%v: is here, and should be in group %d", id, group)
	}
	if err := checkEvents(r, id, s.Head); err != nil {
		return fmt.Errorf("%v: %w", id, err)
	}
	if err := checkReceipts(r, id, s); err != nil {
		return fmt.Errorf("%v: %w", id, err)
	}
	members := uint32(0)
	prefix := appendKey(nil, tableMember, id)
	r.Scan(prefix, prefixEnd(prefix), func(_, _ []byte) bool { members++; return true })
	if members != s.Members {
		return fmt.Errorf("%v: %d members stored, %d counted", id, members, s.Members)
	}
	return nil
}

func checkEvents(r Reader, id ID, head uint64) (err error) {
	prefix := appendKey(nil, tableEvent, id)
	last := uint64(0)
	r.Scan(prefix, prefixEnd(prefix), func(key, value []byte) bool {
		if len(key) != len(prefix)+8 {
			err = fmt.Errorf("event after seq %d has a key of %d bytes", last, len(key))
			return false
		}
		seq := binary.BigEndian.Uint64(key[len(prefix):])
		if seq != last+1 {
			err = fmt.Errorf("event %d follows %d", seq, last)
			return false
		}
		if r := checkFormat("event", value, eventVersion, 0); r != nil {
			err = r
			return false
		}
		last = seq
		return true
	})
	if err == nil && last != head {
		err = fmt.Errorf("last event is %d, head is %d", last, head)
	}
	return err
}

func checkReceipts(r Reader, id ID, s State) (err error) {
	prefix := appendKey(nil, tableReceipt, id)
	// checkEvents has counted to the head, so that this is as large as the room.
	seen := make([]bool, s.Head)
	count := uint64(0)
	r.Scan(prefix, prefixEnd(prefix), func(_, value []byte) bool {
		var receipt Receipt
		if receipt, err = decodeReceipt(value); err != nil {
			return false
		}
		switch seq := receipt.Seq; {
		case seq == 0 || seq > s.Head:
			err = fmt.Errorf("receipt for event %d, head is %d", seq, s.Head)
		case seen[seq-1]:
			err = fmt.Errorf("two receipts for event %d", seq)
		case receipt.MsgID.TS() > s.TS:
			err = fmt.Errorf("receipt for event %d is later than the room", seq)
		default:
			seen[seq-1] = true
			count++
		}
		return err == nil
	})
	if err == nil && count != s.Head {
		err = fmt.Errorf("%d receipts for %d events", count, s.Head)
	}
	return err
}

// Hash returns a hash of all rooms of a group. Replicas that applied the same
// commands have the same hash; it reads one small value per room.
func Hash(r Reader) [32]byte {
	h := sha256.New()
	var length []byte
	for _, table := range []byte{tableRenewed, tableMoved, tablePlacement, tableState} {
		r.Scan([]byte{table}, []byte{table + 1}, func(key, value []byte) bool {
			length = binary.AppendUvarint(length[:0], uint64(len(key)))
			h.Write(length)
			h.Write(key)
			h.Write(value)
			return true
		})
	}
	return [32]byte(h.Sum(nil))
}
