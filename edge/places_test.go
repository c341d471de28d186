package edge

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/starling-im/starling/wire"
)

// attend is echo until the door ends the session, and then says why, as sessions do.
func attend(ctx context.Context, c Client) error {
	defer context.AfterFunc(ctx, func() { _ = c.Commands.SetReadDeadline(time.Unix(1, 0)) })()
	err := echo(ctx, c)
	var said *wire.Error
	if errors.As(context.Cause(ctx), &said) {
		_, _ = c.Commands.Write(wire.AppendMessage(nil, &wire.Frame{Body: &wire.Frame_Error{Error: said}}))
		return said
	}
	return err
}

// small has room for two connections of a user, and gives resume tokens.
func small(c *Config) { c.PerUser, c.Secret = 2, []byte(strings.Repeat("c", 32)) }

// says comes in with a Hello, and returns the answer.
func (h *house) says(hello *wire.Hello) (*guest, *wire.Frame) {
	h.Helper()
	g := h.come(binary(wire.AppendMessage(nil, &wire.Frame{Id: 1, Body: &wire.Frame_Hello{Hello: hello}})))
	return g, g.hear()
}

// as is the Hello of a user with a token of its own.
func as(t *testing.T, k Key, c Claims) *wire.Hello {
	c.Expires = time.Now().Add(time.Hour)
	return &wire.Hello{Token: mint(t, k, c)}
}

// A client whose connections are lost without a word comes back as often as it likes: it takes
// the place of the connection that it had, which is told if it is still there. Nobody else
// loses anything by it.
func TestResumedSessionTakesItsPlace(t *testing.T) {
	h := openTCP(t, attend, small)
	other, f := h.says(as(t, key, Claims{User: "alice"}))
	if f.GetWelcome() == nil {
		t.Fatalf("heard %v", f)
	}
	ghost, f := h.says(as(t, key, Claims{User: "alice"}))
	session := f.GetWelcome().GetSession()
	for range 5 {
		resume := f.GetWelcome().GetResumeToken()
		var back *guest
		if back, f = h.says(&wire.Hello{Resume: resume}); f.GetWelcome().GetSession() != session {
			t.Fatalf("heard %v, want the session %s", f, session)
		}
		if f := ghost.hear(); f.GetError().GetCode() != wire.CodeConflict {
			t.Errorf("the connection of before hears %v", f)
		}
		if code := ghost.goodbye(); code != wire.CloseConflict {
			t.Errorf("the connection of before ends with %d", code)
		}
		ghost = back
	}
	for name, g := range map[string]*guest{"the last": ghost, "another session of the user": other} {
		g.write(binary(say(7, "hi")))
		if f := g.hear(); f.Id != 7 {
			t.Errorf("%s hears %v", name, f)
		}
	}
	if _, f := h.says(as(t, key, Claims{User: "alice"})); f.GetError().GetCode() != wire.CodeTooMany {
		t.Errorf("a third session of the user hears %v", f)
	}
	if ended := h.Stats().Ended[wire.CodeConflict]; ended != 5 {
		t.Errorf("%d sessions have ended with %s, want 5", ended, wire.CodeConflict)
	}
}

// Who has another user's session id, or that of another app, does not end that session.
func TestResumedSessionIsOnesOwn(t *testing.T) {
	elsewhere := Key{ID: "e", App: "else", Secret: key.Secret}
	h := openTCP(t, attend, small, func(c *Config) { c.Key = keys(key, elsewhere) })
	alice, f := h.says(as(t, key, Claims{User: "alice"}))
	for name, c := range map[string]*caller{
		"another user": {Identity: Identity{App: "demo", User: "mallory"}, key: key},
		"another app":  {Identity: Identity{App: "else", User: "alice"}, key: elsewhere},
	} {
		c.session, c.claims = f.GetWelcome().GetSession(), Claims{User: c.User, Expires: time.Now().Add(time.Hour)}
		if _, f := h.says(&wire.Hello{Resume: h.resumeToken(c)}); f.GetWelcome().GetSession() != c.session {
			t.Fatalf("%s: heard %v", name, f)
		}
		alice.write(binary(say(7, "hi")))
		if f := alice.hear(); f.Id != 7 {
			t.Errorf("after %s has come with the session's id, it hears %v", name, f)
		}
	}
}

// However many connections an app has, others find places: here three that each take all
// that they get, with tokens of servers, which PerUser does not bound.
func TestAppsLeavePlaces(t *testing.T) {
	apps := []Key{{ID: "a", App: "a"}, {ID: "b", App: "b"}, {ID: "c", App: "c"}}
	for i := range apps {
		apps[i].Secret = key.Secret
	}
	h := openTCP(t, attend, func(c *Config) { c.Connections, c.Key = 16, keys(apps...) })
	for i, places := range []int{12, 3, 1} {
		server := as(t, apps[i], Claims{User: "server", ActAs: "*"})
		for n := range places {
			if _, f := h.says(server); f.GetWelcome() == nil {
				t.Fatalf("connection %d of app %s hears %v", n+1, apps[i].App, f)
			}
		}
		if i == 2 {
			break // the node is full
		}
		g, f := h.says(server)
		if e := f.GetError(); e.GetCode() != wire.CodeTooMany || e.Limit != uint64(places) {
			t.Fatalf("one more of app %s hears %v, want a limit of %d", apps[i].App, f, places)
		}
		g.goodbye() // its place is free again
	}
}

// keys finds these.
func keys(all ...Key) func(kid string) (Key, bool, bool) {
	return func(kid string) (Key, bool, bool) {
		for _, k := range all {
			if k.ID == kid {
				return k, true, true
			}
		}
		return Key{}, false, true
	}
}
