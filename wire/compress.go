package wire

import (
	"errors"

	"github.com/klauspost/compress/zstd"
)

// The encoder and the decoders keep nothing between frames and are safe for
// concurrent use: one lost frame never spoils the next. They are made at
// start, together with what they would make at their first use, so that they
// belong to no one test's bubble of virtual time.
var (
	encoder  = newEncoder()
	decoders = map[int]*zstd.Decoder{ClientFrame: newDecoder(ClientFrame), NodeFrame: newDecoder(NodeFrame)}
)

func newEncoder() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2), zstd.WithWindowSize(128<<10), zstd.WithEncoderCRC(false))
	if err != nil {
		panic("wire: zstd encoder: " + err.Error()) // only if the options above are wrong
	}
	e.EncodeAll(nil, nil)
	return e
}

func newDecoder(max int) *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(uint64(max)), zstd.WithDecoderMaxWindow(ZstdWindow), zstd.WithDecoderConcurrency(1))
	if err != nil {
		panic("wire: zstd decoder: " + err.Error())
	}
	return d
}

func compress(payload []byte) []byte {
	return encoder.EncodeAll(payload, nil)
}

// decompress unpacks one zstd frame of at most max bytes; a frame that claims
// or contains more is refused before the memory is taken.
func decompress(packed []byte, max int) ([]byte, error) {
	d := decoders[max]
	if d == nil {
		d = newDecoder(max)
		defer d.Close()
	}
	payload, err := d.DecodeAll(packed, nil)
	switch {
	case errors.Is(err, zstd.ErrDecoderSizeExceeded), errors.Is(err, zstd.ErrWindowSizeExceeded):
		return nil, TooLarge("decompressed frame", 0, uint64(max))
	case err != nil:
		return nil, Errorf(CodeProtocol, "frame cannot be decompressed: %v", err)
	}
	return payload, nil
}
