package wire

import (
	"bytes"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func packedFrame(payload []byte) []byte {
	return append(appendHeader(nil, flagZstd, len(payload)), payload...)
}

// zeros packs n zero bytes, with or without their number in the header.
func zeros(t testing.TB, n int, stated bool) []byte {
	t.Helper()
	var out bytes.Buffer
	e, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(64<<10))
	if err != nil {
		t.Fatal(err)
	}
	if stated {
		return e.EncodeAll(make([]byte, n), nil)
	}
	chunk := make([]byte, 1<<20)
	for ; n > 0; n -= len(chunk) {
		if _, err := e.Write(chunk[:min(n, len(chunk))]); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// A small frame that unpacks to a huge one is refused within the limit's memory.
func TestZstdBomb(t *testing.T) {
	for _, stated := range []bool{true, false} {
		bomb := packedFrame(zeros(t, 256<<20, stated))
		if len(bomb) > NodeFrame {
			t.Fatalf("the bomb is no bomb: %d bytes", len(bomb))
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := NewReader(bytes.NewReader(bomb), NodeFrame).Payload()
		runtime.ReadMemStats(&after)
		if code := Code(err); code != CodeTooLarge {
			t.Errorf("size stated %v: %v", stated, err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 8*NodeFrame { // a buffer doubles until it is full
			t.Errorf("size stated %v: %d bytes were allocated", stated, took)
		}
	}
}

func TestClientsDoNotCompress(t *testing.T) {
	_, err := NewReader(bytes.NewReader(packedFrame(zeros(t, 100, true))), ClientFrame).Payload()
	if Code(err) != CodeProtocol {
		t.Errorf("a compressed frame of a client: %v", err)
	}
}

func TestCompressOnlyIfSmaller(t *testing.T) {
	for _, test := range []struct {
		name, content string
		packed        bool
	}{
		{"short", strings.Repeat("a", 100), false},
		{"repetitive", strings.Repeat("a", 5000), true},
	} {
		f := &Frame{Id: 1, Body: &Frame_Publish{&Publish{Content: test.content}}}
		b := AppendCompressed(nil, f, 0)
		if packed := b[1]&flagZstd != 0; packed != test.packed {
			t.Errorf("%s: packed is %v", test.name, packed)
		}
		if plain := AppendMessage(nil, f); len(b) > len(plain) {
			t.Errorf("%s: %d bytes, plain %d", test.name, len(b), len(plain))
		}
		got, err := NewReader(bytes.NewReader(b), NodeFrame).Frame()
		if err != nil || got.GetPublish().Content != test.content {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func FuzzDecompress(f *testing.F) {
	f.Add(encoders[0].EncodeAll([]byte(strings.Repeat("starling", 100)), nil))
	f.Add(encoders[Shared(Dictionaries())].EncodeAll([]byte(strings.Repeat("starling", 100)), nil))
	f.Add(zeros(f, 2*NodeFrame, true))
	f.Add(zeros(f, 2*NodeFrame, false))
	f.Fuzz(func(t *testing.T, packed []byte) {
		if len(packed) > 4<<10 {
			return
		}
		payload, err := decompress(packed)
		switch {
		case err == nil && len(payload) > NodeFrame:
			t.Errorf("%d bytes are above the limit", len(payload))
		case err != nil && Code(err) == "" && err != io.ErrUnexpectedEOF:
			t.Errorf("an untyped error: %v", err)
		}
	})
}
