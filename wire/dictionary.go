package wire

import (
	_ "embed"
	"encoding/binary"
	"slices"
)

// A Dictionary is the id of a zstd dictionary. The zero Dictionary is none.
type Dictionary uint32

// dictionaries are those that this release can read and write, the best one last.
// One stays here for as long as a release that writes with it may be a peer, and is
// never changed: the id in a frame is all that tells its reader which one to use.
// wire/dictionaries/README.md says what they were made of.
var dictionaries = [][]byte{chat32769}

//go:embed dictionaries/32769
var chat32769 []byte

// idOf returns the id in a dictionary's header (RFC 8878, section 5).
func idOf(dictionary []byte) Dictionary {
	return Dictionary(binary.LittleEndian.Uint32(dictionary[4:]))
}

// Dictionaries returns the ids of the dictionaries that this side can read, for a
// peer to know; the best one last.
func Dictionaries() []uint32 {
	ids := make([]uint32, len(dictionaries))
	for i, d := range dictionaries {
		ids[i] = uint32(idOf(d))
	}
	return ids
}

// Shared returns the best dictionary that this side and a peer know, given what the
// peer has said of itself.
func Shared(theirs []uint32) Dictionary {
	for _, id := range slices.Backward(Dictionaries()) {
		if slices.Contains(theirs, id) {
			return Dictionary(id)
		}
	}
	return 0
}
