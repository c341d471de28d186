package mesh

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/starling-im/starling/identity"
)

// packet is one of QUIC's or of gossip's on its way through tunnels.
type packet struct {
	hops     byte // how many more nodes may pass it on
	to, from string
	data     []byte
}

// errBadPacket ends what carries packets.
var errBadPacket = errors.New("mesh: malformed packet in a tunnel")

// append appends the encoding of p: the length of what follows in two bytes, the hops,
// both ids with their lengths in one byte each, and the packet itself.
func (p packet) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(3+len(p.to)+len(p.from)+len(p.data)))
	b = append(b, p.hops, byte(len(p.to)))
	b = append(append(b, p.to...), byte(len(p.from)))
	return append(append(b, p.from...), p.data...)
}

// readPacket reads one packet.
func readPacket(r io.Reader) (packet, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return packet{}, err
	}
	n := int(binary.BigEndian.Uint16(length[:]))
	if n < 3 || n > packetMax {
		return packet{}, errBadPacket
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return packet{}, err
	}
	p := packet{hops: min(b[0], tunnelHops)}
	var ok, also bool
	p.to, b, ok = cutString(b[1:])
	p.from, p.data, also = cutString(b)
	if !ok || !also || identity.CheckName("node", p.to) != nil || identity.CheckName("node", p.from) != nil {
		return packet{}, errBadPacket
	}
	return p, nil
}
