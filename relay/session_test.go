package relay

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// store is a feed over a list of events, as a replica's is.
type store struct {
	mu     sync.Mutex
	events [][]byte
	hub    *Hub
}

func (s *store) Run(ctx context.Context, id room.ID, _ Duty, _ func() (uint64, bool)) {
	s.hub.Begin(id, s.head(), 1)
	<-ctx.Done()
}

func (s *store) head() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return uint64(len(s.events))
}

func (s *store) Read(_ context.Context, _ room.ID, after uint64, max int) ([][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var page [][]byte
	for i := after; i < uint64(len(s.events)) && max > 0; i++ {
		page = append(page, s.events[i])
		max -= len(s.events[i])
	}
	return page, nil
}

func (s *store) Head(context.Context, room.ID) (uint64, uint64, error) { return s.head(), 1, nil }

// apply is what a replica does: first the store, then the hub.
func (s *store) apply(id room.ID, size int) {
	s.mu.Lock()
	seq := uint64(len(s.events) + 1)
	e := event(seq, size)
	s.events = append(s.events, e)
	s.mu.Unlock()
	s.hub.Append(id, seq, e)
}

// backend answers sends as a test says.
type backend struct {
	publish func(c room.Command, done func(*wire.Ack, error))
	propose func(group uint32, done func(*wire.Ack, error))
}

func (b *backend) Moment() uint64 { return 0 }

func (b *backend) Publish(c room.Command, _ uint64, done func(*wire.Ack, error)) { b.publish(c, done) }
func (b *backend) Propose(group uint32, _ []byte, done func(*wire.Ack, error)) {
	b.propose(group, done)
}
func (b *backend) Readable(Peer, room.ID) error { return nil }
func (b *backend) History(context.Context, room.ID, *wire.History, int) (*wire.Page, error) {
	return &wire.Page{}, nil
}
func (b *backend) Query(context.Context, Peer, *wire.Query) ([]byte, error) { return nil, nil }
func (b *backend) Authenticate(Peer, string) (time.Time, error)             { return time.Time{}, nil }

// peer is the other end of a session.
type peer struct {
	t    *testing.T
	conn net.Conn
	r    *wire.Reader
	end  chan error
}

// start runs a session over a pipe, replies and events on one stream.
func start(t *testing.T, cfg SessionConfig) *peer {
	ours, theirs := net.Pipe()
	if cfg.Admission == nil {
		cfg.Admission = NewAdmission(AdmissionConfig{})
	}
	cfg.Frames, cfg.Replies = wire.NewReader(theirs, wire.NodeFrame), theirs
	p := &peer{t: t, conn: ours, r: wire.NewReader(ours, wire.NodeFrame), end: make(chan error, 1)}
	go func() {
		p.end <- NewSession(cfg).Run(t.Context())
		_ = theirs.Close()
	}()
	t.Cleanup(func() { _ = ours.Close() })
	return p
}

func (p *peer) say(f *wire.Frame) {
	p.t.Helper()
	if _, err := p.conn.Write(wire.AppendMessage(nil, f)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) hear() *wire.Frame {
	p.t.Helper()
	f, err := p.r.Frame()
	if err != nil {
		p.t.Fatal(err)
	}
	return f
}

func publish(id uint64, attempt uint32) *wire.Frame {
	return &wire.Frame{Id: id, Body: &wire.Frame_Publish{Publish: &wire.Publish{
		Room: "r", ClientMsgId: fmt.Sprint(id), Kind: wire.Kind_KIND_MESSAGE, Content: "hi", Attempt: attempt,
	}}}
}

func follow(id, after uint64) *wire.Frame {
	return &wire.Frame{Id: id, Body: &wire.Frame_Follow{Follow: &wire.Follow{Room: "r", AfterSeq: after}}}
}

var theRoom = room.ID{App: "demo", Room: "r"}

func newStore() (*store, *Hub) {
	s := new(store)
	s.hub = NewHub(HubConfig{Feed: s, TailBytes: 64 << 10})
	return s, s.hub
}

// A reader that stops for a while gets every seq afterwards, from history, and
// meanwhile holds no more memory than its bounds.
func TestSlowReaderFallsBackToHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, hub := newStore()
		defer hub.Close()
		for range 500 {
			s.apply(theRoom, 200)
		}
		p := start(t, SessionConfig{Peer: Peer{App: "demo", User: "u"}, Hub: hub, Backend: new(backend), Limits: Limits{WriteStall: time.Minute}})
		p.say(follow(9, 0))
		if f := p.hear().GetFollowed(); f.GetHeadSeq() != 500 {
			t.Fatalf("followed at %d, want 500", f.GetHeadSeq())
		}
		for range 20_000 { // 4 MB: the tail holds 64 KiB of it
			s.apply(theRoom, 200)
		}
		synctest.Wait()
		if n := hub.Bytes(); n > 64<<10 {
			t.Errorf("the tail holds %d bytes", n)
		}
		want := uint64(1)
		for want <= 20_500 {
			for _, e := range p.hear().GetEvents().GetEvents() {
				if e.Seq != want {
					t.Fatalf("seq %d, want %d", e.Seq, want)
				}
				want++
			}
		}
	})
}

func TestReaderThatStallsIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, hub := newStore()
		defer hub.Close()
		p := start(t, SessionConfig{Peer: Peer{App: "demo", User: "u"}, Hub: hub, Backend: new(backend)})
		p.say(follow(9, 0))
		p.hear()
		began := time.Now()
		for range 3000 {
			s.apply(theRoom, 200)
		}
		err := <-p.end
		if wire.Code(err) != wire.CodeSlowReader {
			t.Errorf("ended with %v, want %s", err, wire.CodeSlowReader)
		}
		if took := time.Since(began); took < wire.WriteStall || took > wire.WriteStall+time.Second {
			t.Errorf("ended after %v, want %v", took, wire.WriteStall)
		}
	})
}

// What was sent behind a failed send must not overtake it.
func TestSendsBehindAFailureAreRefused(t *testing.T) {
	s, hub := newStore()
	_ = s
	fail := true
	b := &backend{publish: func(_ room.Command, done func(*wire.Ack, error)) {
		if fail {
			fail = false
			done(nil, wire.Errorf(wire.CodeUnavailable, "leader lost"))
			return
		}
		done(&wire.Ack{Seq: 1}, nil)
	}}
	p := start(t, SessionConfig{Peer: Peer{App: "demo", User: "u"}, Hub: hub, Backend: b})
	for i, c := range []struct {
		attempt uint32
		want    string
	}{{0, wire.CodeUnavailable}, {0, wire.CodeOutOfOrder}, {0, wire.CodeOutOfOrder}, {1, ""}, {1, ""}} {
		p.say(publish(uint64(i+1), c.attempt))
		if got := p.hear().GetError().GetCode(); got != c.want {
			t.Errorf("send %d of attempt %d: %q, want %q", i+1, c.attempt, got, c.want)
		}
	}
}

// A node's commands to one group do not overtake one that did not get through,
// whoever sent them; one that a room refused holds up nothing.
func TestCommandsBehindAFailureAreRefused(t *testing.T) {
	_, hub := newStore()
	next := ""
	b := &backend{propose: func(_ uint32, done func(*wire.Ack, error)) {
		if next != "" {
			done(nil, wire.Errorf(next, "no"))
			return
		}
		done(&wire.Ack{Seq: 1}, nil)
	}}
	p := start(t, SessionConfig{Peer: Peer{Node: "fra-1"}, Hub: hub, Backend: b})
	for i, c := range []struct {
		group   uint32
		attempt uint64
		becomes string
		want    string
	}{
		{1, 4, "", ""}, {1, 4, wire.CodeNotMember, wire.CodeNotMember}, {1, 4, wire.CodeNotLeader, wire.CodeNotLeader},
		{1, 4, "", wire.CodeOutOfOrder}, {2, 4, "", ""}, {1, 5, "", ""}, {1, 4, "", wire.CodeOutOfOrder}, {1, 5, "", ""},
	} {
		next = c.becomes
		p.say(&wire.Frame{Id: uint64(i + 1), Body: &wire.Frame_Propose{Propose: &wire.Propose{Group: c.group, Attempt: c.attempt}}})
		if got := p.hear().GetError().GetCode(); got != c.want {
			t.Errorf("command %d for group %d, attempt %d: %q, want %q", i+1, c.group, c.attempt, got, c.want)
		}
	}
}

// Each limit, by the error that names it.
func TestLimits(t *testing.T) {
	never := &backend{publish: func(room.Command, func(*wire.Ack, error)) {}}
	at := func(n int, f func(id uint64) *wire.Frame) []*wire.Frame {
		var all []*wire.Frame
		for i := range n {
			all = append(all, f(uint64(i+1)))
		}
		return all
	}
	for _, c := range []struct {
		name   string
		limits Limits
		frames []*wire.Frame
		want   string
		retry  bool
	}{
		{"sends in flight", Limits{}, at(wire.InFlight+1, func(id uint64) *wire.Frame { return publish(id, 0) }), wire.CodeOverloaded, true},
		{"sends per second", Limits{InFlight: 1000}, at(101, func(id uint64) *wire.Frame { return publish(id, 0) }), wire.CodeRateLimited, true},
		{"sends in flight of a node", Limits{InFlight: 1 << 20, SendsPerSecond: -1}, at(16<<10+1, func(id uint64) *wire.Frame {
			f := publish(id, 0)
			f.GetPublish().Room = fmt.Sprint(id) // so that no room's rate is exceeded
			return f
		}), wire.CodeOverloaded, true},
		{"sends per second to a room", Limits{InFlight: 1 << 20, SendsPerSecond: -1}, at(2500, func(id uint64) *wire.Frame { return publish(id, 0) }), wire.CodeRateLimited, true},
		{"requests per second", Limits{AsksPerSecond: 10, AsksBurst: 3, Asks: 100}, at(4, func(id uint64) *wire.Frame {
			return &wire.Frame{Id: id, Body: &wire.Frame_History{History: &wire.History{Room: "r"}}}
		}), wire.CodeRateLimited, true},
		{"follows", Limits{Follows: 3}, at(4, func(id uint64) *wire.Frame { return follow(id, 0) }), wire.CodeTooMany, false},
		{"an id used twice", Limits{}, []*wire.Frame{follow(1, 0), follow(1, 0)}, wire.CodeBadRequest, false},
		{"act_as without the grant", Limits{}, []*wire.Frame{{Id: 1, Body: &wire.Frame_Publish{Publish: &wire.Publish{
			Room: "r", ClientMsgId: "1", Kind: wire.Kind_KIND_MESSAGE, ActAs: "somebody"}}}}, wire.CodeForbidden, false},
		{"control characters in a room's name", Limits{}, []*wire.Frame{{Id: 1, Body: &wire.Frame_Follow{Follow: &wire.Follow{Room: "a\nb"}}}}, wire.CodeBadRequest, false},
		{"content", Limits{}, []*wire.Frame{{Id: 1, Body: &wire.Frame_Publish{Publish: &wire.Publish{
			Room: "r", ClientMsgId: "1", Kind: wire.Kind_KIND_MESSAGE, Content: string(make([]byte, wire.Content+1))}}}}, wire.CodeTooLarge, false},
		{"a client that proposes", Limits{}, []*wire.Frame{{Id: 1, Body: &wire.Frame_Propose{Propose: &wire.Propose{}}}}, wire.CodeForbidden, false},
		{"a frame from the future", Limits{}, []*wire.Frame{{Id: 1}}, wire.CodeUnsupported, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, hub := newStore()
			defer hub.Close()
			p := start(t, SessionConfig{Peer: Peer{App: "demo", User: "u"}, Hub: hub, Backend: never, Limits: c.limits})
			go func() {
				for _, f := range c.frames {
					if _, err := p.conn.Write(wire.AppendMessage(nil, f)); err != nil {
						return // the test has seen what it wanted
					}
				}
			}()
			for {
				f := p.hear()
				if e := f.GetError(); e != nil {
					if e.Code != c.want || e.Retryable != c.retry || c.retry && e.RetryAfterMs == 0 {
						t.Errorf("refused with %v, want %s", e, c.want)
					}
					return
				}
			}
		})
	}
}

func TestSessionEndsWithItsToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, hub := newStore()
		p := start(t, SessionConfig{Peer: Peer{App: "demo", User: "u"}, Hub: hub, Backend: new(backend), Until: time.Now().Add(time.Minute)})
		if err := <-p.end; wire.Code(err) != wire.CodeTokenExpired {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestGarbageEndsTheSession(t *testing.T) {
	_, hub := newStore()
	p := start(t, SessionConfig{Peer: Peer{App: "demo", User: "u"}, Hub: hub, Backend: new(backend)})
	go func() { _, _ = p.conn.Write([]byte("GET / HTTP/1.1\r\n\r\n")) }()
	if err := <-p.end; wire.Code(err) != wire.CodeProtocol {
		t.Errorf("ended with %v", err)
	}
	_ = p.conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.Copy(io.Discard, p.conn); err != nil { // some of its last words may be on their way
		t.Errorf("the stream is still open: %v", err)
	}
}

// TestRoomLimitWithClocksOutOfOrder has senders look at the clock in another order than
// they are admitted in: the room's limit stays what it is.
func TestRoomLimitWithClocksOutOfOrder(t *testing.T) {
	a := NewAdmission(AdmissionConfig{InFlight: 1 << 20, RoomPerSecond: 500, RoomBurst: 2000})
	began, admitted := time.Now(), 0
	for i := range 20_000 {
		now := began.Add(time.Duration(i) * 50 * time.Microsecond)
		if i%2 == 1 {
			now = now.Add(-100 * time.Millisecond)
		}
		if a.admit(theRoom, "u", now) == nil {
			admitted++
		}
	}
	if most := 2000 + 500; admitted > most {
		t.Errorf("%d sends within a second, want at most %d", admitted, most)
	}
}
