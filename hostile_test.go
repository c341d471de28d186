package starling_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/edge"
	"github.com/starling-im/starling/identity"
	"github.com/starling-im/starling/mesh"
	"github.com/starling-im/starling/wire"
)

// tokenFor mints a token of the demo app, or of whatever key a test has.
func tokenFor(t *testing.T, k edge.Key, life time.Duration) string {
	s, err := edge.Mint(k, edge.Claims{User: "mallory", Expires: time.Now().Add(life)})
	ok(t, err)
	return s
}

// raw connects to the first node without the client library.
func (w *world) raw() *quic.Conn {
	w.next++
	tr := &quic.Transport{Conn: w.net.Conn(fmt.Sprintf("10.0.0.%d:9000", 10+w.next))}
	w.t.Cleanup(func() { _ = tr.Close() })
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	addr, err := net.ResolveUDPAddr("udp", w.peers[0].Addr)
	ok(w.t, err)
	conn, err := tr.Dial(ctx, addr, &tls.Config{RootCAs: w.roots, ServerName: identity.ServerName("sim"), NextProtos: []string{mesh.ALPNClient}, MinVersion: tls.VersionTLS13},
		&quic.Config{DisablePathMTUDiscovery: true, KeepAlivePeriod: 5 * time.Second})
	ok(w.t, err)
	return conn
}

// refusal sends bytes on a fresh connection and returns the code of the error
// that answers them, and the code with which the connection is closed.
func (w *world) refusal(bytes []byte) (code string, closed uint64) {
	conn := w.raw()
	s, err := conn.OpenStreamSync(w.t.Context())
	ok(w.t, err)
	_, err = s.Write(bytes)
	ok(w.t, err)
	f, err := wire.NewReader(s, wire.ClientFrame).Frame()
	if err == nil {
		code = f.GetError().GetCode()
	}
	<-conn.Context().Done()
	var app *quic.ApplicationError
	if errors.As(context.Cause(conn.Context()), &app) {
		closed = uint64(app.ErrorCode)
	}
	return code, closed
}

func hello(token string) []byte {
	return wire.AppendMessage(nil, &wire.Frame{Id: 1, Body: &wire.Frame_Hello{Hello: &wire.Hello{Token: token}}})
}

// Whoever cannot say who they are, or does not speak the protocol, is told so
// by a typed error and a close code that says whether to come back.
func TestDoorRefuses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "fra", "iad", "sin")
		for _, p := range w.peers {
			w.start(p.ID)
		}
		c := w.dial("alice", 0)
		_, err := c.Publish(t.Context(), client.Message{Room: "lobby", Content: "the mesh is up"})
		ok(t, err)
		defer w.stopAll()
		defer c.Close()

		foreign := w.key
		foreign.Secret = []byte(strings.Repeat("x", 32))
		unknown := foreign
		unknown.ID = "no-such-key"
		otherApp := w.key
		otherApp.App = "other"
		good := tokenFor(t, w.key, time.Hour)
		none := "eyJhbGciOiJub25lIiwia2lkIjoiZGVtby0xIn0." + strings.Split(good, ".")[1] + "."
		huge := []byte{wire.Version, 0, 0xff, 0xff, 0xff, 0xff}
		for _, x := range []struct {
			name   string
			bytes  []byte
			code   string
			closed uint64
		}{
			{"no token", hello(""), wire.CodeUnauthenticated, wire.CloseUnauthenticated},
			{"not a token", hello("abc"), wire.CodeUnauthenticated, wire.CloseUnauthenticated},
			{"signed with a wrong secret", hello(tokenFor(t, foreign, time.Hour)), wire.CodeUnauthenticated, wire.CloseUnauthenticated},
			{"signed by nobody known", hello(tokenFor(t, unknown, time.Hour)), wire.CodeUnauthenticated, wire.CloseUnauthenticated},
			{"for another app than the key's", hello(tokenFor(t, otherApp, time.Hour)), wire.CodeUnauthenticated, wire.CloseUnauthenticated},
			{"alg none", hello(none), wire.CodeUnauthenticated, wire.CloseUnauthenticated},
			{"expired", hello(tokenFor(t, w.key, -time.Minute)), wire.CodeTokenExpired, wire.CloseTokenExpired},
			{"not Hello", wire.AppendMessage(nil, &wire.Frame{Id: 1, Body: &wire.Frame_Query{Query: &wire.Query{}}}), wire.CodeProtocol, wire.CloseProtocol},
			{"a frame too large", huge, wire.CodeTooLarge, wire.CloseProtocol},
			{"a frame too large after Hello", append(hello(good), huge...), "", wire.CloseProtocol},
			{"a newer frame", []byte{wire.Version + 1, 0, 0, 0, 0, 0}, wire.CodeProtocol, wire.CloseProtocol},
			{"not our protocol", []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), wire.CodeProtocol, wire.CloseProtocol},
			{"silence, not even a stream to answer on", nil, "", wire.CloseOverloaded},
		} {
			code, closed := w.refusal(x.bytes)
			if code != x.code || closed != x.closed {
				t.Errorf("%s: code %q, close %d; want %q, %d", x.name, code, closed, x.code, x.closed)
			}
		}
	})
}

// What a member of the app may not do is refused by its own code, and the
// session goes on.
func TestSendsThatAreRejected(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "fra", "iad", "sin")
		for _, p := range w.peers {
			w.start(p.ID)
		}
		c := w.dial("alice", 0)
		defer w.stopAll()
		defer c.Close()
		_, err := c.Publish(t.Context(), client.Message{Room: "lobby", ID: "1", Content: "one"})
		ok(t, err)
		for _, x := range []struct {
			name string
			m    client.Message
			code string
		}{
			{"a room with control characters", client.Message{Room: "lob\tby", Content: "x"}, wire.CodeBadRequest},
			{"a room without a name", client.Message{Content: "x"}, wire.CodeBadRequest},
			{"a room with a long name", client.Message{Room: strings.Repeat("r", 129), Content: "x"}, wire.CodeBadRequest},
			{"content above the limit", client.Message{Room: "lobby", Content: strings.Repeat("x", wire.Content+1)}, wire.CodeTooLarge},
			{"another user's name", client.Message{Room: "lobby", Content: "x", ActAs: "bob"}, wire.CodeForbidden},
			{"an id used for something else", client.Message{Room: "lobby", ID: "1", Content: "two"}, wire.CodeConflict},
		} {
			_, err := c.Publish(t.Context(), x.m)
			var rejected *client.Rejected
			if !errors.As(err, &rejected) || rejected.Err.Code != x.code {
				t.Errorf("%s: %v, want %s", x.name, err, x.code)
			}
		}
		ack, err := c.Publish(t.Context(), client.Message{Room: "lobby", ID: "1", Content: "one"})
		if err != nil || !ack.Duplicate || ack.Seq != 1 {
			t.Errorf("the same message again: %+v, %v; want seq 1, a duplicate", ack, err)
		}
		for _, what := range []string{"members", "groups", "links"} {
			if _, err := c.Query(t.Context(), what); wire.Code(err) != wire.CodeForbidden {
				t.Errorf("a user's query %q: %v, want %s", what, err, wire.CodeForbidden)
			}
		}
	})
}
