package relay

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// fullPages answers with pages as long as they may be.
type fullPages struct{ backend }

func (b *fullPages) History(_ context.Context, _ room.ID, _ *wire.History, max int) (*wire.Page, error) {
	return &wire.Page{Events: []*wire.Event{{Seq: 1, Content: string(make([]byte, max-200))}}}, nil
}

// A client asks for as many pages as it may at once, more than may wait for it, and reads
// them all: its session goes on.
func TestManyPagesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, hub := newStore()
		p := start(t, SessionConfig{Peer: Peer{App: "demo", User: "u"}, Hub: hub, Backend: new(fullPages)})
		var all []byte
		for id := uint64(1); id <= 16; id++ {
			all = wire.AppendMessage(all, &wire.Frame{Id: id, Body: &wire.Frame_History{History: &wire.History{Room: "r"}}})
		}
		if _, err := p.conn.Write(all); err != nil {
			t.Fatal(err)
		}
		for range 16 {
			if f := p.hear(); f.GetPage() == nil {
				t.Fatalf("answered with %v", f)
			}
		}
		_ = p.conn.Close()
		<-p.end
		hub.Close()
	})
}

// An Unfollow right behind its Follow ends it.
func TestUnfollowRightBehindFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, hub := newStore()
		s.apply(theRoom, 10)
		x := signalled(t)
		p := start(t, SessionConfig{Peer: Peer{App: "demo", User: "u"}, Hub: hub, Backend: new(backend), Signals: x})
		go func() { _, _ = io.Copy(io.Discard, p.conn) }()
		f := follow(9, 0)
		f.GetFollow().Signals = true
		both := wire.AppendMessage(wire.AppendMessage(nil, f), &wire.Frame{Id: 10, Body: &wire.Frame_Unfollow{Unfollow: &wire.Unfollow{Follow: 9}}})
		if _, err := p.conn.Write(both); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := hub.Stats().Followers; n != 0 {
			t.Errorf("%d follows after Unfollow", n)
		}
		_ = p.conn.Close()
		<-p.end
		hub.Close()
	})
}

// countedFeeds counts the feeds that were started.
type countedFeeds struct {
	store
	started atomic.Int64
}

func (f *countedFeeds) Run(ctx context.Context, id room.ID, d Duty, last func() (uint64, bool)) {
	f.started.Add(1)
	f.store.Run(ctx, id, d, last)
}

// A follow that is refused starts no feed.
func TestRefusedFollowsCostNoFeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(countedFeeds)
		f.hub = NewHub(HubConfig{Feed: f})
		p := start(t, SessionConfig{Peer: Peer{App: "demo", User: "u"}, Hub: f.hub, Backend: new(backend), Limits: Limits{AsksPerSecond: 1, AsksBurst: 3}})
		refused := 0
		for id := range uint64(100) {
			ask := follow(id+1, 0)
			ask.GetFollow().Room = fmt.Sprint(id)
			p.say(ask)
			if p.hear().GetError() != nil {
				refused++
			}
		}
		if started := f.started.Load(); refused != 97 || started != 3 {
			t.Errorf("%d follows of 100 are refused, and %d feeds were started", refused, started)
		}
		_ = p.conn.Close()
		<-p.end
		f.hub.Close()
	})
}

// slowWriter is a stream on which events leave at once, and all else a moment later: as
// where the queue of answers gets to write after them.
type slowWriter struct {
	net.Conn
	takes time.Duration
	mu    sync.Mutex
	out   []byte
}

func (w *slowWriter) Write(p []byte) (int, error) {
	time.Sleep(w.takes)
	return w.put(p)
}

func (w *slowWriter) Send(buf []byte, _ func(error)) (bool, error) {
	_, err := w.put(buf[wire.Headroom:])
	return true, err
}

func (w *slowWriter) put(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out = append(w.out, p...)
	return len(p), nil
}

// On one stream the answer to a follow comes before its events, and they come however long
// that takes.
func TestFollowedComesFirst(t *testing.T) {
	for _, takes := range []time.Duration{time.Millisecond, 2 * askWithin} {
		t.Run(takes.String(), func(t *testing.T) { followedComesFirst(t, takes) })
	}
}

func followedComesFirst(t *testing.T, takes time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		s, hub := newStore()
		s.apply(theRoom, 10)
		ours, theirs := net.Pipe()
		w := &slowWriter{Conn: theirs, takes: takes}
		end := make(chan error, 1)
		go func() {
			end <- NewSession(SessionConfig{
				Peer: Peer{App: "demo", User: "u"}, Hub: hub, Backend: new(backend), Frames: wire.NewReader(theirs, wire.ClientFrame), Replies: w,
			}).Run(t.Context())
		}()
		if _, err := ours.Write(wire.AppendMessage(nil, follow(1, 0))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		_ = ours.Close()
		<-end
		hub.Close()
		heard := wire.NewReader(&onlyReader{w.out}, wire.ClientFrame)
		first, err := heard.Frame()
		if err != nil || first.GetFollowed() == nil {
			t.Fatalf("the first frame is %v, %v", first, err)
		}
		if then, err := heard.Frame(); err != nil || then.GetEvents() == nil {
			t.Errorf("the second frame is %v, %v", then, err)
		}
	})
}

type onlyReader struct{ rest []byte }

func (r *onlyReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// farHeads is a store whose head takes a while to learn, and now and then for ever.
type farHeads struct {
	store
	heads atomic.Int64
	lost  int64 // the number of the question that is never answered
}

func (h *farHeads) Head(ctx context.Context, id room.ID) (uint64, uint64, error) {
	if h.heads.Add(1) == h.lost {
		<-ctx.Done()
		return 0, 0, ctx.Err()
	}
	time.Sleep(100 * time.Millisecond)
	return h.store.Head(ctx, id)
}

// A crowd that follows a room at once asks for its head twice: the first alone, and the
// others together. One question that is lost holds up nobody who comes later.
func TestHeadsAreShared(t *testing.T) {
	for _, lost := range []int64{0, 1} {
		t.Run(fmt.Sprint("lost ", lost), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &farHeads{lost: lost}
				h.hub = NewHub(HubConfig{Feed: h})
				h.apply(theRoom, 10)
				topic, err := h.hub.acquire(theRoom, 0, true)
				if err != nil {
					t.Fatal(err)
				}
				var all sync.WaitGroup
				ask := func(patience time.Duration) {
					all.Go(func() {
						ctx, cancel := context.WithTimeout(t.Context(), patience)
						defer cancel()
						head, _, err := topic.heads.ask(ctx, topic)
						if head != 1 || err != nil {
							t.Errorf("head %d, %v", head, err)
						}
					})
				}
				if lost == 0 {
					ask(time.Second)
				} else {
					go func() { _, _, _ = topic.heads.ask(t.Context(), topic) }()
				}
				synctest.Wait()
				for range 500 {
					ask(time.Second)
				}
				all.Wait()
				if n := h.heads.Load(); n != 2 {
					t.Errorf("%d questions for the head", n)
				}
				h.hub.release(topic)
				h.hub.Close()
			})
		})
	}
}

// An app that follows all the rooms it can leaves some for others.
func TestTopicsAreShared(t *testing.T) {
	s := new(store)
	s.hub = NewHub(HubConfig{Feed: s, Topics: 100})
	defer s.hub.Close()
	took := func(app string) (n int) {
		for {
			if _, err := s.hub.acquire(room.ID{App: app, Room: fmt.Sprint(n)}, 0, true); wire.Code(err) == wire.CodeTooMany {
				return n
			} else if err != nil {
				t.Fatal(err)
			}
			n++
		}
	}
	if greedy, modest := took("greedy"), took("modest"); greedy < 50 || modest < 20 {
		t.Errorf("one app has %d topics of 100, and one that comes then %d", greedy, modest)
	}
}

// A room that ten users flood, each over many sessions within their limits, lets in who
// says something now and then.
func TestFloodedRoomLetsOthersIn(t *testing.T) {
	a := NewAdmission(AdmissionConfig{})
	began, heard, floods := time.Now(), 0, 0
	for ms := range 60_000 {
		now := began.Add(time.Duration(ms) * time.Millisecond)
		for i := range 3 { // 3,000 a second
			if a.admit(theRoom, fmt.Sprint("flood-", (3*ms+i)%10), now) == nil {
				floods++
			}
		}
		if ms%1000 == 500 && a.admit(theRoom, "quiet", now) == nil {
			heard++
		}
		a.open = newApps(1 << 20) // all have their answers
	}
	if heard < 59 {
		t.Errorf("of 60 sends of one who says one a second %d are taken", heard)
	}
	if most, least := 2000+500*60, 500*50; floods > most || floods < least {
		t.Errorf("%d sends of the others are taken, want %d to %d", floods, least, most)
	}
}

// Sends that are refused cost no traces.
func TestRefusedSendsSpendNoTraces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, hub := newStore()
		traced := 0
		b := &backend{publish: func(c room.Command, done func(*wire.Ack, error)) {
			if c.Trace != "" {
				traced++
			}
			done(&wire.Ack{}, nil)
		}}
		p := start(t, SessionConfig{Peer: Peer{App: "demo", User: "u"}, Hub: hub, Backend: b, Limits: Limits{SendsPerSecond: -1}})
		for id := range uint64(tracesBurst * 3) {
			f := publish(id+1, 0)
			f.GetPublish().Trace = make([]byte, 16)
			if id < tracesBurst*2 {
				f.GetPublish().ClientMsgId = ""
			}
			p.say(f)
			p.hear()
		}
		if traced != tracesBurst {
			t.Errorf("%d of %d sends are traced", traced, tracesBurst)
		}
		_ = p.conn.Close()
		<-p.end
		hub.Close()
	})
}

// stuckPeer is sent to, and takes nothing until it is freed.
type stuckPeer struct {
	net.Conn
	ours  net.Conn
	mu    sync.Mutex
	sent  func(error)
	seen  int
	freed bool
}

func (p *stuckPeer) Send(buf []byte, sent func(error)) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen += len(buf)
	if p.freed {
		return true, nil
	}
	p.sent = sent
	return false, nil
}

func (p *stuckPeer) Write(b []byte) (int, error) { return len(b), nil }

func (p *stuckPeer) free() {
	p.mu.Lock()
	p.freed = true
	sent := p.sent
	p.mu.Unlock()
	if sent != nil {
		sent(nil)
	}
}

// Sessions whose peers do not read hold no more history than the node's bound, and read it
// again when they do.
func TestStalledSessionsHoldLittleHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const sessions, most, events, size = 50, 256 << 10, 1000, 1000
		s := new(store)
		s.hub = NewHub(HubConfig{Feed: s, TailBytes: 16 << 10, FetchedBytes: most})
		for range events {
			s.apply(theRoom, size)
		}
		var peers []*stuckPeer
		var ends sync.WaitGroup
		for range sessions {
			ours, theirs := net.Pipe()
			p := &stuckPeer{Conn: theirs, ours: ours}
			peers = append(peers, p)
			ends.Go(func() {
				_ = NewSession(SessionConfig{
					Peer: Peer{App: "demo", User: "u"}, Hub: s.hub, Backend: new(backend), Frames: wire.NewReader(theirs, wire.ClientFrame), Replies: p,
				}).Run(t.Context())
			})
			if _, err := ours.Write(wire.AppendMessage(nil, follow(1, 0))); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Second)
		if held := s.hub.fetched.Load(); held > most+2*pageBytes {
			t.Errorf("%d bytes of history wait", held)
		}
		for _, p := range peers {
			p.free()
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		for i, p := range peers {
			if p.seen < events*size {
				t.Errorf("peer %d has %d bytes", i, p.seen)
			}
			_ = p.ours.Close()
		}
		ends.Wait()
		if held := s.hub.fetched.Load(); held != 0 {
			t.Errorf("%d bytes of history wait for nobody", held)
		}
		s.hub.Close()
	})
}
