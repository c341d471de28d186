package room

import (
	"bytes"
	"encoding/binary"
	"math"
	"strings"
)

// Reader reads the store of one group. Keys and values are valid until the
// next call. There are no errors: a host whose disk fails ends.
type Reader interface {
	Get(key []byte) ([]byte, bool)
	// Scan calls fn in key order for from <= key < to, until fn returns false.
	Scan(from, to []byte, fn func(key, value []byte) bool)
	// Last returns the highest key with from <= key < to.
	Last(from, to []byte) ([]byte, bool)
}

// Store is the store of one group while it applies commands. It sees its own
// writes and keeps no reference to the slices that it is given.
type Store interface {
	Reader
	Set(key, value []byte)
	Delete(key []byte)
}

// The tables of a group's store. A key is the table, then app 0x00 room 0x00,
// then what the table adds; names have no control characters, so that keys of
// different rooms never meet and sort by app and room.
const (
	tableCount   = 'c' // nothing else: the number of rooms
	tableEvent   = 'e' // seq, big-endian
	tableMember  = 'm' // user
	tableReceipt = 'r' // client_msg_id 0x00 user
	tableState   = 's' // nothing else
)

// Formats of the values that are not described elsewhere: an event is its
// version and the encoding that Config.Encode makes; a member is the version
// and the seq of the join; the count is the version and the number.
const (
	eventVersion  = 1
	memberVersion = 1
	countVersion  = 1
	numberBytes   = 1 + 8
)

func appendKey(dst []byte, table byte, id ID) []byte {
	dst = append(dst, table)
	dst = append(dst, id.App...)
	dst = append(dst, 0)
	dst = append(dst, id.Room...)
	return append(dst, 0)
}

func appendEventKey(dst []byte, id ID, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(appendKey(dst, tableEvent, id), seq)
}

func appendMemberKey(dst []byte, id ID, user string) []byte {
	return append(appendKey(dst, tableMember, id), user...)
}

// appendReceiptKey has the client_msg_id before the user: ids that begin with
// a time, as most clients' do, then look for their neighbours of a moment ago,
// which the processor still has at hand. With the user first these look-ups
// were a fifth of a node's work.
func appendReceiptKey(dst []byte, id ID, user, clientMsgID string) []byte {
	dst = append(appendKey(dst, tableReceipt, id), clientMsgID...)
	dst = append(dst, 0)
	return append(dst, user...)
}

// prefixEnd returns the first key after all those that begin with prefix,
// which must not end in 0xff.
func prefixEnd(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	end[len(end)-1]++
	return end
}

// must ends the host's process, by a panic, for a store that cannot be read.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func appendNumber(dst []byte, version byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, version), n)
}

func decodeNumber(what string, b []byte, version byte) (uint64, error) {
	if r := checkFormat(what, b, version, numberBytes); r != nil {
		return 0, r
	}
	return binary.BigEndian.Uint64(b[1:]), nil
}

// Load returns a room's state, false if there is no such room.
func Load(r Reader, id ID) (State, bool) {
	v, ok := r.Get(appendKey(nil, tableState, id))
	if !ok {
		return State{}, false
	}
	return must(DecodeState(v)), true
}

// Read returns the encodings of the events after a seq, in order: at most
// limit, and no more than maxBytes bytes in sum, but one event always. The
// slices are the caller's own.
func Read(r Reader, id ID, after uint64, limit, maxBytes int) (events [][]byte) {
	if limit <= 0 || after == math.MaxUint64 {
		return nil
	}
	size := 0
	end := prefixEnd(appendKey(nil, tableEvent, id))
	r.Scan(appendEventKey(nil, id, after+1), end, func(_, value []byte) bool {
		if err := checkFormat("event", value, eventVersion, 0); err != nil {
			panic(err)
		}
		size += len(value) - 1
		if len(events) > 0 && size > maxBytes {
			return false
		}
		events = append(events, bytes.Clone(value[1:]))
		return len(events) < limit
	})
	return events
}

// Info is a room in a listing.
type Info struct {
	ID    ID
	State State
}

// List returns up to limit rooms of an app, in the byte order of their ids,
// that come after the given one; "" is before all.
func List(r Reader, app string, after string, limit int) (rooms []Info) {
	if limit <= 0 {
		return nil
	}
	// A room's key ends in 0x00; 0x01 is after it and before any longer id.
	from := append(append([]byte{tableState}, app...), 0)
	to := prefixEnd(from)
	if after != "" {
		from = append(append(from, after...), 1)
	}
	r.Scan(from, to, func(key, value []byte) bool {
		rooms = append(rooms, Info{ID: stateKeyID(key), State: must(DecodeState(value))})
		return len(rooms) < limit
	})
	return rooms
}

// ListAll is List for all apps, in the order of keys.
func ListAll(r Reader, after ID, limit int) (rooms []Info) {
	if limit <= 0 {
		return nil
	}
	from := []byte{tableState}
	if after != (ID{}) {
		key := appendKey(nil, tableState, after)
		from = append(key[:len(key)-1], 1)
	}
	r.Scan(from, []byte{tableState + 1}, func(key, value []byte) bool {
		rooms = append(rooms, Info{ID: stateKeyID(key), State: must(DecodeState(value))})
		return len(rooms) < limit
	})
	return rooms
}

// stateKeyID returns the room of a key of the state table.
func stateKeyID(key []byte) ID {
	app, rest, _ := strings.Cut(string(key[1:]), "\x00")
	return ID{App: app, Room: strings.TrimSuffix(rest, "\x00")}
}

// CountRooms returns the number of rooms of all apps. It costs one Get.
func CountRooms(r Reader) int {
	v, ok := r.Get([]byte{tableCount})
	if !ok {
		return 0
	}
	return int(must(decodeNumber("count", v, countVersion)))
}
