package edge

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/starling-im/starling/wire"
)

// Config says what a door lets in; zero limits get their defaults.
type Config struct {
	Node, Region string
	SystemApp    string // the app whose tokens may carry the operator role
	// Secret is the cluster's, for the tokens by which sessions are resumed on
	// another node; nil = none are given.
	Secret []byte
	// Serve returns what runs a client's session until it ends, and says why it did; it
	// has told the client already.
	Serve func(c Client) (run func(context.Context) error)
	// Key finds the key of a token; ready = false if the node cannot tell yet.
	Key func(kid string) (k Key, ok, ready bool)
	// Closed says why clients other than operators are sent elsewhere, nil if they
	// are not; may be nil itself.
	Closed func() error
	// InFlight is the bound of a session's open sends that Welcome tells
	// (default wire.InFlight).
	InFlight int
	// Connections bounds those of the node (default 50,000), of which an app may have
	// three times as many as are free, and PerUser those of one user (default 16; tokens
	// with the act_as grant are exempt).
	Connections, PerUser int
	// PerAddress bounds the connections of one address (of one /64 in IPv6)
	// that have not said who they are (default 256). Afterwards only the user
	// counts: a whole clinic may share one address.
	PerAddress int
	// PerSecond bounds how many come in per second, and PerSecondFrom how many of one
	// address, as for PerAddress (default 2,000 and 1,000); the others are told when to
	// come again. Operators come in always.
	PerSecond, PerSecondFrom int
	// TokenLife is the longest life of a token (default wire.TokenLife).
	TokenLife time.Duration
	Log       *slog.Logger
}

// Identity is who a client is, as its token proves.
type Identity struct {
	App, User string
	ActAs     bool // may speak for any user of the app
	Operator  bool // may ask about the mesh
}

// Client is a connection whose client has said who it is.
type Client struct {
	Identity
	Until    time.Time    // when its token expires
	Frames   *wire.Reader // what it says, after Hello
	Commands Commands     // where answers go, and frames come from
	// Events opens the stream for events; nil: they go with the answers.
	Events func(context.Context) (Stream, error)
	// Datagram sends a frame that may be lost; it may wait until the connection ends. nil:
	// the client takes none.
	Datagram func([]byte) error
}

// Stream is where frames for a client go.
type Stream interface {
	io.Writer
	SetWriteDeadline(time.Time) error
}

// Commands is the stream of a client's frames and their answers.
type Commands interface {
	Stream
	io.Reader
	io.Closer
	SetReadDeadline(time.Time) error
}

// Door serves clients. It is safe for concurrent use.
type Door struct {
	cfg Config

	places   places
	entrance entrance
	stats    *stats
	serving  sync.WaitGroup // over WebSocket
}

// New returns a door. It starts nothing.
func New(cfg Config) *Door {
	cfg.Connections = cmp.Or(cfg.Connections, 50_000)
	cfg.PerUser = cmp.Or(cfg.PerUser, 16)
	cfg.InFlight = cmp.Or(cfg.InFlight, wire.InFlight)
	cfg.PerAddress = cmp.Or(cfg.PerAddress, 256)
	cfg.PerSecond = cmp.Or(cfg.PerSecond, 2000)
	cfg.PerSecondFrom = cmp.Or(cfg.PerSecondFrom, 1000)
	cfg.TokenLife = cmp.Or(cfg.TokenLife, wire.TokenLife)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Door{
		cfg: cfg, stats: newStats(),
		places: places{
			strangers: make(map[netip.Prefix]int), sessions: make(map[session]*place),
			users: make(map[user]int), apps: make(map[string]int),
		},
		entrance: entrance{perSecond: cfg.PerSecond, perSecondFrom: cfg.PerSecondFrom, from: make(map[netip.Prefix]*pace)},
	}
}

// Sessions returns how many connections are open.
func (d *Door) Sessions() int {
	d.places.mu.Lock()
	defer d.places.mu.Unlock()
	return d.places.open
}

// ServeQUIC serves one connection with ALPN im/1, from a goroutine that begin runs once it
// is known whose it is. It always closes the connection in the end, with a code that says
// whether to come back.
func (d *Door) ServeQUIC(ctx context.Context, conn *quic.Conn, begin func(func())) {
	d.serve(ctx, quicLine(conn), begin, func(err error) { d.closeQUIC(ctx, conn, err) })
}

func (d *Door) closeQUIC(ctx context.Context, conn *quic.Conn, err error) {
	e := wire.AsError(err)
	var app *quic.ApplicationError
	var idle *quic.IdleTimeoutError
	switch {
	case errors.Is(err, io.EOF), errors.As(err, &app) && app.Remote, errors.As(err, &idle):
		_ = conn.CloseWithError(wire.CloseNormal, "")
		return
	case ctx.Err() != nil:
		e = wire.Errorf(wire.CodeShuttingDown, "the node is going away")
	}
	d.cfg.Log.Debug("session ended", "remote", conn.RemoteAddr().String(), "code", e.Code, "reason", e.Message)
	_ = conn.CloseWithError(quic.ApplicationErrorCode(wire.CloseCode(e)), e.Error())
}

// serve finds out who a client is, and then serves it from a goroutine that begin runs: one
// that waits for years keeps the stack that it once needed, and a token takes a deep one.
// end is called when it is over.
func (d *Door) serve(ctx context.Context, l line, begin func(func()), end func(error)) {
	run, err := d.admit(ctx, l)
	if err != nil {
		end(err)
		return
	}
	begin(func() { end(run()) })
}

// admit returns what serves a client, once it has said who it is.
func (d *Door) admit(ctx context.Context, l line) (run func() error, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	p, err := d.enter(l.remote, l.transport, cancel)
	if err != nil {
		cancel(nil)
		d.stats.refused.count(wire.AsError(err).Code)
		return nil, err
	}
	defer func() {
		if err != nil {
			p.leave()
		}
	}()
	commands, frames, hello, err := d.hello(ctx, l)
	if err != nil {
		return nil, err
	}
	c, err := d.letIn(p, l.remote, hello.GetHello())
	if err != nil {
		d.refuse(l, commands, hello.Id, err)
		return nil, err
	}
	if err := greet(commands, d.welcome(hello.Id, c)); err != nil {
		return nil, err
	}
	serve := d.cfg.Serve(Client{
		Identity: c.Identity, Until: c.until(), Frames: frames, Commands: commands,
		Events: l.events, Datagram: l.datagram,
	})
	gone := l.gone // the rest of the line is not kept
	return func() error {
		defer p.leave()
		err := serve(ctx)
		var said *wire.Error
		if errors.As(err, &said) {
			d.stats.ended.count(said.Code)
			linger(gone)
		}
		return err
	}, nil
}

// letIn finds out who says Hello, and gives it a place of its own if it may come in now.
func (d *Door) letIn(p *place, remote net.Addr, h *wire.Hello) (*caller, error) {
	c, err := d.caller(h)
	if err != nil {
		return nil, err
	}
	if !c.Operator {
		if err := d.entrance.pass(network(remote), time.Now()); err != nil {
			return nil, err
		}
		if d.cfg.Closed != nil {
			if err := d.cfg.Closed(); err != nil {
				return nil, err
			}
		}
	}
	if err := p.settle(session{c.Identity, c.session}); err != nil {
		return nil, err
	}
	if h.Resume != "" {
		d.stats.resumed.Add(1)
	}
	return c, nil
}

// greet tells a client that it is in.
func greet(commands Commands, welcome *wire.Frame) error {
	if err := commands.SetWriteDeadline(time.Now().Add(wire.WriteStall)); err != nil {
		return err
	}
	_, err := commands.Write(wire.AppendMessage(nil, welcome))
	return err
}

var errSilent = wire.Errorf(wire.CodeOverloaded, "no Hello within %v", wire.AuthenticateWithin)

// hello waits for the first frame of a client, not for long.
func (d *Door) hello(ctx context.Context, l line) (Commands, *wire.Reader, *wire.Frame, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, wire.AuthenticateWithin, errSilent)
	defer cancel()
	commands, err := l.commands(ctx)
	if err != nil {
		return nil, nil, nil, errors.Join(context.Cause(ctx), err)
	}
	if err := commands.SetReadDeadline(time.Now().Add(wire.AuthenticateWithin)); err != nil {
		return nil, nil, nil, err
	}
	frames := wire.NewReader(commands, wire.ClientFrame)
	f, err := frames.Frame()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errSilent
	}
	if err != nil {
		d.refuse(l, commands, 0, err)
		return nil, nil, nil, err
	}
	if f.GetHello() == nil {
		err := wire.Errorf(wire.CodeProtocol, "the first frame must be Hello")
		d.refuse(l, commands, f.Id, err)
		return nil, nil, nil, err
	}
	return commands, frames, f, commands.SetReadDeadline(time.Time{})
}

// verify finds out whose a token is.
func (d *Door) verify(token string) (*caller, error) {
	var key Key
	ready := true
	claims, app, err := Verify(token, d.cfg.TokenLife, func(kid string) (Key, bool) {
		var ok bool
		key, ok, ready = d.cfg.Key(kid)
		return key, ok
	})
	switch {
	case !ready:
		return nil, errStarting()
	case err != nil:
		return nil, err
	}
	return &caller{Identity: d.identity(claims, app), claims: claims, key: key}, nil
}

// errStarting tells a client to come back: the node does not know the keys yet.
func errStarting() error {
	return wire.Errorf(wire.CodeOverloaded, "the node is starting").After(100 * time.Millisecond)
}

func (d *Door) identity(c Claims, app string) Identity {
	return Identity{App: app, User: c.User, ActAs: c.ActAs == "*", Operator: c.Role == Operator && app == d.cfg.SystemApp}
}

// Authenticate checks a token that is to prolong the session of id: it must
// grant the very same.
func (d *Door) Authenticate(id Identity, token string) (time.Time, error) {
	fresh, err := d.verify(token)
	if err != nil {
		return time.Time{}, err
	}
	if fresh.Identity != id {
		return time.Time{}, wire.Errorf(wire.CodeForbidden, "the token is for another user, or grants something else")
	}
	return fresh.until(), nil
}

func (d *Door) welcome(id uint64, c *caller) *wire.Frame {
	return &wire.Frame{Id: id, Body: &wire.Frame_Welcome{Welcome: &wire.Welcome{
		Session: c.session, ResumeToken: d.resumeToken(c), Node: d.cfg.Node, Region: d.cfg.Region, App: c.App, User: c.User,
		ServerTimeMs: time.Now().UnixMilli(), HeartbeatMs: uint32(wire.IdleTimeout.Milliseconds() / 3),
		Limits: &wire.Limits{FrameBytes: wire.ClientFrame, ContentBytes: wire.Content, Follows: wire.Follows, InFlight: uint32(d.cfg.InFlight)},
	}}}
}
