package relay

import (
	"context"
	"fmt"
	"time"

	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// handle acts on one frame. An error ends the session; what is wrong with one
// request is its answer.
func (s *Session) handle(f *wire.Frame) error {
	switch b := f.Body.(type) {
	case *wire.Frame_Publish:
		s.publish(f.Id, b.Publish)
	case *wire.Frame_Create:
		s.create(f.Id, b.Create)
	case *wire.Frame_Propose:
		s.propose(f.Id, b.Propose)
	case *wire.Frame_Follow:
		s.follow(f.Id, b.Follow)
	case *wire.Frame_Unfollow:
		s.unfollow(b.Unfollow.GetFollow())
	case *wire.Frame_History:
		s.ask(f.Id, func(ctx context.Context) (*wire.Frame, error) { return s.history(ctx, b.History) })
	case *wire.Frame_Query:
		s.ask(f.Id, func(ctx context.Context) (*wire.Frame, error) { return s.query(ctx, b.Query) })
	case *wire.Frame_Ping:
		s.pong(f.Id)
	case *wire.Frame_Refresh:
		s.ask(f.Id, func(context.Context) (*wire.Frame, error) { return s.refresh(b.Refresh) })
	case *wire.Frame_Signal:
		s.signal(f.Id, b.Signal)
	case *wire.Frame_Presence:
		s.present(f.Id, b.Presence)
	case *wire.Frame_Aggregate:
		return s.aggregate(b.Aggregate)
	case *wire.Frame_Compression:
		return s.agree(f.Id, b.Compression)
	case *wire.Frame_Hello:
		return wire.Errorf(wire.CodeProtocol, "a second Hello")
	case nil:
		// A kind of frame from the future: say so, and let the peer go on.
		s.replyError(f.Id, wire.Errorf(wire.CodeUnsupported, "this node does not know the frame"))
	default:
		return wire.Errorf(wire.CodeProtocol, "a %T is not for a server", b)
	}
	return nil
}

// pong answers a Ping: it waits for nothing, and so needs no goroutine and no place
// among the requests that run.
func (s *Session) pong(id uint64) {
	if err := s.askRate(); err != nil {
		s.replyError(id, err)
		return
	}
	s.reply(&wire.Frame{Id: id, Body: &wire.Frame_Pong{Pong: &wire.Pong{}}})
}

// agree takes which dictionaries a node knows, and says which ones this one does.
func (s *Session) agree(id uint64, c *wire.Compression) error {
	if s.cfg.Peer.Node == "" {
		return wire.Errorf(wire.CodeProtocol, "compression is for links between nodes")
	}
	s.dictionary.Store(uint32(wire.Shared(c.Dictionaries)))
	s.reply(&wire.Frame{Id: id, Body: &wire.Frame_Compression{Compression: &wire.Compression{Dictionaries: wire.Dictionaries()}}})
	return nil
}

// askWithin bounds what a request other than a send may take.
const askWithin = 15 * time.Second

// ask answers a request if it may be asked now, else it says why not.
func (s *Session) ask(id uint64, find func(context.Context) (*wire.Frame, error)) {
	if err := s.mayAsk(); err != nil {
		s.replyError(id, err)
		return
	}
	s.answer(id, find)
}

// answer answers a request from a goroutine of its own, since it may wait for disks or
// other nodes, and then for the peer to read. At most Limits.Asks run at once.
func (s *Session) answer(id uint64, find func(context.Context) (*wire.Frame, error)) {
	s.work.Go(func() {
		defer s.asked()
		ctx, cancel := context.WithTimeout(s.ctx, askWithin)
		defer cancel()
		f, err := find(ctx)
		if err != nil {
			f = &wire.Frame{Body: &wire.Frame_Error{Error: wire.AsError(err)}}
		}
		if f != nil {
			f.Id = id
			_ = s.replies.PushWait(s.ctx, s.encode(f))
		}
	})
}

// mayAsk takes a place for a request, or says why there is none; asked gives it back.
func (s *Session) mayAsk() error {
	if err := s.askRate(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asking >= s.cfg.Limits.Asks {
		return wire.Errorf(wire.CodeOverloaded, "%d requests are unanswered", s.cfg.Limits.Asks).After(overloadPause)
	}
	s.asking++
	return nil
}

func (s *Session) askRate() error {
	if s.asks != nil {
		if wait := spend(s.asks, time.Now()); wait > 0 {
			return wire.Errorf(wire.CodeRateLimited, "more than %v requests per second", s.asks.Limit()).After(wait)
		}
	}
	return nil
}

func (s *Session) asked() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asking--
}

func (s *Session) publish(id uint64, p *wire.Publish) {
	kind, ok := publishable[p.Kind]
	if !ok {
		s.refuse(id, wire.Errorf(wire.CodeBadRequest, "kind %v cannot be published", p.Kind))
		return
	}
	user, err := s.speaker(p.ActAs)
	if err != nil {
		s.refuse(id, err)
		return
	}
	s.send(id, p.Attempt, room.Command{
		ID: room.ID{App: s.cfg.Peer.App, Room: p.Room}, User: user, ClientMsgID: p.ClientMsgId,
		Kind: kind, Type: p.Type, Content: p.Content, Trace: string(p.Trace),
	})
}

func (s *Session) create(id uint64, c *wire.Create) {
	user, err := s.speaker(c.ActAs)
	if err != nil {
		s.refuse(id, err)
		return
	}
	s.send(id, c.Attempt, room.Command{
		ID: room.ID{App: s.cfg.Peer.App, Room: c.Room}, User: user, ClientMsgID: c.ClientMsgId,
		Kind: room.Create, Access: room.Access(c.Access),
	})
}

// speaker returns the user of a send: the token's, unless it grants more.
func (s *Session) speaker(actAs string) (string, error) {
	switch {
	case s.cfg.Peer.Node != "":
		return "", wire.Errorf(wire.CodeForbidden, "nodes propose, they do not publish")
	case actAs == "" || actAs == s.cfg.Peer.User:
		return s.cfg.Peer.User, nil
	case !s.cfg.Peer.ActAs:
		return "", wire.Errorf(wire.CodeForbidden, "the token does not allow to act as %q", actAs)
	}
	return actAs, nil
}

// send admits a command and passes it on; the answer comes when it comes.
func (s *Session) send(id uint64, attempt uint32, c room.Command) {
	if err := c.Validate(); err != nil {
		s.refuse(id, refused(err))
		return
	}
	moment := s.cfg.Backend.Moment()
	if err := s.admit(c, attempt); err != nil {
		s.refuse(id, err)
		return
	}
	c.Trace = s.cfg.Admission.trace(c.Trace)
	s.cfg.Backend.Publish(c, moment, func(ack *wire.Ack, err error) {
		s.settle(c.ID, attempt, err)
		s.cfg.Admission.settle(c.ID.App)
		s.acked(id, ack, err)
	})
}

// refuse answers a send that is not passed on.
func (s *Session) refuse(id uint64, err error) {
	s.cfg.Admission.refuse(err)
	s.replyError(id, err)
}

// admit asks the session's own limits first, so that one who exceeds them
// spends nothing of what all share.
func (s *Session) admit(c room.Command, attempt uint32) error {
	now := time.Now()
	s.mu.Lock()
	err := s.sends.admit(c.ID.Room, attempt, now)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if err := s.cfg.Admission.admit(c.ID, c.User, now); err != nil {
		s.settle(c.ID, attempt, err)
		return err
	}
	return nil
}

func (s *Session) settle(id room.ID, attempt uint32, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sends.settle(id.Room, attempt, err)
}

func (s *Session) acked(id uint64, ack *wire.Ack, err error) {
	if err != nil {
		s.replyError(id, err)
		return
	}
	s.reply(&wire.Frame{Id: id, Body: &wire.Frame_Ack{Ack: ack}})
}

// propose is a node's send: it comes with a group and is not limited here,
// since its edge did that and the group's queue has a bound. After one that did
// not get through, those that the node sent before it knew fail too.
func (s *Session) propose(id uint64, p *wire.Propose) {
	if s.cfg.Peer.Node == "" {
		s.replyError(id, wire.Errorf(wire.CodeForbidden, "only nodes propose"))
		return
	}
	s.mu.Lock()
	early := s.proposals.refuses(p.Group, p.Attempt)
	s.mu.Unlock()
	if early {
		s.replyError(id, wire.Errorf(wire.CodeOutOfOrder, "an earlier command for group %d failed", p.Group))
		return
	}
	s.cfg.Backend.Propose(p.Group, p.Command, func(ack *wire.Ack, err error) {
		if err != nil && wire.AsError(err).HoldsUp() {
			s.mu.Lock()
			s.proposals.failed(p.Group, p.Attempt)
			s.mu.Unlock()
		}
		s.acked(id, ack, err)
	})
}

// roomID is the room that a request names: a client's app is its token's.
func (s *Session) roomID(app, name string) (room.ID, error) {
	id := room.ID{App: s.cfg.Peer.App, Room: name}
	if s.cfg.Peer.Node != "" {
		id.App = app
	}
	if err := id.Validate(); err != nil {
		return room.ID{}, refused(err)
	}
	return id, s.cfg.Backend.Readable(s.cfg.Peer, id)
}

func (s *Session) history(ctx context.Context, h *wire.History) (*wire.Frame, error) {
	id, err := s.roomID(h.App, h.Room)
	if err != nil {
		return nil, err
	}
	if s.cfg.Peer.Node == "" {
		h.Group = nil
	}
	page, err := s.cfg.Backend.History(ctx, id, h, s.pageBytes(int(h.MaxBytes)))
	if err != nil {
		return nil, err
	}
	return &wire.Frame{Body: &wire.Frame_Page{Page: page}}, nil
}

// pageBytes bounds a page: it fits into one frame of the peer's kind, and into
// what the peer asked for (0 = no matter).
func (s *Session) pageBytes(asked int) int {
	max := wire.ClientFrame - frameMargin
	if s.cfg.Peer.Node != "" {
		max = wire.PageBytes
	}
	if asked > 0 {
		max = min(max, asked)
	}
	return max
}

// frameMargin is what a frame may hold beside its events or its document.
const frameMargin = 1 << 10

func (s *Session) query(ctx context.Context, q *wire.Query) (*wire.Frame, error) {
	doc, err := s.cfg.Backend.Query(ctx, s.cfg.Peer, q)
	if err != nil {
		return nil, err
	}
	max := wire.ClientFrame
	if s.cfg.Peer.Node != "" {
		max = wire.NodeFrame
	}
	if max -= frameMargin; len(doc) > max {
		return nil, wire.TooLarge(fmt.Sprintf("the answer to %q", q.What), uint64(len(doc)), uint64(max))
	}
	return &wire.Frame{Body: &wire.Frame_Answer{Answer: &wire.Answer{Json: doc}}}, nil
}

func (s *Session) refresh(r *wire.Refresh) (*wire.Frame, error) {
	until, err := s.cfg.Backend.Authenticate(s.cfg.Peer, r.Token)
	if err != nil {
		return nil, err
	}
	s.setExpiry(until)
	return &wire.Frame{Body: &wire.Frame_Answer{Answer: &wire.Answer{}}}, nil
}

// refused makes a room's refusal the error of the same code.
func refused(err error) error {
	if r, ok := err.(*room.Refusal); ok {
		return wire.Errorf(r.Code, "%s", r.Message)
	}
	return err
}
