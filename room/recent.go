package room

import (
	"cmp"
	"slices"
	"strings"
)

const (
	// recentKeys bounds the keys that recent holds of one room. It is about as
	// many as a room gets while clocks differ and sends overtake each other.
	recentKeys = 64
	// recentAll bounds the keys of all rooms of a Machine, of some 80 bytes
	// each; beyond, a room gets no more of them than it has.
	recentAll = 8192
)

// recent knows the highest receipts of a room: all those after floor. Most ids
// begin with a time, so that a new one is after floor, and whether it was
// there before is known without a look into the store, which has to be
// thorough to say no. Ids that sort otherwise cost that look and nothing else.
//
// A key is that of the receipts' table without the room.
type recent struct {
	floor string   // all of the room's keys after it are in keys
	keys  []string // sorted
}

// new reports that there is no such key, for certain. It keeps nothing of it.
func (r *recent) new(key []byte) bool {
	if string(key) <= r.floor { // the compiler copies nothing here
		return false
	}
	_, found := slices.BinarySearchFunc(r.keys, key, func(a string, b []byte) int { return cmp.Compare(a, string(b)) })
	return !found
}

// add takes a key that is written to the store now. Without more space the
// lowest key, which may be this one, becomes the floor. It returns by how many
// keys recent has grown.
func (r *recent) add(key string, more bool) int {
	i, found := slices.BinarySearch(r.keys, key)
	switch {
	case key <= r.floor || found:
		return 0
	case more && len(r.keys) < recentKeys:
		r.keys = slices.Insert(r.keys, i, key)
		return 1
	case i == 0:
		r.floor = key
		return 0
	}
	r.floor = r.keys[0]
	copy(r.keys, r.keys[1:i])
	r.keys[i-1] = key
	return 0
}

// recentKey is the part of a receipt's key that tells it from others of its room.
func recentKey(user, clientMsgID string) string {
	var b strings.Builder
	b.Grow(len(clientMsgID) + 1 + len(user))
	b.WriteString(clientMsgID)
	b.WriteByte(0)
	b.WriteString(user)
	return b.String()
}

// lastReceipt returns the highest key of a room's receipts, "" if it has none.
func lastReceipt(r Reader, id ID) string {
	prefix := appendKey(nil, tableReceipt, id)
	key, ok := r.Last(prefix, prefixEnd(prefix))
	if !ok {
		return ""
	}
	return string(key[len(prefix):])
}
