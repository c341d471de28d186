package geo

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
)

// Rank returns choices in an order that depends on key, and in which each
// choice is first for its equal share of keys (rendezvous hashing). A choice
// that is taken away or added leaves the order of the others as it was. The
// order is part of what a mesh has on disk: it never changes.
func Rank(key string, choices []string) []string {
	type scored struct {
		score  uint64
		choice string
	}
	var stack [256]byte
	prefix := binary.AppendUvarint(stack[:0], uint64(len(key)))
	prefix = append(prefix, key...)
	ranked := make([]scored, len(choices))
	for i, c := range choices {
		sum := sha256.Sum256(append(prefix, c...))
		ranked[i] = scored{binary.BigEndian.Uint64(sum[:]), c}
	}
	slices.SortFunc(ranked, func(a, b scored) int {
		switch {
		case a.score > b.score:
			return -1
		case a.score < b.score:
			return 1
		}
		return strings.Compare(a.choice, b.choice)
	})
	order := make([]string, len(ranked))
	for i, r := range ranked {
		order[i] = r.choice
	}
	return order
}
