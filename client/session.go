package client

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/starling-im/starling/internal/sendq"
	"github.com/starling-im/starling/wire"
)

// Stream is what a Session talks over. *quic.Stream and net.Conn are Streams.
type Stream interface {
	io.ReadWriteCloser
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// EventStream is the stream on which a server sends events.
type EventStream interface {
	io.Reader
	SetReadDeadline(time.Time) error
}

// openCalls bounds the unanswered calls of one session.
const openCalls = 1 << 16

// SessionConfig says what a Session runs over and who hears of what it reads.
// The functions are called from the reading goroutines and hold them up; nil
// ones are skipped.
type SessionConfig struct {
	Commands Stream
	// Events waits for the stream of events; nil: events come on Commands.
	Events func(context.Context) (EventStream, error)
	// MaxFrame bounds what is read, in bytes (default wire.ClientFrame).
	MaxFrame int
	// MaxUnsent bounds the bytes that wait to be written (default 4 MaxFrame).
	MaxUnsent int
	// Compress packs large frames, with a dictionary if the peer knows one; only
	// for links between nodes.
	Compress bool
	// OnEvents gets encodings of wire.Event, which it may keep, in the order
	// of the room. Where events have a stream of their own they may come
	// before the Followed; otherwise they come after its done has returned.
	OnEvents func(follow uint64, events [][]byte)
	// OnError gets an error for a call that was answered before: the follow
	// with that id has ended.
	OnError func(id uint64, err *wire.Error)
	// OnSignals gets Signals, and Aggregates between nodes.
	OnSignals func(*wire.Frame)
	// OnGoaway is told that the peer will go away.
	OnGoaway func(*wire.Goaway)
}

// Session asks questions of one peer and hears its events. It does not
// reconnect. It is safe for concurrent use.
type Session struct {
	cfg   SessionConfig
	queue *sendq.Queue
	end   chan struct{} // closed when writing has failed
	late  sync.WaitGroup
	heard atomic.Uint64 // frames read
	// dictionary is a wire.Dictionary that the peer knows.
	dictionary atomic.Uint32

	mu       sync.Mutex
	last     uint64 // the id given last
	open     map[uint64]func(*wire.Frame, error)
	writeErr error
	ended    bool
}

// NewSession returns a session. It may be called at once, and answers come
// once it Runs.
func NewSession(cfg SessionConfig) *Session {
	if cfg.MaxFrame == 0 {
		cfg.MaxFrame = wire.ClientFrame
	}
	if cfg.MaxUnsent == 0 {
		cfg.MaxUnsent = 4 * cfg.MaxFrame
	}
	s := &Session{cfg: cfg, open: make(map[uint64]func(*wire.Frame, error)), end: make(chan struct{})}
	s.queue = sendq.New(cfg.Commands, sendq.Config{Max: cfg.MaxUnsent, Stall: wire.WriteStall, Failed: s.writeFailed})
	if cfg.Compress {
		s.Call(&wire.Frame{Body: &wire.Frame_Compression{Compression: &wire.Compression{Dictionaries: wire.Dictionaries()}}}, s.agree)
	}
	return s
}

// agree takes what the peer says of its dictionaries. One of a release that knows of
// none answers with an error, and gets frames without.
func (s *Session) agree(a *wire.Frame, _ error) {
	s.dictionary.Store(uint32(wire.Shared(a.GetCompression().GetDictionaries())))
}

// Run reads until the connection or ctx ends, and says why: io.EOF if the peer
// left without a word, its *wire.Error if it said one. Every open call then
// has failed with wire.CodeUnavailable, as does every later one. Run closes
// Commands; a connection around it is the caller's to close.
func (s *Session) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ends := make(chan error, 2)
	var readers sync.WaitGroup
	readers.Go(func() { ends <- s.read(ctx, s.cfg.Commands) })
	if s.cfg.Events != nil {
		readers.Go(func() { ends <- s.readEvents(ctx) })
	}
	var err error
	select {
	case err = <-ends:
	case <-s.end:
		err = s.writeError()
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	stop()
	_ = s.cfg.Commands.SetWriteDeadline(longAgo)
	_ = s.cfg.Commands.SetReadDeadline(longAgo)
	_ = s.cfg.Commands.Close()
	readers.Wait()
	s.failOpen(err)
	s.late.Wait()
	return err
}

// longAgo, as a deadline, ends a read or write at once.
var longAgo = time.Unix(1, 0)

// Call sends a request, after setting its Id, and returns that. It never
// blocks. done, which may be nil, is called once with the answer, or with the
// *wire.Error that came instead; never before Call returns from within it, so
// the caller may hold a lock that done takes. If too much waits to be written
// the error is wire.CodeOverloaded, and nothing was sent.
func (s *Session) Call(f *wire.Frame, done func(*wire.Frame, error)) uint64 {
	err := s.call(f, done)
	if err == nil || done == nil {
		return f.Id
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		go done(nil, err)
	} else {
		s.late.Go(func() { done(nil, err) })
	}
	return f.Id
}

// call is Call, but if nothing was sent it returns the error and forgets done.
func (s *Session) call(f *wire.Frame, done func(*wire.Frame, error)) error {
	err := s.register(f, done)
	if err != nil {
		return err
	}
	err = s.push(f)
	if err != nil && done != nil && s.take(f.Id) == nil {
		return nil // the end of the session has told done already
	}
	return err
}

// register gives f its id and remembers who waits for the answer.
func (s *Session) register(f *wire.Frame, done func(*wire.Frame, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	f.Id = s.last
	switch {
	case s.ended:
		return errLost(nil)
	case done == nil:
	case len(s.open) >= openCalls:
		return wire.Errorf(wire.CodeOverloaded, "%d calls are unanswered", openCalls)
	default:
		s.open[f.Id] = done
	}
	return nil
}

// push queues a frame that has its id.
func (s *Session) push(f *wire.Frame) error {
	var b []byte
	if s.cfg.Compress {
		b = wire.AppendCompressed(nil, f, wire.Dictionary(s.dictionary.Load()))
	} else {
		b = wire.AppendMessage(nil, f)
	}
	switch err := s.queue.Push(b); {
	case errors.Is(err, sendq.ErrFull):
		return wire.Errorf(wire.CodeOverloaded, "%d bytes wait to be sent", s.queue.Len())
	case err != nil:
		return errLost(err)
	}
	return nil
}

// Ask is Call that waits for the answer. When ctx ends, so does the waiting;
// the request may still be carried out.
func (s *Session) Ask(ctx context.Context, f *wire.Frame) (*wire.Frame, error) {
	return s.start(f)(ctx)
}

// start is the first half of Ask, and returns the second.
func (s *Session) start(f *wire.Frame) (wait func(context.Context) (*wire.Frame, error)) {
	type answer struct {
		f   *wire.Frame
		err error
	}
	answers := make(chan answer, 1)
	id := s.Call(f, func(f *wire.Frame, err error) { answers <- answer{f, err} })
	return func(ctx context.Context) (*wire.Frame, error) {
		select {
		case a := <-answers:
			return a.f, a.err
		case <-ctx.Done():
			s.take(id)
			return nil, ctx.Err()
		}
	}
}

// take removes an open call and returns who waits for it, nil if nobody does.
func (s *Session) take(id uint64) func(*wire.Frame, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	done := s.open[id]
	delete(s.open, id)
	return done
}

// failOpen ends all open calls, and all later ones. Calls that could not be
// sent before are waited for in Run.
func (s *Session) failOpen(err error) {
	s.mu.Lock()
	s.ended = true
	open := s.open
	s.open = make(map[uint64]func(*wire.Frame, error))
	s.mu.Unlock()
	lost := errLost(err)
	for _, done := range open {
		done(nil, lost)
	}
}

func errLost(err error) *wire.Error {
	if err == nil {
		return wire.Errorf(wire.CodeUnavailable, "the session has ended")
	}
	return wire.Errorf(wire.CodeUnavailable, "the connection was lost: %v", err)
}

func (s *Session) writeFailed(err error) {
	s.mu.Lock()
	s.writeErr = err
	s.mu.Unlock()
	close(s.end)
}

func (s *Session) writeError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writeErr
}

// readEvents reads the stream that the server opens for events.
func (s *Session) readEvents(ctx context.Context) error {
	r, err := s.cfg.Events(ctx)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(longAgo) })()
	return s.read(ctx, r)
}

// read handles the frames of one stream in order.
func (s *Session) read(ctx context.Context, r io.Reader) error {
	frames := wire.NewReader(r, s.cfg.MaxFrame)
	for ctx.Err() == nil {
		payload, err := frames.Payload()
		if err != nil {
			return err
		}
		s.heard.Add(1)
		if follow, events, ok := wire.SplitEvents(payload); ok {
			if s.cfg.OnEvents != nil {
				s.cfg.OnEvents(follow, events)
			}
			continue
		}
		f := new(wire.Frame)
		if err := f.UnmarshalVT(payload); err != nil {
			return wire.Errorf(wire.CodeProtocol, "frame cannot be decoded: %v", err)
		}
		if err := s.handle(f); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// handle acts on one frame. An error ends the session.
func (s *Session) handle(f *wire.Frame) error {
	done := s.take(f.Id)
	e := f.GetError()
	switch {
	case f.Id == 0 && e != nil:
		return &farewell{e}
	case f.Id == 0 && (f.GetSignals() != nil || f.GetAggregate() != nil):
		if s.cfg.OnSignals != nil {
			s.cfg.OnSignals(f)
		}
	case f.Id == 0:
		if g := f.GetGoaway(); g != nil && s.cfg.OnGoaway != nil {
			s.cfg.OnGoaway(g)
		}
	case done != nil && e != nil:
		done(nil, e)
	case done != nil:
		done(f, nil)
	case e != nil && s.cfg.OnError != nil:
		s.cfg.OnError(f.Id, e)
	}
	return nil
}

// farewell is what the peer said before it ended the session, as opposed to
// what this side found wrong.
type farewell struct{ said *wire.Error }

func (f *farewell) Error() string { return f.said.Error() }
func (f *farewell) Unwrap() error { return f.said }
