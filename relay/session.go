package relay

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/starling-im/starling/internal/sendq"
	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// Peer is who a session talks to, as proved by a token or a certificate.
type Peer struct {
	// Node is set on links between nodes, the others for clients.
	Node     string
	App      string
	User     string
	ActAs    bool // may speak for any user of the app
	Operator bool // may ask about the mesh
}

// Backend carries out what sessions ask for; the node supplies it. Its
// functions return *wire.Error.
type Backend interface {
	// Moment returns what Publish is to be called with. It is to be asked
	// before whether the session lets the send through: the failure of an
	// earlier one that is told between these two is noticed then.
	Moment() uint64
	// Publish brings a command to its room's leader. It does not block; done
	// is called once, from any goroutine, and must not block.
	Publish(c room.Command, moment uint64, done func(*wire.Ack, error))
	// Propose hands a node's command to the group, which must be led here.
	Propose(group uint32, command []byte, done func(*wire.Ack, error))
	// History returns a page of at most max bytes, but of one event if there
	// is one; it may ask other nodes.
	History(ctx context.Context, id room.ID, h *wire.History, max int) (*wire.Page, error)
	// Readable returns an error if the peer must not read the room.
	Readable(p Peer, id room.ID) error
	// Query answers a question about the mesh with a JSON document.
	Query(ctx context.Context, p Peer, q *wire.Query) ([]byte, error)
	// Authenticate checks a token that replaces the one of a live session; it
	// returns until when the session may go on.
	Authenticate(p Peer, token string) (until time.Time, err error)
}

// Stream is one direction or both of a connection.
type Stream interface {
	io.Writer
	SetWriteDeadline(time.Time) error
}

// Duplex is the stream on which a session hears and answers its peer.
type Duplex interface {
	Stream
	SetReadDeadline(time.Time) error
}

// SessionConfig says whom a session serves, and within which bounds.
type SessionConfig struct {
	Peer    Peer
	Frames  *wire.Reader // the peer's frames, after any Hello
	Replies Duplex       // where answers go, and frames come from
	// Events opens the stream for events; nil: they go with the replies.
	Events func(context.Context) (Stream, error)
	// Datagram sends a frame that may be lost. It may wait while much is unsent, and
	// after the session, until the connection ends. nil: the peer takes none.
	Datagram func([]byte) error
	// Until is when the peer's token expires; zero = never.
	Until time.Time
	// Going ends when the peer is to go to another node, and Goaway says then where
	// and when; until it goes it is served. nil = never.
	Going   context.Context
	Goaway  func() *wire.Goaway
	Hub     *Hub
	Backend Backend
	Limits  Limits
	// Signals are those of the node; nil = none.
	Signals *Signals
	// Admission bounds the sends of all clients of the node; needed by those
	// sessions alone whose peer may publish.
	Admission *Admission
	// Sent is called before each write of events with their number and with
	// the bytes that wait for this peer, the write included; may be nil.
	Sent func(events, unsent int)
}

// Session serves one peer until it leaves or breaks a rule.
type Session struct {
	cfg     SessionConfig
	replies *sendq.Queue
	ctx     context.Context
	end     context.CancelCauseFunc
	work    sync.WaitGroup
	sends   sends
	// signalling bounds the signals of a client; for the reader alone. nil = it made none.
	signalling *rate.Limiter
	asks       *rate.Limiter // bounds the requests other than sends; nil = none
	presence   presence
	datagrams  atomic.Bool // one is being sent
	// proposals is what a node must not pass on to groups.
	proposals fences[uint32]

	// dictionary is a wire.Dictionary that the peer, a node, knows.
	dictionary atomic.Uint32

	sender Sender      // changed by a write alone
	onSent func(error) // sent, made once
	traced [][]byte    // traced events of the write under way

	mu       sync.Mutex
	follows  map[uint64]*cursor // nil: the session has ended
	ready    []*cursor          // to be sent, from next on
	next     int
	behind   []*cursor // wait for history
	fetching *cursor   // for which history is read, or was and has yet to be sent
	fetched  *block    // that history; nil while it is read
	spared   bool      // it was read, and given back
	writing  writing
	quiet    chan struct{} // closed when a write is over; nil = nobody waits
	flushed  time.Time     // when the last write began
	more     bool          // it left something: the next one need not wait for company
	room     *topic        // in whose turn it writes; not changed while it is queued
	asking   int           // requests being answered by ask
	expiry   *time.Timer
	events   Stream
}

// NewSession returns a session; Run serves it.
func NewSession(cfg SessionConfig) *Session {
	cfg.Limits.fill()
	s := &Session{cfg: cfg, follows: make(map[uint64]*cursor)}
	s.sends.init(cfg.Limits)
	if r := cfg.Limits.AsksPerSecond; r > 0 && cfg.Peer.Node == "" {
		s.asks = rate.NewLimiter(rate.Limit(r), cfg.Limits.AsksBurst)
	}
	s.replies = sendq.New(cfg.Replies, sendq.Config{
		Max:   cfg.Limits.UnsentBytes,
		Stall: cfg.Limits.WriteStall,
		Failed: func(err error) {
			s.end(stalled(err))
		},
	})
	s.sender, s.onSent = s.newSender(), s.sent
	return s
}

// Run reads and answers frames until ctx ends or the session does. The error
// says why, io.EOF if the peer left; if it is a *wire.Error, the peer was told.
// Afterwards nothing of the session runs, and the connection can be closed.
func (s *Session) Run(ctx context.Context) error {
	s.ctx, s.end = context.WithCancelCause(ctx)
	s.setExpiry(s.cfg.Until)
	defer context.AfterFunc(s.ctx, s.interrupt)()
	if s.cfg.Going != nil {
		defer context.AfterFunc(s.cfg.Going, func() {
			s.reply(&wire.Frame{Body: &wire.Frame_Goaway{Goaway: s.cfg.Goaway()}})
		})()
	}
	err := s.read()
	s.end(err)
	s.close()
	err = context.Cause(s.ctx) // what ended it first
	var said *wire.Error
	if errors.As(err, &said) && said.Code != wire.CodeSlowReader {
		s.replyError(0, said)
		last, cancel := context.WithTimeout(context.Background(), lastWords)
		defer cancel()
		_ = s.replies.Flush(last)
	}
	return err
}

// lastWords is how long a peer may take to hear why its session ends.
const lastWords = 200 * time.Millisecond

// interrupt ends the reads and writes that may be under way.
func (s *Session) interrupt() {
	past := time.Unix(1, 0)
	_ = s.cfg.Replies.SetReadDeadline(past)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.events != nil:
		_ = s.events.SetWriteDeadline(past)
	case s.writing == sending:
		_ = s.cfg.Replies.SetWriteDeadline(past)
	}
}

// read handles frames in order.
func (s *Session) read() error {
	for {
		f, err := s.cfg.Frames.Frame()
		if s.ctx.Err() != nil {
			return context.Cause(s.ctx)
		}
		if err != nil {
			return err
		}
		if err := s.handle(f); err != nil {
			return err
		}
	}
}

// close ends all follows and waits for what the session has started.
func (s *Session) close() {
	s.mu.Lock()
	if s.expiry != nil {
		s.expiry.Stop()
	}
	all := s.follows
	s.follows = nil
	var quiet chan struct{}
	if s.writing == running || s.writing == sending {
		quiet = make(chan struct{})
		s.quiet = quiet
	}
	s.mu.Unlock()
	for _, c := range all {
		s.drop(c)
	}
	if quiet != nil {
		<-quiet
	}
	s.depart()
	s.work.Wait()
}

// reply queues a frame. A peer that does not read its replies has at most
// UnsentBytes of them waiting; then the session ends.
func (s *Session) reply(f *wire.Frame) {
	if err := s.replies.Push(s.encode(f)); errors.Is(err, sendq.ErrFull) {
		s.end(stalled(err))
	}
}

func (s *Session) encode(f *wire.Frame) []byte {
	if s.cfg.Peer.Node == "" {
		return wire.AppendMessage(nil, f)
	}
	return wire.AppendCompressed(nil, f, wire.Dictionary(s.dictionary.Load()))
}

func (s *Session) replyError(id uint64, err error) {
	s.reply(&wire.Frame{Id: id, Body: &wire.Frame_Error{Error: wire.AsError(err)}})
}

// setExpiry ends the session at a time; zero = never.
func (s *Session) setExpiry(until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.expiry != nil {
		s.expiry.Stop()
	}
	if until.IsZero() || s.follows == nil {
		return
	}
	s.expiry = time.AfterFunc(time.Until(until), func() {
		s.end(wire.Errorf(wire.CodeTokenExpired, "the session's token has expired"))
	})
}

// stalled is the end of a session whose peer takes nothing any more.
func stalled(err error) error {
	return wire.Errorf(wire.CodeSlowReader, "the peer does not read: %v", err)
}
