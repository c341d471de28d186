package consensus

import (
	"bufio"
	"bytes"
	"reflect"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func TestEntryCodec(t *testing.T) {
	for _, commands := range [][][]byte{{}, {{}}, {[]byte("a"), {}, []byte("longer")}} {
		e := entry{stamp: 1700000000000, epoch: 1 << 63, number: 300, commands: commands}
		got, err := decodeEntry(e.encode())
		if err != nil || !reflect.DeepEqual(got, e) {
			t.Errorf("%+v: %+v, %v", e, got, err)
		}
		if n := commandCount(e.encode()); n != len(commands) {
			t.Errorf("%d commands counted of %d", n, len(commands))
		}
		for i, b := 0, e.encode(); i < len(b); i++ {
			if _, err := decodeEntry(b[:i]); err == nil {
				t.Errorf("%+v cut at %d is accepted", e, i)
			}
		}
	}
}

func TestLogCodec(t *testing.T) {
	e := raft.Log{Term: 7, Type: raft.LogConfiguration, Data: []byte("data"), Extensions: []byte("ext"), AppendedAt: time.Unix(12, 34)}
	b := make([]byte, logSize(&e))
	encodeLog(b, &e)
	var got raft.Log
	if err := decodeLog(b, &got); err != nil || !reflect.DeepEqual(got, e) {
		t.Errorf("%+v, %v", got, err)
	}
	b[0]++
	if err := decodeLog(b, &got); err == nil {
		t.Error("a newer format is accepted")
	}
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add(entry{stamp: 1, epoch: 2, number: 3, commands: [][]byte{[]byte("x")}}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decodeEntry(b)
		if err != nil {
			return
		}
		again, err := decodeEntry(e.encode())
		if err != nil || len(again.commands) != len(e.commands) {
			t.Errorf("%x: %v", b, err)
		}
	})
}

func FuzzDecodeLog(f *testing.F) {
	f.Add(make([]byte, 30))
	f.Fuzz(func(_ *testing.T, b []byte) {
		var e raft.Log
		_ = decodeLog(b, &e)
		_, _ = decodePosition(b)
	})
}

func FuzzReadExport(f *testing.F) {
	head := appendBytes([]byte{exportVersion}, position{1, 2, 3, 4}.encode())
	f.Add(append(bytes.Clone(head), 0, 0))
	f.Add(append(bytes.Clone(head), 1, 1, 'k', 1, 'v', 0, 1))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = readExport(bufio.NewReader(bytes.NewReader(b)), func(_, _ []byte) error { return nil })
	})
}
