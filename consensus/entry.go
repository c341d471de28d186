package consensus

import (
	"encoding/binary"
	"fmt"

	"github.com/starling-im/starling/wire"
)

// entry is the data of one Raft entry: all commands that waited together.
//
// Encoding: version, stamp (uvarint), epoch (8 bytes), number (uvarint), count
// (uvarint), then each command with its length (uvarint) before it.
type entry struct {
	stamp int64 // the leader's clock, ms since 1970
	// epoch and number chain the entries of one leader: entry number n > 0 of
	// an epoch is void unless number n-1 of it was the last that took effect.
	// So a command never overtakes one that was refused before it.
	epoch    uint64
	number   uint64
	commands [][]byte
}

const entryVersion = 1

// entryHead bounds the encoding without the commands.
const entryHead = 1 + binary.MaxVarintLen64 + 8 + 2*binary.MaxVarintLen64

func (e entry) encode() []byte {
	n := entryHead
	for _, c := range e.commands {
		n += binary.MaxVarintLen32 + len(c)
	}
	b := append(make([]byte, 0, n), entryVersion)
	b = binary.AppendUvarint(b, uint64(e.stamp))
	b = binary.BigEndian.AppendUint64(b, e.epoch)
	b = binary.AppendUvarint(b, e.number)
	b = binary.AppendUvarint(b, uint64(len(e.commands)))
	for _, c := range e.commands {
		b = binary.AppendUvarint(b, uint64(len(c)))
		b = append(b, c...)
	}
	return b
}

// decodeEntry takes b apart; the commands alias it.
func decodeEntry(b []byte) (entry, error) {
	e, count, rest, err := decodeHead(b)
	if err != nil {
		return entry{}, err
	}
	e.commands = make([][]byte, 0, count)
	for range count {
		n, size := binary.Uvarint(rest)
		if size <= 0 || n > uint64(len(rest)-size) {
			return entry{}, fmt.Errorf("raft entry is cut short")
		}
		e.commands = append(e.commands, rest[size:size+int(n)])
		rest = rest[size+int(n):]
	}
	if len(rest) > 0 {
		return entry{}, fmt.Errorf("raft entry has %d bytes too many", len(rest))
	}
	return e, nil
}

// commandCount returns how many commands an encoded entry holds, 0 if it is none.
func commandCount(b []byte) int {
	_, count, _, err := decodeHead(b)
	if err != nil {
		return 0
	}
	return count
}

func decodeHead(b []byte) (e entry, count int, rest []byte, err error) {
	if err := checkVersion("raft entry", b, entryVersion); err != nil {
		return e, 0, nil, err
	}
	d := decoder{rest: b[1:]}
	e.stamp = int64(d.uvarint())
	e.epoch = d.uint64()
	e.number = d.uvarint()
	n := d.uvarint()
	if d.bad || n > uint64(len(d.rest)) {
		return e, 0, nil, fmt.Errorf("raft entry is malformed")
	}
	return e, int(n), d.rest, nil
}

// newer is the error for a record whose version this release does not know.
func newer(what string, version, known byte) error {
	return wire.Errorf(wire.CodeNewerFormat, "%s of format %d, this release knows %d", what, version, known)
}

// checkVersion looks at the version byte of a stored record.
func checkVersion(what string, record []byte, known byte) error {
	if len(record) == 0 {
		return fmt.Errorf("%s is empty", what)
	}
	if record[0] != known {
		return newer(what, record[0], known)
	}
	return nil
}

// decoder reads the fields of a record; bad tells at the end if any was missing.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.bad = true
		d.rest = nil
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) uint64() uint64 {
	if len(d.rest) < 8 {
		d.bad = true
		d.rest = nil
		return 0
	}
	v := binary.BigEndian.Uint64(d.rest)
	d.rest = d.rest[8:]
	return v
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.rest)) {
		d.bad = true
		d.rest = nil
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}
