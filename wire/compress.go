package wire

import (
	"errors"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// The encoder and the decoders are stateless between frames and safe for
// concurrent use: one lost frame never spoils the next.
var (
	encoder = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(128<<10), zstd.WithEncoderCRC(false))
		if err != nil {
			panic("wire: zstd encoder: " + err.Error())
		}
		return e
	})
	decoders sync.Map // maximum size int -> *zstd.Decoder
)

func compress(payload []byte) []byte {
	return encoder().EncodeAll(payload, nil)
}

// decompress unpacks one zstd frame of at most max bytes; a frame that claims
// or contains more is refused before the memory is taken.
func decompress(packed []byte, max int) ([]byte, error) {
	d, err := decoder(max)
	if err != nil {
		return nil, err
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

func decoder(max int) (*zstd.Decoder, error) {
	if d, ok := decoders.Load(max); ok {
		return d.(*zstd.Decoder), nil
	}
	d, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(uint64(max)), zstd.WithDecoderMaxWindow(ZstdWindow), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, Errorf(CodeInternal, "zstd decoder: %v", err)
	}
	kept, _ := decoders.LoadOrStore(max, d)
	return kept.(*zstd.Decoder), nil
}
