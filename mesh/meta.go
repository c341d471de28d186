package mesh

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// metaVersion is the version of the encoding of meta. A field can be added at
// the end without raising it: readers ignore what follows what they know.
const metaVersion = 1

// metaAddr bounds the address in a meta, in bytes.
const metaAddr = 255

var errBadMeta = errors.New("mesh: malformed description of a node")

// meta is what a node says of itself in gossip.
type meta struct {
	instance              uint64 // tells processes with one id apart; a later one has a larger number
	region, addr, version string
}

// encode returns at most 512 bytes: New has checked the lengths.
func (m meta) encode() []byte {
	b := binary.BigEndian.AppendUint64([]byte{metaVersion}, m.instance)
	for _, s := range []string{m.region, m.addr, m.version} {
		b = append(append(b, byte(len(s))), s...)
	}
	return b
}

// decodeMeta returns ErrNewerVersion or errBadMeta for what it cannot read.
func decodeMeta(b []byte) (meta, error) {
	if len(b) > 0 && b[0] > metaVersion {
		return meta{}, fmt.Errorf("%w: description of a node, version %d", ErrNewerVersion, b[0])
	}
	if len(b) < 9 || b[0] != metaVersion {
		return meta{}, errBadMeta
	}
	m := meta{instance: binary.BigEndian.Uint64(b[1:])}
	b = b[9:]
	for _, field := range []*string{&m.region, &m.addr, &m.version} {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return meta{}, errBadMeta
		}
		end := 1 + int(b[0])
		*field, b = string(b[1:end]), b[end:]
	}
	if m.instance == 0 {
		return meta{}, errBadMeta
	}
	return m, nil
}
