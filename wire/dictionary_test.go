package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// said is a frame of chat that the dictionary has words of.
func said() *Frame {
	e := &Events{Follow: 7}
	for i := range uint64(4) {
		e.Events = append(e.Events, &Event{Seq: 1000 + i, User: "alice", Kind: Kind_KIND_MESSAGE, TsMs: 1_700_000_000_000, Content: "does anyone know where the installed packages are?"})
	}
	return &Frame{Body: &Frame_Events{e}}
}

// A frame names its dictionary by the id alone, so what has an id never changes.
func TestDictionariesStayWhatTheyWere(t *testing.T) {
	want := map[Dictionary]string{32769: "33f032d8a862b78b736e62cb8bab4fe506745c5bd156337113d4ce292e86ea06"}
	for _, d := range dictionaries {
		id, sum := idOf(d), sha256.Sum256(d)
		if got := hex.EncodeToString(sum[:]); got != want[id] {
			t.Errorf("dictionary %d has the sum %s, not %q", id, got, want[id])
		}
		if is, err := zstd.InspectDictionary(d); err != nil || is.ID() != uint32(id) {
			t.Errorf("dictionary %d: %v", id, err)
		}
		if id < 1<<15 || id >= 1<<31 {
			t.Errorf("the id %d is not for private use", id)
		}
	}
}

func TestDictionaryOnLinks(t *testing.T) {
	for _, id := range Dictionaries() {
		packed, without := AppendCompressed([]byte("before"), said(), Dictionary(id)), AppendCompressed(nil, said(), 0)
		packed = bytes.TrimPrefix(packed, []byte("before"))
		if len(packed) >= len(without) {
			t.Errorf("dictionary %d: %d bytes, %d without", id, len(packed), len(without))
		}
		var h zstd.Header
		if err := h.Decode(packed[headerLen:]); err != nil || h.DictionaryID != id {
			t.Errorf("the frame names the dictionary %d, want %d: %v", h.DictionaryID, id, err)
		}
		got, err := NewReader(bytes.NewReader(packed), NodeFrame).Frame()
		if err != nil || got.String() != said().String() {
			t.Errorf("dictionary %d: %v, %v", id, got, err)
		}
	}
}

// An older release knows fewer dictionaries, a newer one more.
func TestSharedDictionary(t *testing.T) {
	for _, test := range []struct {
		theirs []uint32
		want   Dictionary
	}{{nil, 0}, {[]uint32{40000}, 0}, {[]uint32{32769}, 32769}, {[]uint32{40000, 32769}, 32769}} {
		if got := Shared(test.theirs); got != test.want {
			t.Errorf("shared with one that knows %d: %d, want %d", test.theirs, got, test.want)
		}
	}
	if !slices.IsSorted(Dictionaries()) {
		t.Errorf("the best one is not the last: %d", Dictionaries())
	}
}

func TestUnknownDictionary(t *testing.T) {
	other := bytes.Clone(dictionaries[0])
	binary.LittleEndian.PutUint32(other[4:], 40000)
	packed := packedFrame(newEncoder(zstd.WithEncoderDict(other)).EncodeAll(EncodeEvent(said().GetEvents().Events[0]), nil))
	_, err := NewReader(bytes.NewReader(packed), NodeFrame).Payload()
	if Code(err) != CodeProtocol || !strings.Contains(fmt.Sprint(err), "dictionary 40000") {
		t.Errorf("a frame of an unknown dictionary: %v", err)
	}
}

func TestBombWithDictionary(t *testing.T) {
	packed := packedFrame(encoders[Shared(Dictionaries())].EncodeAll(make([]byte, NodeFrame+1), nil))
	if _, err := NewReader(bytes.NewReader(packed), NodeFrame).Payload(); Code(err) != CodeTooLarge {
		t.Errorf("a frame above the limit: %v", err)
	}
}
