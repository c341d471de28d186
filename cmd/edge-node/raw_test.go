package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/starling-im/starling/edge"
	"github.com/starling-im/starling/wire"
)

// A raw client does what the SDK never would: it reads no more, or does not wait for
// answers. It is one connection.
type raw struct {
	commands io.Writer
	answers  *wire.Reader
	events   func() (*wire.Reader, error)
	close    func()
}

// A rawConfig says how a raw client connects.
type rawConfig struct {
	node, user string
	quic       bool
	takes      int    // bytes that come in without being read; 0 = as it comes
	deaf       func() // over QUIC, holds up the reading of packets; nil = nothing does
}

// rawClient connects, and says Hello.
func (j *judged) rawClient(c rawConfig) (*raw, error) {
	token, err := mint(j.context, devApp, edge.Claims{User: c.user})
	if err != nil {
		return nil, err
	}
	said, err := token(j.t.Context())
	if err != nil {
		return nil, err
	}
	roots, err := j.context.Roots()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(j.t.Context(), 30*time.Second)
	defer cancel()
	tc := &tls.Config{RootCAs: roots, ServerName: j.context.ServerName, MinVersion: tls.VersionTLS13}
	dial := c.webSocket
	if c.quic {
		dial = c.overQUIC
	}
	r, err := dial(ctx, tc)
	if err != nil {
		return nil, err
	}
	hello := &wire.Frame{Id: 1, Body: &wire.Frame_Hello{Hello: &wire.Hello{Token: said}}}
	if err := r.ask(hello); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *raw) send(f *wire.Frame) error {
	_, err := r.commands.Write(wire.AppendMessage(nil, f))
	return err
}

// ask sends and waits for the answer; there is to be nothing else to read yet.
func (r *raw) ask(f *wire.Frame) error {
	if err := r.send(f); err != nil {
		return err
	}
	a, err := r.answers.Frame()
	if err == nil && a.GetError() != nil {
		err = a.GetError()
	}
	if err == nil && a.Id != f.Id {
		err = fmt.Errorf("the answer to %d is one to %d", f.Id, a.Id)
	}
	return err
}

// follow asks for a room after a seq. Events may come before the answer, which nobody
// waits for.
func (r *raw) follow(room string, after uint64) error {
	return r.send(&wire.Frame{Id: 2, Body: &wire.Frame_Follow{Follow: &wire.Follow{Room: room, AfterSeq: after}}})
}

// read reads the seqs of events, until got says that it is enough or the connection ends.
func (r *raw) read(got func(seq uint64) (enough bool)) error {
	in, err := r.events()
	if err != nil {
		return err
	}
	for {
		p, err := in.Payload()
		if err != nil {
			return err
		}
		_, events, ok := wire.SplitEvents(p)
		if !ok {
			head := binary.BigEndian.AppendUint32([]byte{1, 0}, uint32(len(p)))
			f, err := wire.NewReader(bytes.NewReader(append(head, p...)), wire.ClientFrame).Frame()
			if err != nil {
				return err
			}
			if e := f.GetError(); e != nil {
				return e
			}
		}
		for _, e := range events {
			if got(wire.EventSeq(e)) {
				return nil
			}
		}
	}
}

func (c rawConfig) overQUIC(ctx context.Context, tc *tls.Config) (*raw, error) {
	to, err := net.ResolveUDPAddr("udp", c.node)
	if err != nil {
		return nil, err
	}
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	var packets net.PacketConn = socket
	if c.deaf != nil {
		packets = deafConn{socket, c.deaf}
	}
	tr := &quic.Transport{Conn: packets}
	tc.NextProtos = []string{"im/1"}
	conn, err := tr.Dial(ctx, to, tc, &quic.Config{
		InitialStreamReceiveWindow: uint64(c.takes), MaxStreamReceiveWindow: uint64(c.takes),
		InitialConnectionReceiveWindow: uint64(c.takes), MaxConnectionReceiveWindow: uint64(c.takes), KeepAlivePeriod: 5 * time.Second,
	})
	closeAll := func() { _ = socket.Close(); _ = tr.Close() }
	if err != nil {
		closeAll()
		return nil, err
	}
	commands, err := conn.OpenStreamSync(ctx)
	if err != nil {
		closeAll()
		return nil, err
	}
	return &raw{
		commands: commands, answers: wire.NewReader(commands, wire.ClientFrame), close: closeAll,
		events: func() (*wire.Reader, error) {
			s, err := conn.AcceptUniStream(context.Background())
			return wire.NewReader(s, wire.ClientFrame), err
		},
	}, nil
}

// deafConn does not read while it is held up.
type deafConn struct {
	net.PacketConn
	deaf func()
}

func (d deafConn) ReadFrom(p []byte) (int, net.Addr, error) {
	d.deaf()
	return d.PacketConn.ReadFrom(p)
}

// SetReadBuffer and SetWriteBuffer are what quic-go would like to do.
func (deafConn) SetReadBuffer(int) error  { return nil }
func (deafConn) SetWriteBuffer(int) error { return nil }

func (c rawConfig) webSocket(ctx context.Context, tc *tls.Config) (*raw, error) {
	d := net.Dialer{Control: func(_, _ string, s syscall.RawConn) (err error) {
		if c.takes == 0 {
			return nil
		}
		broken := s.Control(func(fd uintptr) { err = takeLittle(fd, c.takes) })
		return errors.Join(broken, err)
	}}
	conn, err := (&tls.Dialer{NetDialer: &d, Config: tc}).DialContext(ctx, "tcp", c.node)
	if err != nil {
		return nil, err
	}
	w := &rawSocket{Conn: conn, in: bufio.NewReaderSize(conn, 512)}
	if err := w.upgrade(c.node); err != nil {
		_ = conn.Close()
		return nil, err
	}
	r := &raw{commands: w, answers: wire.NewReader(w, wire.ClientFrame), close: func() { _ = conn.Close() }}
	r.events = func() (*wire.Reader, error) { return r.answers, nil }
	return r, nil
}

// rawSocket is the payload of a WebSocket's binary messages, which nobody masks: the
// mask is zeros.
type rawSocket struct {
	net.Conn
	in   *bufio.Reader
	left uint64
}

func (w *rawSocket) upgrade(host string) error {
	_, err := fmt.Fprintf(w.Conn, "GET /ws HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: %s\r\n\r\n", host, wire.WebSocketProtocol)
	if err != nil {
		return err
	}
	answer, err := http.ReadResponse(w.in, nil)
	if err == nil && answer.StatusCode != http.StatusSwitchingProtocols {
		err = fmt.Errorf("the node answers %s", answer.Status)
	}
	return err
}

func (w *rawSocket) Write(p []byte) (int, error) {
	head := append([]byte{0x82, 0x80 | 127}, binary.BigEndian.AppendUint64(nil, uint64(len(p)))...)
	head = append(head, 0, 0, 0, 0)
	_, err := w.Conn.Write(append(head, p...))
	return len(p), err
}

func (w *rawSocket) Read(p []byte) (int, error) {
	for w.left == 0 {
		var head [2]byte
		if _, err := io.ReadFull(w.in, head[:]); err != nil {
			return 0, err
		}
		w.left = uint64(head[1])
		for _, long := range []struct {
			mark  byte
			bytes int
		}{{126, 2}, {127, 8}} {
			if head[1] == long.mark {
				var n [8]byte
				if _, err := io.ReadFull(w.in, n[8-long.bytes:]); err != nil {
					return 0, err
				}
				w.left = binary.BigEndian.Uint64(n[:])
			}
		}
		if head[0]&0x0f == 8 {
			why, _ := io.ReadAll(io.LimitReader(w.in, int64(w.left)))
			return 0, fmt.Errorf("the node closes: %.100q", why)
		}
	}
	n, err := w.in.Read(p[:min(uint64(len(p)), w.left)])
	w.left -= uint64(n)
	return n, err
}

// rawClients connects n, a few at a time.
func (j *judged) rawClients(n int, config func(i int) rawConfig) (all []*raw) {
	j.t.Helper()
	all = make([]*raw, n)
	errs := make(chan error, n)
	places := make(chan struct{}, 8)
	for i := range n {
		go func() {
			places <- struct{}{}
			defer func() { <-places }()
			r, err := j.rawClient(config(i))
			all[i] = r
			errs <- err
		}()
	}
	var failed error
	for range n {
		failed = errors.Join(failed, <-errs)
	}
	j.t.Cleanup(func() {
		for _, r := range all {
			if r != nil {
				r.close()
			}
		}
	})
	if failed != nil {
		j.t.Fatal(failed)
	}
	return all
}

// healthOf is what a node says of itself.
func (j *judged) healthOf(t *testing.T, node string) (said struct {
	MaxUnsentBytes int `json:"max_unsent_bytes"`
	Sessions       int `json:"sessions"`
}) {
	t.Helper()
	roots, err := j.context.Roots()
	if err != nil {
		t.Fatal(err)
	}
	asks := http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: j.context.ServerName}}}
	answer, err := asks.Get("https://" + node + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(&said); err != nil {
		t.Fatal(err)
	}
	return said
}
