package wire

import (
	"errors"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// The encoders, one for each dictionary and one without, and the decoder keep
// nothing between frames and are safe for concurrent use: one lost frame never
// spoils the next, and no frame tells of another. They are made at start, together
// with what they would make at their first use, so that they belong to no one
// test's bubble of virtual time.
var (
	encoders = newEncoders()
	decoder  = newDecoder()
)

func newEncoders() map[Dictionary]*zstd.Encoder {
	all := map[Dictionary]*zstd.Encoder{0: newEncoder()}
	for _, d := range dictionaries {
		all[idOf(d)] = newEncoder(zstd.WithEncoderDict(d))
	}
	return all
}

func newEncoder(more ...zstd.EOption) *zstd.Encoder {
	e, err := zstd.NewWriter(nil, append(more, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2),
		zstd.WithWindowSize(128<<10), zstd.WithEncoderCRC(false))...)
	if err != nil {
		panic("wire: zstd encoder: " + err.Error()) // only if the options above or a dictionary are wrong
	}
	e.EncodeAll(nil, nil)
	return e
}

func newDecoder() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(NodeFrame), zstd.WithDecoderMaxWindow(ZstdWindow),
		zstd.WithDecoderConcurrency(1), zstd.WithDecoderDicts(dictionaries...))
	if err != nil {
		panic("wire: zstd decoder: " + err.Error())
	}
	return d
}

// scratch are buffers for what frames are compressed from.
var scratch = sync.Pool{New: func() any { return new([]byte) }}

// keepScratch is the largest buffer kept, in bytes.
const keepScratch = 256 << 10

// pack compresses the one frame that dst holds from start on, if it is large enough
// and that makes it smaller.
func pack(dst []byte, start int, d Dictionary) []byte {
	n := len(dst) - start - headerLen
	if n < CompressAbove {
		return dst
	}
	buf := scratch.Get().(*[]byte)
	plain := append((*buf)[:0], dst[start:]...)
	dst = encoders[d].EncodeAll(plain[headerLen:], dst[:start+headerLen])
	if packed := len(dst) - start - headerLen; packed < n {
		appendHeader(dst[:start], flagZstd, packed)
	} else {
		dst = append(dst[:start], plain...)
	}
	if cap(plain) <= keepScratch {
		*buf = plain
		scratch.Put(buf)
	}
	return dst
}

// decompress unpacks one zstd frame of at most NodeFrame bytes; a frame that claims
// or contains more is refused before the memory is taken.
func decompress(packed []byte) ([]byte, error) {
	payload, err := decoder.DecodeAll(packed, nil)
	switch {
	case errors.Is(err, zstd.ErrDecoderSizeExceeded), errors.Is(err, zstd.ErrWindowSizeExceeded):
		return nil, TooLarge("decompressed frame", 0, NodeFrame)
	case errors.Is(err, zstd.ErrUnknownDictionary):
		var h zstd.Header
		_ = h.Decode(packed)
		return nil, Errorf(CodeProtocol, "frame compressed with dictionary %d, this side knows %v", h.DictionaryID, Dictionaries())
	case err != nil:
		return nil, Errorf(CodeProtocol, "frame cannot be decompressed: %v", err)
	}
	return payload, nil
}
