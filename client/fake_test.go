package client

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/starling-im/starling/internal/sendq"
	"github.com/starling-im/starling/wire"
)

// A world is a mesh as a client sees it: rooms, and nodes by address.
type world struct {
	t *testing.T
	// publish decides how a send ends before it takes effect: an error, or a
	// cut connection. It may be nil.
	publish func(p *wire.Publish) (*wire.Error, cut)
	// hello decides whether a client is let in. It may be nil.
	hello func(addr string, h *wire.Hello) *wire.Error
	// mute reports events that are lost on their way to followers.
	mute func(seq uint64) bool
	// follow may refuse a Follow.
	follow  func(f *wire.Follow) *wire.Error
	epoch   uint64
	query   *wire.Error // the answer to the next Query
	resume  string      // the resume token of every session
	unheard *wire.Error // the answer to the next Presence
	// noSignals: there is no place for those of any follow.
	noSignals bool
	still     bool // no Ping is answered

	mu       sync.Mutex
	down     map[string]bool
	dialed   []string
	rooms    map[string][]*wire.Event
	acks     map[string]*wire.Ack
	sessions map[*fakeSession]bool
	frames   []*wire.Frame // all that clients said
}

type cut int

const (
	cutNot    cut = iota
	cutBefore     // the send is lost
	cutAfter      // the ack is lost
	ignore        // neither an effect nor an answer
)

func newWorld(t *testing.T) *world {
	return &world{t: t, epoch: 1, down: map[string]bool{}, rooms: map[string][]*wire.Event{}, acks: map[string]*wire.Ack{}, sessions: map[*fakeSession]bool{}}
}

type fakeSession struct {
	w               *world
	addr            string
	commands        Stream
	replies, pushes *sendq.Queue
	cut             func() // ends the connection
	follows         map[uint64]string
}

// connect is a client's dialer.
func (w *world) connect(_ context.Context, addr string) (*conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dialed = append(w.dialed, addr)
	if w.down[addr] {
		return nil, net.ErrClosed
	}
	near, far := net.Pipe()
	eventsNear, eventsFar := net.Pipe()
	s := w.session(addr, far, eventsFar, func() { far.Close(); eventsFar.Close() })
	done := make(chan struct{})
	go func() { defer close(done); s.serve() }()
	return &conn{
		commands: near,
		events:   func(context.Context) (EventStream, error) { return eventsNear, nil },
		close:    func() { near.Close(); eventsNear.Close(); <-done },
	}, nil
}

// session makes a session, to be served; w is locked.
func (w *world) session(addr string, commands Stream, events sendq.Writer, cut func()) *fakeSession {
	queue := sendq.Config{Max: 64 << 20}
	s := &fakeSession{
		w: w, addr: addr, commands: commands, cut: cut, follows: map[uint64]string{},
		replies: sendq.New(commands, queue), pushes: sendq.New(events, queue),
	}
	w.sessions[s] = true
	return s
}

func (s *fakeSession) serve() {
	r := wire.NewReader(s.commands, wire.ClientFrame)
	for {
		f, err := r.Frame()
		if err != nil || !s.handle(f) {
			break
		}
	}
	s.cut()
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	delete(s.w.sessions, s)
}

func (s *fakeSession) reply(f *wire.Frame) { _ = s.replies.Push(wire.AppendMessage(nil, f)) }

func (s *fakeSession) fail(id uint64, e *wire.Error) {
	s.reply(&wire.Frame{Id: id, Body: &wire.Frame_Error{Error: e}})
}

func (s *fakeSession) handle(f *wire.Frame) bool {
	w := s.w
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frames = append(w.frames, f)
	switch b := f.Body.(type) {
	case *wire.Frame_Hello:
		if w.hello != nil {
			if e := w.hello(s.addr, b.Hello); e != nil {
				s.fail(f.Id, e)
				return true
			}
		}
		s.reply(&wire.Frame{Id: f.Id, Body: &wire.Frame_Welcome{Welcome: &wire.Welcome{Node: s.addr, ResumeToken: w.resume}}})
	case *wire.Frame_Publish:
		return s.published(f.Id, b.Publish)
	case *wire.Frame_Create:
		if len(w.rooms[b.Create.Room]) > 0 {
			s.fail(f.Id, wire.Errorf(wire.CodeExists, "it is there"))
			return true
		}
		s.reply(&wire.Frame{Id: f.Id, Body: &wire.Frame_Ack{Ack: w.append(b.Create.Room, b.Create.ClientMsgId, "")}})
	case *wire.Frame_Follow:
		s.follow(f.Id, b.Follow)
	case *wire.Frame_Unfollow:
		delete(s.follows, b.Unfollow.Follow)
	case *wire.Frame_History:
		all := w.rooms[b.History.Room]
		page := &wire.Page{HeadSeq: uint64(len(all)), Epoch: w.epoch}
		for _, e := range all[min(b.History.AfterSeq, page.HeadSeq):] {
			if len(page.Events) == int(b.History.Limit) {
				page.HasMore = true
				break
			}
			page.Events = append(page.Events, e)
		}
		s.reply(&wire.Frame{Id: f.Id, Body: &wire.Frame_Page{Page: page}})
	case *wire.Frame_Query:
		if e := w.query; e != nil {
			w.query = nil
			s.fail(f.Id, e)
			return true
		}
		s.reply(answer(f.Id, b.Query.What))
	case *wire.Frame_Ping:
		if !w.still {
			s.reply(&wire.Frame{Id: f.Id, Body: &wire.Frame_Pong{Pong: &wire.Pong{}}})
		}
	case *wire.Frame_Presence:
		if e := w.unheard; e != nil {
			w.unheard = nil
			s.fail(f.Id, e)
			return true
		}
		s.reply(answer(f.Id, ""))
	default:
		s.fail(f.Id, wire.Errorf(wire.CodeUnsupported, "unknown"))
	}
	return true
}

func (s *fakeSession) published(id uint64, p *wire.Publish) bool {
	how := cutNot
	if s.w.publish != nil {
		var e *wire.Error
		if e, how = s.w.publish(p); e != nil {
			s.fail(id, e)
			return true
		}
	}
	switch how {
	case ignore:
		return true
	case cutBefore:
		return false
	}
	ack := s.w.acks[p.Room+p.ClientMsgId]
	if ack == nil {
		ack = s.w.append(p.Room, p.ClientMsgId, p.Content)
	} else {
		ack.Duplicate = true
	}
	s.reply(&wire.Frame{Id: id, Body: &wire.Frame_Ack{Ack: ack}})
	return how != cutAfter
}

// append makes an event and pushes it to all followers; w is locked.
func (w *world) append(room, id, content string) *wire.Ack {
	e := &wire.Event{Seq: uint64(len(w.rooms[room])) + 1, Kind: wire.Kind_KIND_MESSAGE, Content: content, ClientMsgId: id}
	w.rooms[room] = append(w.rooms[room], e)
	w.acks[room+id] = &wire.Ack{ClientMsgId: id, Seq: e.Seq, Epoch: w.epoch}
	if w.mute == nil || !w.mute(e.Seq) {
		for s := range w.sessions {
			for follow, r := range s.follows {
				if r == room {
					s.push(follow, e)
				}
			}
		}
	}
	return w.acks[room+id]
}

func (s *fakeSession) push(follow uint64, events ...*wire.Event) {
	_ = s.pushes.Push(wire.AppendMessage(nil, &wire.Frame{Body: &wire.Frame_Events{Events: &wire.Events{Follow: follow, Events: events}}}))
}

func (s *fakeSession) follow(id uint64, f *wire.Follow) {
	if s.w.follow != nil {
		if e := s.w.follow(f); e != nil {
			s.fail(id, e)
			return
		}
	}
	all := s.w.rooms[f.Room]
	head := uint64(len(all))
	after := min(f.AfterSeq, head)
	if f.FromHead {
		after = head
	}
	s.follows[id] = f.Room
	for _, e := range all[after:] {
		s.push(id, e) // perhaps before the client reads Followed
	}
	s.reply(&wire.Frame{Id: id, Body: &wire.Frame_Followed{Followed: &wire.Followed{
		Recovered: f.Epoch == 0 || f.Epoch == s.w.epoch, HeadSeq: head, Epoch: s.w.epoch, NoSignals: s.w.noSignals,
	}}})
}

// say adds events to a room.
func (w *world) say(room string, contents ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range contents {
		w.append(room, c, c)
	}
}

// cutAll loses all connections.
func (w *world) cutAll() {
	w.mu.Lock()
	var all []*fakeSession
	for s := range w.sessions {
		all = append(all, s)
	}
	w.mu.Unlock()
	for _, s := range all {
		s.cut()
	}
}

// all sends a frame to all clients.
func (w *world) all(f *wire.Frame) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for s := range w.sessions {
		s.reply(f)
	}
}

// sayings returns what the frames of clients for which pick returns something.
func sayings[T any](w *world, pick func(*wire.Frame) *T) (all []*T) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.frames {
		if x := pick(f); x != nil {
			all = append(all, x)
		}
	}
	return all
}

// dial returns a client of the world.
func (w *world) dial(addrs ...string) *Client {
	w.t.Helper()
	if addrs == nil {
		addrs = []string{"a:1", "b:1"}
	}
	c, err := dial(context.Background(), Config{Addrs: addrs, Token: token}, w.connect)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return c
}

func token(context.Context) (string, error) { return "token", nil }

// nowhere takes all and passes nothing on.
type nowhere struct{}

func (nowhere) Write(p []byte) (int, error)      { return len(p), nil }
func (nowhere) SetWriteDeadline(time.Time) error { return nil }

func newBlackHole() *sendq.Queue { return sendq.New(nowhere{}, sendq.Config{Max: 1 << 20}) }
