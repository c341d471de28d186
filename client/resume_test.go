package client

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling/wire"
)

// A client that was let in comes back while its backend is down, with what the
// last session gave; where that is not taken it asks the backend again.
func TestResume(t *testing.T) {
	for _, test := range []struct {
		name   string
		code   string // how a node answers to a resume token
		end    string // how the first session ends; "" = it is cut
		tokens int    // how often the backend is asked in all
		hellos int
	}{
		{name: "resumed", tokens: 1, hellos: 2},
		{name: "refused", code: wire.CodeUnauthenticated, tokens: 2, hellos: 3},
		{name: "refused as expired", code: wire.CodeTokenExpired, tokens: 2, hellos: 3},
		{name: "another has the session", end: wire.CodeConflict, tokens: 2, hellos: 2},
		{name: "the token has expired", end: wire.CodeTokenExpired, tokens: 2, hellos: 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.resume = "come back"
				w.hello = func(_ string, h *wire.Hello) *wire.Error {
					if h.Resume != "" && (h.Token != "" || h.Resume != w.resume || h.Device != "phone") {
						t.Errorf("the node was told %v", h)
					}
					if h.Resume != "" && test.code != "" {
						return wire.Errorf(test.code, "said the test")
					}
					return nil
				}
				tokens := 0
				c, err := dial(t.Context(), Config{Addrs: []string{"a:1"}, Device: "phone", Token: func(context.Context) (string, error) {
					tokens++
					return "token", nil
				}}, w.connect)
				if err != nil {
					t.Fatal(err)
				}
				if test.end != "" {
					w.all(wireError(0, test.end))
				} else {
					w.cutAll()
				}
				synctest.Wait()
				if _, err := c.Publish(t.Context(), Message{Room: "r"}); err != nil {
					t.Error(err)
				}
				if hellos := sayings(w, (*wire.Frame).GetHello); tokens != test.tokens || len(hellos) != test.hellos {
					t.Errorf("the backend was asked for %d tokens, nodes heard %d Hellos", tokens, len(hellos))
				}
				c.Close()
			})
		})
	}
}

// A node that does not resume a session, and a backend that is down, do not keep
// the client from the next node.
func TestResumeWithoutBackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.resume = "come back"
		w.hello = func(addr string, h *wire.Hello) *wire.Error {
			if h.Resume != "" && addr == "a:1" {
				return wire.Errorf(wire.CodeUnauthenticated, "it has not heard of the key")
			}
			return nil
		}
		down := error(nil)
		c, err := dial(t.Context(), Config{Addrs: []string{"a:1", "b:1"}, Token: func(context.Context) (string, error) {
			return "token", down
		}}, w.connect)
		if err != nil {
			t.Fatal(err)
		}
		down = errors.New("the backend is down")
		w.cutAll()
		time.Sleep(time.Second)
		if node, _ := c.Node(); node != "b:1" {
			t.Errorf("the node is %s", node)
		}
		c.Close()
	})
}

// A client that has lost its node asks another one first, and at once.
func TestBackAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.dial()
		f := follow(t, c, 0)
		time.Sleep(reconnectMax + 1)
		w.cutAll()
		lost := time.Now()
		w.count(1, 1)
		next(t, f, 1, 1)
		w.mu.Lock()
		if want := []string{"a:1", "b:1"}; !slices.Equal(w.dialed, want) || time.Since(lost) > 0 {
			t.Errorf("after %v it has dialled %v, want %v", time.Since(lost), w.dialed, want)
		}
		w.mu.Unlock()
		c.Close()
	})
}

// While other nodes answer, be it that they are full, a node that went mute is not asked
// for a while: that would take longer than they are full.
func TestMuteNodeIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.dial()
		full := true
		w.mu.Lock()
		w.down["a:1"] = true
		w.hello = func(string, *wire.Hello) *wire.Error {
			if full {
				return wire.Errorf(wire.CodeOverloaded, "full")
			}
			return nil
		}
		w.mu.Unlock()
		w.cutAll()
		dialled := func(addr string) (n int) {
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, a := range w.dialed {
				if a == addr {
					n++
				}
			}
			return n
		}
		time.Sleep(avoidFor - time.Second)
		if a, b := dialled("a:1"), dialled("b:1"); a != 1 || b < 3 {
			t.Errorf("the mute node was dialled %d times, the full one %d times", a, b)
		}
		time.Sleep(avoidFor)
		if dialled("a:1") == 1 {
			t.Error("the mute node is never asked again")
		}
		w.mu.Lock()
		full = false
		w.mu.Unlock()
		time.Sleep(2 * reconnectMax)
		if node, _ := c.Node(); node != "b:1" {
			t.Errorf("the node is %s", node)
		}
		c.Close()
	})
}
