package relay

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/starling-im/starling/wire"
)

// countingStream is of a client that takes everything at once, and counts it.
type countingStream struct {
	stopped chan struct{}
	frames  *atomic.Int64
}

func (s countingStream) Write(p []byte) (int, error) { s.frames.Add(1); return len(p), nil }
func (s countingStream) Read([]byte) (int, error) {
	<-s.stopped
	return 0, io.EOF
}
func (s countingStream) SetReadDeadline(time.Time) error  { return nil }
func (s countingStream) SetWriteDeadline(time.Time) error { return nil }

// listening has so many sessions listen to a room, and returns how many frames they got.
func listening(x *Signals, about Subject, size int) *atomic.Int64 {
	frames := new(atomic.Int64)
	for k := range size {
		s := NewSession(SessionConfig{Peer: Peer{App: about.App, User: fmt.Sprint(k)}, Replies: countingStream{frames: frames}, Signals: x})
		s.ctx, s.end = context.WithCancelCause(context.Background())
		x.listen(about, ear{s, 1})
	}
	return frames
}

// recordingStream is of a client that takes everything at once, and keeps it.
type recordingStream struct {
	countingStream
	mu  sync.Mutex
	all bytes.Buffer
}

func (s *recordingStream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all.Write(p)
}

// signals are those that it has got.
func (s *recordingStream) signals(t *testing.T) (all []*wire.Signals) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := wire.NewReader(bytes.NewReader(s.all.Bytes()), wire.ClientFrame)
	for {
		f, err := r.Frame()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, f.GetSignals())
	}
}

// soon fails the test if do takes long.
func soon(t *testing.T, what string, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); do() }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatalf("%s waits for one who is told", what)
	}
}

// recording returns the streams of so many who listen.
func recording(t *testing.T, x *Signals, about Subject, n int) (streams []*recordingStream, ears []ear) {
	for k := range n {
		to := new(recordingStream)
		s := NewSession(SessionConfig{Peer: Peer{App: "demo", User: fmt.Sprint(k)}, Replies: to, Signals: x})
		s.ctx, s.end = context.WithCancelCause(t.Context())
		streams, ears = append(streams, to), append(ears, ear{s, 1})
		x.listen(about, ears[k])
	}
	return streams, ears
}

// While the listeners of a room are told, and one of them holds that up, nobody else waits.
// Afterwards all are told the newest, in order, and who has left nothing more.
func TestNobodyWaitsForListeners(t *testing.T) {
	x := NewSignals(SignalsConfig{Self: "fra", Parent: func(about Subject) string {
		if about.Room == "r" {
			return "iad"
		}
		return ""
	}, Send: func(string, *wire.Frame, int) bool { return true }})
	go x.Run(t.Context())
	about := Subject{App: "demo", Room: "r"}
	streams, ears := recording(t, x, about, 3*tellPart)
	all := func(what string, ok func(*wire.Signals) bool) {
		t.Helper()
		soon(t, what, func() {
			for k := 0; k < len(streams); time.Sleep(time.Millisecond) {
				for k < len(streams) {
					is := streams[k].signals(t)
					if len(is) == 0 || !ok(is[len(is)-1]) {
						break
					}
					k++
				}
			}
		})
	}
	all("the first of all", func(is *wire.Signals) bool { return int(is.Sessions) == len(streams) })
	x.mu.Lock()
	held := x.all[about].listeners[ears[0]]
	x.mu.Unlock()
	held.mu.Lock() // as if it was told for ever
	x.typing(about, "bob", true)
	var first *telling
	soon(t, "the telling", func() {
		for ; first == nil; first = x.under(about) {
			time.Sleep(time.Millisecond)
		}
	})
	soon(t, "a link", func() {
		x.HearParent("iad", &wire.Aggregate{App: "demo", Room: "r", Shares: []*wire.Share{{Node: "iad", Stamp: 1, Typing: []string{"carol"}, Typers: 1}}})
	})
	soon(t, "a session", func() {
		x.typing(about, "dave", true)
		x.live(about, "dave", "hi")
		x.unlisten(about, ears[1])
		x.listen(Subject{App: "demo", Room: "other"}, ear{NewSession(SessionConfig{Replies: new(recordingStream)}), 1})
	})
	time.Sleep(2 * wire.AggregateEvery) // as long as it takes, its turn has come
	if x.under(about) != first {
		t.Error("there is another telling before the one is over")
	}
	held.mu.Unlock()
	left, before := streams[1], len(streams[1].signals(t))
	streams = append(streams[:1], streams[2:]...)
	all("the newest", func(is *wire.Signals) bool { return fmt.Sprint(is.Typing) == "[bob carol dave]" })
	for _, s := range streams {
		said, last := 0, uint64(0)
		for _, is := range s.signals(t) {
			if is.Edition <= last {
				t.Fatalf("edition %d comes after %d", is.Edition, last)
			}
			last = is.Edition
			said += len(is.Live)
		}
		if said != 1 {
			t.Errorf("%d lines were heard", said)
		}
	}
	if got := len(left.signals(t)); got != before {
		t.Errorf("who left is told %d more", got-before)
	}
}

// under is the telling of a subject that is under way.
func (x *Signals) under(about Subject) *telling {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.all[about].telling
}

// While some leave and others come, all who were there and stay are told what was said live,
// once, and nobody who came later. It has its places until then.
func TestListenersChangeWhileTheyAreTold(t *testing.T) {
	x := NewSignals(SignalsConfig{Self: "fra", Parent: func(Subject) string { return "" }})
	x.tellers.most = 0 // the test does the work
	about := Subject{App: "demo", Room: "r"}
	var streams []*recordingStream
	var ears []ear
	come := func(n int) {
		for range n {
			to := new(recordingStream)
			streams, ears = append(streams, to), append(ears, ear{NewSession(SessionConfig{Replies: to}), 1})
			x.listen(about, ears[len(ears)-1])
		}
	}
	const there = 3*tellPart + 5
	come(there)
	x.live(about, "bob", "hi")
	x.flushDue(time.Now())
	tell := func(n *telling, part []*listener) {
		if n == nil {
			t.Fatal("there is nothing to tell")
		}
		var got outcome
		for _, l := range part {
			l.tell(n, nil, &got)
		}
		x.toldPart(n, got)
	}
	x.tellers.busy++
	tell(x.takePart(nil))
	come(4)
	for _, k := range []int{0, 1, 40, there - 1, there, there + 1} {
		x.unlisten(about, ears[k])
	}
	if x.talking.held == 0 {
		t.Error("what is being told has no place")
	}
	x.work()
	if x.talking.held != 0 || x.under(about) != nil {
		t.Errorf("%d bytes are left", x.talking.held)
	}
	for k, to := range streams {
		_ = ears[k].session.replies.Flush(t.Context())
		said := 0
		for _, is := range to.signals(t) {
			said += len(is.Live)
		}
		want := 1
		if k == 0 || k == 1 || k == 40 || k >= there {
			want = 0
		}
		if said != want {
			t.Errorf("listener %d hears %d lines, not %d", k, said, want)
		}
	}
}

// Who has left is told nothing more, also if it leaves while all are told.
func TestNothingIsToldAfterUnlisten(t *testing.T) {
	l := &listener{to: ear{NewSession(SessionConfig{Replies: new(recordingStream)}), 1}}
	n := &telling{number: 1, edition: 1}
	var got outcome
	l.tell(n, nil, &got)
	l.leave()
	n.number, n.edition = 2, 2
	if l.tell(n, nil, &got); got.signals != 1 {
		t.Errorf("%d are told", got.signals)
	}
}
