package wire

import (
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// CheckLine says why a text cannot be said live; nil = it can.
func CheckLine(text string) error {
	switch {
	case len(text) > LineBytes:
		return TooLarge("what is said live", uint64(len(text)), LineBytes)
	case !utf8.ValidString(text):
		return Errorf(CodeBadRequest, "what is said live is not UTF-8")
	}
	return nil
}

// Field numbers of Frame.signals, Signals.follow and Signals.said.
const (
	frameSignals  = 19
	signalsFollow = 1
	signalsSaid   = 9
)

// EncodeSignals returns the encoding of what all are told who follow a room: s has neither
// follow nor said.
func EncodeSignals(s *Signals) []byte {
	b, err := s.MarshalVT()
	if err != nil {
		panic("wire: " + err.Error()) // only if s changes meanwhile
	}
	return b
}

// AppendSignals appends to dst the frame that tells the follow of that id what
// EncodeSignals returned. It equals AppendMessage of the same frame, byte for byte.
func AppendSignals(dst []byte, follow, said uint64, encoded []byte) []byte {
	body := sizeVarint(follow) + len(encoded) + sizeVarint(said)
	dst = appendHeader(dst, 0, protowire.SizeTag(frameSignals)+protowire.SizeBytes(body))
	dst = protowire.AppendTag(dst, frameSignals, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(body))
	dst = appendVarint(dst, signalsFollow, follow)
	dst = append(dst, encoded...)
	return appendVarint(dst, signalsSaid, said)
}

// sizeVarint and appendVarint are of a field with a number below 16; 0 is left out.
func sizeVarint(v uint64) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(v)
}

func appendVarint(dst []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendVarint(protowire.AppendTag(dst, field, protowire.VarintType), v)
}
