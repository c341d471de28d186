package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/starling-im/starling/wire"
)

// Client keeps a session with one of several nodes alive. It is safe for
// concurrent use. Use Dial.
type Client struct {
	cfg     Config
	connect func(ctx context.Context, addr string) (*conn, error)
	ctx     context.Context
	stop    context.CancelCauseFunc
	work    sync.WaitGroup
	slots   chan struct{} // one for each open send; made at the first welcome
	ready   chan struct{} // closed at the first welcome
	gone    chan struct{} // closed when the client has ended
	out     outbox
	typing  typing
	// presence is said again over each link.
	presence presence

	mu        sync.Mutex
	link      *link         // nil while there is none
	changed   chan struct{} // closed when link changes
	welcome   *wire.Welcome // of the last link
	follows   map[*Follow]struct{}
	resume    string   // what it gave to come back with
	preferred []string // to be tried before the config's
	avoid     string   // to be tried last, and if nobody else answers, until avoided
	avoided   time.Time
	lastErr   error // why there is no link
	end       error // why the client has ended
	ends      Ends
}

// Dial connects to the first of the nodes that lets the client in, and tries
// again until one does or ctx ends. It returns at once if that is hopeless:
// a *ConfigError; a *wire.Error such as ErrUnauthenticated; the error of
// Config.Token; a certificate of no node that can be trusted.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	return dial(ctx, cfg, nil)
}

func dial(ctx context.Context, cfg Config, connect func(context.Context, string) (*conn, error)) (*Client, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	cfg.fill()
	if connect == nil {
		connect = cfg.connect
	}
	c := &Client{
		cfg: cfg, connect: connect, ready: make(chan struct{}), gone: make(chan struct{}),
		changed: make(chan struct{}), follows: make(map[*Follow]struct{}),
		out: outbox{lanes: make(map[string]*lane)},
	}
	c.out.silent = c.probe
	c.ctx, c.stop = context.WithCancelCause(context.WithoutCancel(ctx))
	go c.run()
	select {
	case <-c.ready:
		return c, nil
	case <-c.gone:
		return nil, c.end
	case <-ctx.Done():
		_ = c.Close()
		return nil, fmt.Errorf("client: no node of %v was reached: %w", cfg.Addrs, errors.Join(context.Cause(ctx), c.lastErr))
	}
}

// Close ends the session, all follows and all open sends, and returns when
// nothing of the client is left. It returns nil.
func (c *Client) Close() error {
	c.stop(ErrClosed)
	<-c.gone
	return nil
}

// Node returns the id and the region of the node of the last session.
func (c *Client) Node() (id, region string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.welcome.GetNode(), c.welcome.GetRegion()
}

// Ends counts the sessions of a client that have ended.
type Ends struct {
	// Moved were asked by their node to go, Lost are all others but the one that
	// Close ends.
	Moved int `json:"moved"`
	Lost  int `json:"lost"`
}

// Ends returns how the sessions so far have ended.
func (c *Client) Ends() Ends {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ends
}

func (c *Client) count(asked bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.ctx.Err() != nil:
	case asked:
		c.ends.Moved++
	default:
		c.ends.Lost++
	}
}

// run keeps a link alive until the client is closed or there is no hope.
func (c *Client) run() {
	tries, kept := 0, 0 // in a row: that failed, and of these the last that found no place
	for {
		l, err := c.openAny(tries)
		atOnce := false
		if err == nil {
			since := time.Now()
			c.up(l)
			err = <-l.ended
			c.down(l, err)
			c.count(l.asked())
			if time.Since(since) > reconnectMax {
				tries, atOnce = 0, true
			}
		}
		if c.ctx.Err() != nil {
			err = context.Cause(c.ctx)
			c.finish(err)
			return
		}
		var hopeless *hopelessError
		if final(err) || errors.As(err, &hopeless) {
			c.finish(err)
			return
		}
		var full *fullError
		noPlace := errors.As(err, &full)
		if !noPlace {
			kept = 0
		}
		c.cfg.Log.Info("no session", "why", err, "full", noPlace)
		if errors.Is(err, errMoved) {
			continue
		}
		wait := time.Duration(0)
		switch {
		case noPlace:
			wait = halfJitter(kept, fullMin, fullMax)
			kept++
		case atOnce:
		case busy(err):
			wait = fullJitter(tries, busyMin, busyMax)
		default:
			wait = fullJitter(tries, reconnectMin, reconnectMax)
		}
		if e := said(err); e != nil {
			wait += time.Duration(e.RetryAfterMs) * time.Millisecond
		}
		pause(c.ctx, wait)
		tries++
	}
}

// said returns the peer's own words in err, nil if there are none.
func said(err error) *wire.Error {
	var f *farewell
	if errors.As(err, &f) {
		return f.said
	}
	return nil
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// hopelessError ends a client that would fail in the same way again.
type hopelessError struct{ err error }

func (e *hopelessError) Error() string { return e.err.Error() }
func (e *hopelessError) Unwrap() error { return e.err }

// fullError is that no node has a place for the client.
type fullError struct{ err error }

func (e *fullError) Error() string { return e.err.Error() }
func (e *fullError) Unwrap() error { return e.err }

// openAny returns a link to the first node that lets the client in. Where nobody does,
// the next try is given more time: a crowd may be at all doors.
func (c *Client) openAny(tries int) (*link, error) {
	var failed error
	tried, strangers, expired, noPlace, answered := 0, 0, 0, 0, false
	addrs, mute := c.addrs()
	for _, addr := range addrs {
		if addr == mute && (answered || tries == 0 && len(addrs) > 1) {
			continue
		}
		l, err := c.enter(addr, doubled(tries, dialWithin, dialLonger))
		var none *noToken
		switch {
		case err == nil:
			return l, nil
		case errors.As(err, &none) && !c.started():
			return nil, &hopelessError{err}
		}
		tried++
		err = fmt.Errorf("client: %s: %w", addr, err)
		failed = errors.Join(failed, err)
		answered = answered || answers(err)
		if badCertificate(err) {
			strangers++
		}
		if full(err) {
			noPlace++
		}
		if e := said(err); e.GetCode() == wire.CodeTokenExpired {
			expired++
		}
		if final(err) || c.ctx.Err() != nil {
			return nil, err
		}
	}
	// A fresh token that has expired will not get better by asking again, nor
	// will the trust that the caller configured.
	if expired == len(addrs) || strangers == len(addrs) && !c.started() {
		failed = &hopelessError{failed}
	}
	if noPlace == tried { // one that is away may be back sooner
		failed = &fullError{failed}
	}
	c.mu.Lock()
	c.lastErr = failed
	c.mu.Unlock()
	return nil, failed
}

func (c *Client) prefer(addrs []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.preferred = slices.Clip(addrs)
}

func (c *Client) started() bool {
	select {
	case <-c.ready:
		return true
	default:
		return false
	}
}

// up puts a link into service.
func (c *Client) up(l *link) {
	c.cfg.Log.Info("session", "node", l.welcome.Node, "region", l.welcome.Region)
	if !c.started() {
		c.slots = make(chan struct{}, inFlight(c.cfg.InFlight, int(l.welcome.GetLimits().GetInFlight())))
	}
	c.mu.Lock()
	c.link, c.welcome, c.resume, c.avoid = l, l.welcome, l.welcome.ResumeToken, ""
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
	if !c.started() {
		close(c.ready)
	}
	c.out.up(l.session)
	l.present()
	c.attach(l)
}

// attach has all follows go over l, those that do not yet.
func (c *Client) attach(l *link) {
	c.mu.Lock()
	follows := make([]*Follow, 0, len(c.follows))
	for f := range c.follows {
		follows = append(follows, f)
	}
	c.mu.Unlock()
	for _, f := range follows {
		f.attach(l)
	}
}

// inFlight is the bound of the open sends, from what is wanted and allowed.
func inFlight(wanted, allowed int) int {
	switch {
	case wanted == 0 && allowed == 0:
		return wire.InFlight
	case wanted == 0:
		return min(wire.InFlight, allowed)
	case allowed == 0:
		return wanted
	}
	return min(wanted, allowed)
}

func (c *Client) down(l *link, err error) {
	c.mu.Lock()
	c.link, c.lastErr = nil, err
	switch said(err).GetCode() {
	case wire.CodeTokenExpired, wire.CodeConflict: // another has the session by now
		c.resume = ""
	}
	if !stands(err) {
		c.avoid, c.avoided = l.addr, time.Now().Add(avoidFor)
	}
	c.mu.Unlock()
	c.out.up(nil)
}

// finish ends everything, in the order that lets each part hear of it.
func (c *Client) finish(err error) {
	c.mu.Lock()
	c.end = err
	follows := c.follows
	c.follows = nil
	c.mu.Unlock()
	c.stop(err)
	c.out.close(err)
	for f := range follows {
		f.fail(err)
	}
	c.work.Wait()
	close(c.gone)
}

// spawn runs f unless the client has ended.
func (c *Client) spawn(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end == nil {
		c.work.Go(f)
	}
}

// current returns the link in service, nil if there is none.
func (c *Client) current() *link {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.link
}

// wait returns the link in service as soon as there is one.
func (c *Client) wait(ctx context.Context) (*link, error) {
	for {
		c.mu.Lock()
		l, changed, end := c.link, c.changed, c.end
		c.mu.Unlock()
		switch {
		case end != nil:
			return nil, end
		case l != nil:
			return l, nil
		}
		select {
		case <-changed:
		case <-c.gone:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// probe makes sure that the node of a session still answers.
func (c *Client) probe(s *Session) {
	if l := c.current(); l != nil && l.session == s {
		c.spawn(l.probe)
	}
}
