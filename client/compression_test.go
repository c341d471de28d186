package client

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/starling-im/starling/wire"
)

// A session of a link says first what it can read, and compresses with what the
// other side has named: nothing, if that is of the release before.
func TestSessionAgreesOnADictionary(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer func(id uint64) *wire.Frame
		want   wire.Dictionary
	}{
		{"knows it", func(id uint64) *wire.Frame {
			return &wire.Frame{Id: id, Body: &wire.Frame_Compression{Compression: &wire.Compression{Dictionaries: wire.Dictionaries()}}}
		}, wire.Shared(wire.Dictionaries())},
		{"knows another", func(id uint64) *wire.Frame {
			return &wire.Frame{Id: id, Body: &wire.Frame_Compression{Compression: &wire.Compression{Dictionaries: []uint32{40000}}}}
		}, 0},
		{"of the release before", func(id uint64) *wire.Frame { return wireError(id, wire.CodeUnsupported) }, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			near, far := net.Pipe()
			agreed := make(chan struct{})
			s, _ := runSession(t, SessionConfig{
				Commands: near, MaxFrame: wire.NodeFrame, Compress: true,
				OnGoaway: func(*wire.Goaway) { close(agreed) }, // the frame after the answer
			})
			r := wire.NewReader(far, wire.NodeFrame)
			hello, err := r.Frame()
			if err != nil || hello.GetCompression() == nil {
				t.Fatalf("the first frame is %v, %v", hello, err)
			}
			q := query(strings.Repeat("where are the packages installed? ", 20))
			asked := make(chan []byte, 1)
			go func() {
				_, _ = far.Write(wire.AppendMessage(nil, test.answer(hello.Id)))
				_, _ = far.Write(wire.AppendMessage(nil, &wire.Frame{Body: &wire.Frame_Goaway{Goaway: &wire.Goaway{}}}))
				q.Id = hello.Id + 1
				frame := make([]byte, len(wire.AppendCompressed(nil, q, test.want)))
				_, _ = io.ReadFull(far, frame)
				asked <- frame
				_, _ = far.Write(wire.AppendMessage(nil, answer(q.Id, "")))
			}()
			<-agreed
			ask := query(q.GetQuery().What)
			if _, err := s.Ask(context.Background(), ask); err != nil {
				t.Fatal(err)
			}
			if got, want := <-asked, wire.AppendCompressed(nil, q, test.want); !bytes.Equal(got, want) {
				t.Errorf("the question came as\n%x, want\n%x", got, want)
			}
		})
	}
}
