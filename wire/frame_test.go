package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"google.golang.org/protobuf/proto"
)

var update = flag.Bool("update", false, "write testdata/frames.golden anew")

// frames has one of each kind, with every field set.
func frames() []*Frame {
	event := &Event{Seq: 7, User: "alice", Kind: Kind_KIND_MESSAGE, Type: "text", Content: "héllo 👋", TsMs: 1700000000000, ClientMsgId: "c-1", MsgId: "m-1"}
	return []*Frame{
		{Id: 1, Body: &Frame_Hello{&Hello{Token: "t", Device: "d", Agent: "a/1"}}},
		{Id: 1, Body: &Frame_Welcome{&Welcome{Session: "s", Node: "n", Region: "fra", App: "demo", User: "alice", ServerTimeMs: 5, HeartbeatMs: 6, Limits: &Limits{FrameBytes: 1, ContentBytes: 2, Follows: 3, InFlight: 4}}}},
		{Id: 2, Body: &Frame_Error{TooLarge("content", 9, 8).After(0)}},
		{Id: 3, Body: &Frame_Publish{&Publish{Room: "r", ClientMsgId: "c-1", Kind: Kind_KIND_ACTION, Type: "t", Content: "c", ActAs: "bob", Attempt: 2}}},
		{Id: 3, Body: &Frame_Ack{&Ack{ClientMsgId: "c-1", MsgId: "m-1", Seq: 7, Epoch: 1, TsMs: 5, Duplicate: true}}},
		{Id: 4, Body: &Frame_Create{&Create{Room: "r", ClientMsgId: "c-2", Access: Access_ACCESS_MEMBERS, ActAs: "bob"}}},
		{Id: 5, Body: &Frame_Follow{&Follow{Room: "r", AfterSeq: 300, Epoch: 1, FromHead: true, App: "demo", AsRelay: true}}},
		{Id: 5, Body: &Frame_Followed{&Followed{Recovered: true, HeadSeq: 301, Epoch: 1}}},
		{Body: &Frame_Unfollow{&Unfollow{Follow: 5}}},
		{Body: &Frame_Events{&Events{Follow: 5, Events: []*Event{event, {Seq: 8, Kind: Kind_KIND_LEAVE}}}}},
		{Id: 6, Body: &Frame_History{&History{Room: "r", AfterSeq: 1, Limit: 2, Linearizable: true, App: "demo"}}},
		{Id: 6, Body: &Frame_Page{&Page{Events: []*Event{event}, HeadSeq: 9, Epoch: 1, HasMore: true}}},
		{Id: 7, Body: &Frame_Query{&Query{What: "rooms", App: "demo"}}},
		{Id: 7, Body: &Frame_Answer{&Answer{Json: []byte("[]")}}},
		{Body: &Frame_Goaway{&Goaway{Alternates: []string{"a:1", "b:1"}, AfterMinMs: 1, AfterMaxMs: 2}}},
		{Id: 8, Body: &Frame_Refresh{&Refresh{Token: "t2"}}},
		{Id: 9, Body: &Frame_Propose{&Propose{Group: 3, Command: []byte{1, 2, 3}}}},
		{Id: 10, Body: &Frame_Signal{&Signal{Room: "r", Typing: true, ActAs: "bob"}}},
		{Id: 10, Body: &Frame_Signal{&Signal{Room: "r", Live: "goal!"}}},
		{Body: &Frame_Signals{&Signals{Follow: 5, Edition: 5, Live: []*Line{{User: "bob", Content: "goal!", TsMs: 1700000000000}}, Said: 9}}},
		{Id: 5, Body: &Frame_Followed{&Followed{Recovered: true, HeadSeq: 301, Epoch: 1, NoSignals: true}}},
		{Id: 12, Body: &Frame_Aggregate{&Aggregate{App: "demo", Room: "r", Talks: []*Talk{{Node: "fra-1", BeganMs: 1700000000000, After: 3, Upto: 5, Lines: []*Line{{User: "bob", Content: "goal!", TsMs: 1700000000001}}}}}}},
		{Body: &Frame_Signals{&Signals{Follow: 5, Typing: []string{"alice", "bob"}, Others: 3, Sessions: 300, Users: 200, States: []*UserState{{User: "bob", State: State_STATE_AWAY}}, Edition: 4}}},
		{Id: 11, Body: &Frame_Ping{&Ping{Padding: []byte{0, 0}}}},
		{Id: 11, Body: &Frame_Pong{&Pong{}}},
		{Id: 11, Body: &Frame_Presence{&Presence{Own: State_STATE_ONLINE, Watch: []string{"bob"}}}},
		{Id: 12, Body: &Frame_Aggregate{&Aggregate{App: "demo", Room: "r", Shares: []*Share{{Node: "fra-1", Stamp: 1700000000000, AgeMs: 5, Typing: []string{"bob"}, Typers: 1, Sessions: 2, Users: 2, Away: 1}}, Over: true, User: "bob"}}},
		{Id: 1, Body: &Frame_Compression{&Compression{Dictionaries: []uint32{32769}}}},
	}
}

// What is on the wire does not change: an older release reads it.
func TestGoldenFrames(t *testing.T) {
	var got strings.Builder
	for _, f := range frames() {
		fmt.Fprintf(&got, "%T %s\n", f.Body, hex.EncodeToString(AppendMessage(nil, f)))
	}
	golden := filepath.Join("testdata", "frames.golden")
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("frames have changed:\n%s", got.String())
	}
}

func TestEveryBodyIsInFrames(t *testing.T) {
	have := map[string]bool{}
	for _, f := range frames() {
		m := f.ProtoReflect()
		have[string(m.WhichOneof(m.Descriptor().Oneofs().Get(0)).Name())] = true
	}
	bodies := new(Frame).ProtoReflect().Descriptor().Oneofs().Get(0).Fields()
	for i := range bodies.Len() {
		if name := string(bodies.Get(i).Name()); !have[name] {
			t.Errorf("frames has no %s", name)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	var plain, packed []byte
	for _, f := range frames() {
		plain = AppendMessage(plain, f)
		packed = AppendCompressed(packed, f, 0)
	}
	for name, b := range map[string][]byte{"plain": plain, "compressed": packed} {
		r := NewReader(iotest.OneByteReader(bytes.NewReader(b)), ClientFrame)
		for i, want := range frames() {
			got, err := r.Frame()
			if err != nil {
				t.Fatalf("%s frame %d: %v", name, i, err)
			}
			if !proto.Equal(got, want) {
				t.Errorf("%s frame %d is %v, want %v", name, i, got, want)
			}
		}
		if _, err := r.Frame(); err != io.EOF {
			t.Errorf("%s: the end is %v", name, err)
		}
	}
}

// A frame that ends too early is an error and never a shorter frame.
func TestTruncated(t *testing.T) {
	for _, f := range frames() {
		whole := AppendMessage(nil, f)
		for n := range whole {
			_, err := NewReader(bytes.NewReader(whole[:n]), ClientFrame).Frame()
			want := io.ErrUnexpectedEOF
			if n == 0 {
				want = io.EOF
			}
			if err != want {
				t.Errorf("%T cut at %d: %v, want %v", f.Body, n, err, want)
			}
			if n < headerLen {
				continue
			}
			// The same cut with a header that hides it.
			hidden := appendHeader(nil, 0, n-headerLen)
			hidden = append(hidden, whole[headerLen:n]...)
			if _, err := NewReader(bytes.NewReader(hidden), ClientFrame).Frame(); err != nil && Code(err) != CodeProtocol {
				t.Errorf("%T shortened to %d: %v", f.Body, n, err)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	good := AppendMessage(nil, frames()[0])
	with := func(at int, b byte) []byte {
		bad := bytes.Clone(good)
		bad[at] = b
		return bad
	}
	for _, test := range []struct {
		name string
		in   []byte
		code string
	}{
		{"a newer version", with(0, Version+1), CodeProtocol},
		{"version 0", with(0, 0), CodeProtocol},
		{"an unknown flag", with(1, 2), CodeProtocol},
		{"too large", appendHeader(nil, 0, ClientFrame+1), CodeTooLarge},
		{"the largest size", []byte{Version, 0, 255, 255, 255, 255}, CodeTooLarge},
		{"not zstd", with(1, flagZstd), CodeProtocol},
		{"not protobuf", append(appendHeader(nil, 0, 3), 255, 255, 255), CodeProtocol},
	} {
		_, err := NewReader(bytes.NewReader(test.in), ClientFrame).Frame()
		var e *Error
		if !errors.As(err, &e) || e.Code != test.code {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	if e := AsError(TooLarge("frame", 10, 9)); e.Limit != 9 {
		t.Errorf("the error does not name its limit: %v", e)
	}
}

// A frame is refused by its header, before memory is taken for it.
func TestTooLargeTakesNoMemory(t *testing.T) {
	header := appendHeader(nil, 0, 1<<31)
	bytesPer := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			if _, err := NewReader(bytes.NewReader(header), NodeFrame).Payload(); Code(err) != CodeTooLarge {
				b.Fatal(err)
			}
		}
	}).AllocedBytesPerOp()
	if bytesPer > 2*nodeBuffer {
		t.Errorf("%d bytes were allocated", bytesPer)
	}
}

// A header that promises a large frame takes no more memory than what has come of it needs.
func TestFramesGrowAsTheyCome(t *testing.T) {
	promised := appendHeader(nil, 0, ClientFrame)
	for _, came := range []int{0, 1, firstPart - 1, firstPart, 3 * firstPart, ClientFrame - 1} {
		in := append(promised[:headerLen:headerLen], make([]byte, came)...)
		const times = 100
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range times {
			if _, err := NewReader(bytes.NewReader(in), ClientFrame).Payload(); err != io.ErrUnexpectedEOF {
				t.Fatal(err)
			}
		}
		runtime.ReadMemStats(&after)
		if took, most := int(after.TotalAlloc-before.TotalAlloc)/times, max(2*firstPart, 8*came); took > most {
			t.Errorf("%d bytes were allocated for %d that came, at most %d are expected", took, came, most)
		}
	}
}

// Frames of each size come whole, in whatever pieces.
func TestFramesOfEachSize(t *testing.T) {
	for _, n := range []int{0, 1, firstPart - 1, firstPart, firstPart + 1, 4*firstPart + 1, ClientFrame} {
		want := make([]byte, n)
		for i := range want {
			want[i] = byte(i % 251)
		}
		in := append(appendHeader(nil, 0, n), want...)
		for name, r := range map[string]io.Reader{"at once": bytes.NewReader(in), "halved": iotest.HalfReader(bytes.NewReader(in)), "bytes": iotest.OneByteReader(bytes.NewReader(in))} {
			if got, err := NewReader(r, ClientFrame).Payload(); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes, %s: %d bytes, %v", n, name, len(got), err)
			}
		}
	}
}

// BenchmarkPayload reads frames as they come from clients, and the largest of nodes.
func BenchmarkPayload(b *testing.B) {
	for _, n := range []int{100, 4 << 10, 32 << 10, NodeFrame} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			in := append(appendHeader(nil, 0, n), make([]byte, n)...)
			from := bytes.NewReader(nil)
			r := NewReader(from, NodeFrame)
			b.ReportAllocs()
			for b.Loop() {
				from.Reset(in)
				if _, err := r.Payload(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestRest(t *testing.T) {
	b := append(AppendMessage(nil, frames()[0]), "what follows"...)
	r := NewReader(io.MultiReader(bytes.NewReader(b), strings.NewReader(" and more")), ClientFrame)
	if _, err := r.Frame(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(r.Rest()); err != nil || string(rest) != "what follows and more" {
		t.Errorf("Rest = %q, %v", rest, err)
	}
}

func FuzzFrame(f *testing.F) {
	for _, frame := range frames() {
		f.Add(AppendMessage(nil, frame))
		f.Add(AppendCompressed(nil, frame, 0))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(bytes.NewReader(b), ClientFrame)
		for {
			frame, err := r.Frame()
			if err != nil {
				if err != io.EOF && err != io.ErrUnexpectedEOF && Code(err) == "" {
					t.Errorf("an untyped error: %v", err)
				}
				return
			}
			AppendMessage(nil, frame)
		}
	})
}

func FuzzRaft(f *testing.F) {
	f.Add(AppendMessage(nil, &RaftMessage{Group: 1, Id: 2, Body: &RaftMessage_Append{Append: &AppendEntries{
		Term: 1, PrevLogIndex: 2, PrevLogTerm: 1, LeaderCommit: 2, Entries: []*LogEntry{{Index: 3, Term: 1, Data: []byte("x")}},
	}}}))
	f.Add(AppendMessage(nil, &RaftMessage{Group: 1, Id: 2, Error: "no", Body: &RaftMessage_Vote{Vote: &RequestVote{Term: 4}}}))
	f.Add(AppendMessage(nil, &RaftMessage{Body: &RaftMessage_Snapshot{Snapshot: &InstallSnapshot{Configuration: []byte("c"), SizeBytes: 1 << 40}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := NewReader(bytes.NewReader(b), NodeFrame).Raft()
		if err == nil {
			AppendMessage(nil, m)
		} else if err != io.EOF && err != io.ErrUnexpectedEOF && Code(err) == "" {
			t.Errorf("an untyped error: %v", err)
		}
	})
}
