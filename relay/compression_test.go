package relay

import (
	"bytes"
	"io"
	"slices"
	"testing"

	"github.com/starling-im/starling/wire"
)

// Events go to a node compressed, with a dictionary only after it has named one: a
// node of the release before knows none, and asks for none.
func TestEventsToNodesAreCompressed(t *testing.T) {
	for _, test := range []struct {
		name   string
		say    *wire.Compression
		peer   Peer
		frames func(follow uint64, events [][]byte) []byte
	}{
		{"knows it", &wire.Compression{Dictionaries: wire.Dictionaries()}, Peer{Node: "n"}, func(follow uint64, events [][]byte) []byte {
			return wire.AppendCompressedRun(nil, follow, wire.Run(events), wire.Shared(wire.Dictionaries()))
		}},
		{"knows another", &wire.Compression{Dictionaries: []uint32{40000}}, Peer{Node: "n"}, func(follow uint64, events [][]byte) []byte {
			return wire.AppendCompressedRun(nil, follow, wire.Run(events), 0)
		}},
		{"of the release before", nil, Peer{Node: "n"}, func(follow uint64, events [][]byte) []byte {
			return wire.AppendCompressedRun(nil, follow, wire.Run(events), 0)
		}},
		{"client", nil, Peer{App: "demo", User: "u"}, func(follow uint64, events [][]byte) []byte {
			return wire.AppendRun(nil, follow, wire.Run(events))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, hub := newStore()
			defer hub.Close()
			for range 5 {
				s.apply(theRoom, 100)
			}
			p := start(t, SessionConfig{Peer: test.peer, Hub: hub, Backend: new(backend)})
			if test.say != nil {
				p.say(&wire.Frame{Id: 1, Body: &wire.Frame_Compression{Compression: test.say}})
				if a := p.hear(); a.Id != 1 || !slices.Equal(a.GetCompression().GetDictionaries(), wire.Dictionaries()) {
					t.Errorf("answered with %v", a)
				}
			}
			f := follow(2, 0)
			f.GetFollow().App = "demo"
			p.say(f)
			if a := p.hear().GetFollowed(); a == nil {
				t.Fatal("not followed")
			}
			want := test.frames(2, s.events)
			got := make([]byte, len(want))
			if _, err := io.ReadFull(p.r.Rest(), got); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("the events came as\n%x, want\n%x", got, want)
			}
		})
	}
}

func TestClientsAgreeOnNoCompression(t *testing.T) {
	_, hub := newStore()
	defer hub.Close()
	p := start(t, SessionConfig{Peer: Peer{App: "demo", User: "u"}, Hub: hub, Backend: new(backend)})
	go func() {
		_, _ = p.conn.Write(wire.AppendMessage(nil, &wire.Frame{Id: 1, Body: &wire.Frame_Compression{Compression: &wire.Compression{}}}))
		_, _ = io.Copy(io.Discard, p.conn)
	}()
	if err := <-p.end; wire.Code(err) != wire.CodeProtocol {
		t.Errorf("ended with %v", err)
	}
}
