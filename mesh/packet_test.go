package mesh

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// FuzzReadPacket has neighbours send what they like: it is refused, or is a packet that
// reads the same after it was passed on.
func FuzzReadPacket(f *testing.F) {
	f.Add(packet{hops: 2, to: "a", from: "b", data: []byte("hello")}.append(nil))
	f.Add(packet{hops: 9, to: strings.Repeat("a", 63), from: "", data: make([]byte, 1452)}.append(nil))
	f.Add([]byte{0, 3, 0, 0, 0})
	f.Add([]byte{255, 255, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := readPacket(bytes.NewReader(b))
		if err != nil {
			return
		}
		if p.to == "" || p.from == "" || len(p.from) > nameMax || p.hops > tunnelHops {
			t.Fatalf("%+v", p)
		}
		again, err := readPacket(bytes.NewReader(p.append(nil)))
		if err != nil || again.to != p.to || again.from != p.from || again.hops != p.hops || !bytes.Equal(again.data, p.data) {
			t.Fatalf("%+v, %v: not %+v", again, err, p)
		}
	})
}

func TestChooseParents(t *testing.T) {
	node := func(id string, rtt time.Duration, path string) Member {
		return Member{ID: id, State: Alive, Linked: true, MinRTT: rtt, Path: path}
	}
	draining, box, gone := node("d", 1, PathUDP), node("e", 1, PathUDP), node("f", 1, PathUDP)
	draining.State, box.Outbound, gone.Linked = Draining, true, false
	members := []Member{node("a", 40, PathUDP), node("b", 10, PathUDP), node("c", 20, PathTCP), draining, box, gone, node("g", 5, "through a"), node("h", 30, PathUDP)}
	for _, test := range []struct{ was, want string }{
		{"", "b c h"},    // the nearest that can be dialled
		{"a", "a b c"},   // who is one stays it
		{"h a", "h a b"}, // in its order
		{"d f", "b c h"}, // but not who goes or is gone
	} {
		got := strings.Join(chooseParents(members, strings.Fields(test.was)), " ")
		if got != test.want {
			t.Errorf("after %q they are %q, not %q", test.was, got, test.want)
		}
	}
}
