package room

import "encoding/binary"

// MsgID is the binary form of a message's id: a ULID, 48 bits of time and 80
// bits of the digest after the event. It sorts by time.
type MsgID [16]byte

func newMsgID(ts int64, digest [32]byte) (id MsgID) {
	binary.BigEndian.PutUint64(id[:], uint64(ts)<<16)
	copy(id[6:], digest[:])
	return id
}

// TS returns the time in id, Unix milliseconds.
func (id MsgID) TS() int64 { return int64(binary.BigEndian.Uint64(id[:]) >> 16) }

// crockford is the alphabet of ULIDs; it sorts as its values do.
const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// String returns the 26 characters of the ULID.
func (id MsgID) String() string {
	hi, lo := binary.BigEndian.Uint64(id[:8]), binary.BigEndian.Uint64(id[8:])
	var s [26]byte
	for i := len(s) - 1; i >= 0; i-- {
		s[i] = crockford[lo&31]
		lo = lo>>5 | hi<<59
		hi >>= 5
	}
	return string(s[:])
}

func (r Receipt) ack(epoch uint64, duplicate bool) Ack {
	return Ack{MsgID: r.MsgID.String(), Seq: r.Seq, Epoch: epoch, TS: r.MsgID.TS(), Duplicate: duplicate}
}

// receiptVersion is the format of stored receipts: version, seq, MsgID (with
// the time), hash of the payload.
const (
	receiptVersion = 1
	receiptBytes   = 1 + 8 + 16 + 16
)

func (r Receipt) append(dst []byte) []byte {
	dst = append(dst, receiptVersion)
	dst = binary.BigEndian.AppendUint64(dst, r.Seq)
	dst = append(dst, r.MsgID[:]...)
	return append(dst, r.Payload[:]...)
}

func decodeReceipt(b []byte) (Receipt, error) {
	if r := checkFormat("receipt", b, receiptVersion, receiptBytes); r != nil {
		return Receipt{}, r
	}
	return Receipt{
		Seq:     binary.BigEndian.Uint64(b[1:]),
		MsgID:   MsgID(b[9:25]),
		Payload: [16]byte(b[25:]),
	}, nil
}
