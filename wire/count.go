package wire

import "encoding/binary"

// Counter counts the frames of one direction of a stream, without keeping any of
// it. The zero value is at the beginning of one.
type Counter struct {
	header [headerLen]byte
	have   int    // bytes of the header
	rest   uint32 // bytes of the payload that have yet to come
}

// Count takes the next bytes and returns how many frames begin in them: each is
// counted with the last byte of its header.
func (c *Counter) Count(b []byte) (frames int) {
	for len(b) > 0 {
		if c.rest > 0 {
			n := min(uint32(len(b)), c.rest)
			c.rest -= n
			b = b[n:]
			continue
		}
		n := copy(c.header[c.have:], b)
		c.have += n
		b = b[n:]
		if c.have == headerLen {
			frames++
			c.have, c.rest = 0, binary.BigEndian.Uint32(c.header[2:])
		}
	}
	return frames
}
