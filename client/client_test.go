package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling/wire"
)

func TestConfig(t *testing.T) {
	for _, test := range []struct {
		cfg   Config
		field string
	}{
		{Config{}, "Addrs"},
		{Config{Addrs: []string{"nonsense"}}, "Addrs"},
		{Config{Addrs: []string{"a:1"}}, "Token"},
		{Config{Addrs: []string{"a:1"}, Token: token, InFlight: -1}, "InFlight"},
	} {
		var e *ConfigError
		if _, err := Dial(context.Background(), test.cfg); !errors.As(err, &e) || e.Field != test.field {
			t.Errorf("Dial = %v, want an error of %s", err, test.field)
		}
	}
}

func TestDial(t *testing.T) {
	refuse := func(code string) func(string, *wire.Hello) *wire.Error {
		return func(string, *wire.Hello) *wire.Error { return wire.Errorf(code, "said the test") }
	}
	failing := errors.New("no token today")
	for _, test := range []struct {
		name   string
		hello  func(string, *wire.Hello) *wire.Error
		token  func(context.Context) (string, error)
		down   []string
		node   string
		err    error
		within time.Duration
	}{
		{name: "the preferred node", node: "a:1"},
		{name: "the first is dead", down: []string{"a:1"}, node: "b:1"},
		{name: "the first is full", node: "b:1", hello: func(addr string, _ *wire.Hello) *wire.Error {
			if addr == "a:1" {
				return wire.Errorf(wire.CodeTooMany, "full")
			}
			return nil
		}},
		{name: "a wrong token", hello: refuse(wire.CodeUnauthenticated), err: ErrUnauthenticated},
		{name: "not for this user", hello: refuse(wire.CodeForbidden), err: ErrForbidden},
		{name: "an expired token", hello: refuse(wire.CodeTokenExpired), err: ErrTokenExpired},
		{name: "no token", token: func(context.Context) (string, error) { return "", failing }, err: failing},
		{name: "all are dead", down: []string{"a:1", "b:1"}, err: context.DeadlineExceeded, within: 10 * time.Second},
		{name: "all are full", hello: refuse(wire.CodeOverloaded), err: ErrOverloaded, within: 10 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.hello = test.hello
				for _, addr := range test.down {
					w.down[addr] = true
				}
				cfg := Config{Addrs: []string{"a:1", "b:1"}, Token: token}
				if test.token != nil {
					cfg.Token = test.token
				}
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				defer cancel()
				start := time.Now()
				c, err := dial(ctx, cfg, w.connect)
				if took := time.Since(start); took > test.within {
					t.Errorf("it took %v", took)
				}
				if test.err != nil {
					if !errors.Is(err, test.err) {
						t.Errorf("err is %v, want %v", err, test.err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if node, _ := c.Node(); node != test.node {
					t.Errorf("the node is %s", node)
				}
				c.Close()
			})
		})
	}
}

// The end of a session decides whether another one is tried.
func TestSessionLost(t *testing.T) {
	for _, test := range []struct {
		code string
		back bool
	}{
		{wire.CodeTokenExpired, true}, {wire.CodeSlowReader, true}, {wire.CodeShuttingDown, true},
		{wire.CodeUnauthenticated, false}, {wire.CodeForbidden, false},
	} {
		t.Run(test.code, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				tokens := 0
				c, err := dial(context.Background(), Config{Addrs: []string{"a:1"}, Token: func(context.Context) (string, error) {
					tokens++
					return "token", nil
				}}, w.connect)
				if err != nil {
					t.Fatal(err)
				}
				w.all(wireError(0, test.code))
				synctest.Wait()
				_, err = c.Publish(context.Background(), Message{Room: "r"})
				if test.back {
					if err != nil || tokens != 2 {
						t.Errorf("Publish = %v; the token was asked for %d times", err, tokens)
					}
				} else {
					var rejected *Rejected
					_, ferr := c.Follow(context.Background(), "r", 0)
					if !errors.As(err, &rejected) || wire.Code(ferr) != test.code {
						t.Errorf("Publish = %v, Follow = %v", err, ferr)
					}
				}
				c.Close()
			})
		})
	}
}

// A follower that hears nothing asks whether its node is there, in a packet long enough for
// a stateless reset (quic-go answers those of more than 42 bytes, of which 26 are not the
// frame), and goes elsewhere when nothing comes back.
func TestHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.say("r", "one")
		c := w.dial("a:1")
		defer c.Close()
		_, err := c.Follow(t.Context(), "r", 0)
		if err != nil {
			t.Fatal(err)
		}
		pings := func() (n int) {
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, f := range w.frames {
				if f.GetPing() != nil {
					if size := len(wire.AppendMessage(nil, f)); size <= 42-26 {
						t.Errorf("a Ping has %d bytes", size)
					}
					n++
				}
			}
			return n
		}
		time.Sleep(5*heartbeat + time.Second)
		if n := pings(); n < 2 || len(w.dialed) != 1 {
			t.Errorf("%d times asked, %d connections", n, len(w.dialed))
		}
		w.mu.Lock()
		w.still = true
		w.mu.Unlock()
		time.Sleep(2*heartbeat + probeWithin + time.Second)
		w.mu.Lock()
		n := len(w.dialed)
		w.mu.Unlock()
		if n < 2 {
			t.Error("the client stays with a node that is silent")
		}
	})
}

func TestCreateAndAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.dial()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if ack, err := c.Create(ctx, "r", AccessMembers); err != nil || ack.Seq != 1 {
			t.Errorf("Create = %+v, %v", ack, err)
		}
		if got := sayings(w, (*wire.Frame).GetCreate)[0]; got.Access != wire.Access_ACCESS_MEMBERS || got.ClientMsgId == "" {
			t.Errorf("the frame is %v", got)
		}
		var rejected *Rejected
		if _, err := c.Create(ctx, "r", AccessOpen); !errors.As(err, &rejected) || !errors.Is(err, ErrExists) {
			t.Errorf("a second Create = %v", err)
		}
		for _, test := range []struct {
			code string
			err  error
		}{{wire.CodeForbidden, ErrForbidden}, {wire.CodeOverloaded, nil}, {wire.CodeUnavailable, nil}} {
			w.query = wire.Errorf(test.code, "said the test")
			if _, err := c.Query(ctx, "rooms"); !errors.Is(err, test.err) {
				t.Errorf("Query = %v, want %v", err, test.err)
			}
		}
		c.Close()
		if _, err := c.Query(ctx, "rooms"); !errors.Is(err, ErrClosed) {
			t.Errorf("Query after Close = %v", err)
		}
	})
}

// A client leaves when its node asks it to, for the node that it is told.
func TestGoaway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.dial("a:1")
		f := follow(t, c, 0)
		w.all(&wire.Frame{Body: &wire.Frame_Goaway{Goaway: &wire.Goaway{
			Alternates: []string{"nonsense", "c:1"}, AfterMinMs: 1000, AfterMaxMs: 3000,
		}}})
		time.Sleep(999 * time.Millisecond)
		synctest.Wait()
		if node, _ := c.Node(); node != "a:1" {
			t.Errorf("it has left early, for %s", node)
		}
		time.Sleep(2002 * time.Millisecond)
		synctest.Wait()
		if node, _ := c.Node(); node != "c:1" {
			t.Errorf("the node is %s", node)
		}
		if ends := c.Ends(); ends != (Ends{Moved: 1}) {
			t.Errorf("its sessions ended as %+v", ends)
		}
		w.count(1, 2)
		next(t, f, 1, 2)
		c.Close()
	})
}

// While no node answers, the client waits longer and longer, but not too long.
func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.dial("a:1")
		w.mu.Lock()
		w.down["a:1"] = true
		w.mu.Unlock()
		w.cutAll()
		time.Sleep(time.Minute)
		w.mu.Lock()
		if n := len(w.dialed); n < 30 || n > 200 {
			t.Errorf("it dialed %d times in a minute", n)
		}
		w.down["a:1"] = false
		w.mu.Unlock()
		start := time.Now()
		if _, err := c.Publish(context.Background(), Message{Room: "r"}); err != nil || time.Since(start) > reconnectMax {
			t.Errorf("Publish = %v after %v", err, time.Since(start))
		}
		c.Close()
	})
}

func TestNames(t *testing.T) {
	names := []string{"message", "action", "join", "leave", "create"}
	for k := KindMessage; k <= KindCreate; k++ {
		parsed, err := ParseKind(k.String())
		if err != nil || parsed != k || !slices.Contains(names, k.String()) {
			t.Errorf("kind %d is %q, parsed %v, %v", k, k, parsed, err)
		}
	}
	for _, a := range []Access{AccessOpen, AccessMembers} {
		if parsed, err := ParseAccess(a.String()); err != nil || parsed != a {
			t.Errorf("access %d is %q, parsed %v, %v", a, a, parsed, err)
		}
	}
	for _, bad := range []string{"", "kind(0)", "Message"} {
		if k, err := ParseKind(bad); err == nil {
			t.Errorf("ParseKind(%q) = %v", bad, k)
		}
	}
}

// Where there is no place for a client it comes back with pauses that grow, says why it
// waits, and comes in once there is one.
func TestWaitsForAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		free := time.Now().Add(time.Minute)
		var asked []time.Time
		w.hello = func(string, *wire.Hello) *wire.Error {
			asked = append(asked, time.Now())
			if time.Now().Before(free) {
				return wire.Errorf(wire.CodeTooMany, "you are 16 already")
			}
			return nil
		}
		var log bytes.Buffer
		cfg := Config{Addrs: []string{"a:1"}, Token: token, Log: slog.New(slog.NewTextHandler(&log, nil))}
		c, err := dial(t.Context(), cfg, w.connect)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for i := range len(asked) - 1 {
			pause, longest := asked[i+1].Sub(asked[i]), doubled(i, fullMin, fullMax)
			if pause < longest/2 || pause > longest+time.Millisecond {
				t.Errorf("pause %d is %v, not one of up to %v", i, pause, longest)
			}
		}
		if !strings.Contains(log.String(), "you are 16 already") || !strings.Contains(log.String(), "full=true") {
			t.Errorf("the log says %s", log.String())
		}
	})
}

// Where one node is full and the other is away for a while, the client is back with that one
// as soon as where no node is full.
func TestWaitsForNoPlaceWhereANodeIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.hello = func(addr string, _ *wire.Hello) *wire.Error {
			if addr == "full:1" {
				return wire.Errorf(wire.CodeTooMany, "you are 16 already")
			}
			return nil
		}
		w.down["away:1"] = true
		const away = time.Minute
		began := time.Now()
		time.AfterFunc(away, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.down["away:1"] = false
		})
		c, err := dial(t.Context(), Config{Addrs: []string{"away:1", "full:1"}, Token: token}, w.connect)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if took := time.Since(began) - away; took > reconnectMax+time.Second {
			t.Errorf("back %v after the node", took)
		}
	})
}

// A door that is full closes the connection without waiting for a Hello, and so without
// an answer.
func TestFull(t *testing.T) {
	for _, test := range []struct {
		err  error
		full bool
	}{
		{&farewell{wire.Errorf(wire.CodeTooMany, "")}, true},
		{fmt.Errorf("a:1: %w", &webSocketClosed{code: wire.CloseOverloaded}), true},
		{&farewell{wire.Errorf(wire.CodeOverloaded, "")}, false},
		{&webSocketClosed{code: wire.CloseShuttingDown}, false},
		{context.DeadlineExceeded, false},
	} {
		if full(test.err) != test.full {
			t.Errorf("%v: full is %v", test.err, !test.full)
		}
	}
}
