package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/edge"
)

// crowd is how many clients come back at once: 2,000 with STARLING_LONG. All share this
// machine's processors with the nodes, and with whatever else is tested. crowdFrom is from
// how many addresses.
var crowd = func() int {
	if os.Getenv("STARLING_LONG") != "" {
		return 2000
	}
	return 300
}()

const crowdFrom = 50

// storm is a crowd, and what it costs to let it in.
type storm struct {
	*judged
	sockets []*quic.Transport
	clients []*client.Client

	tokens, dials, failed, resumed atomic.Int64
}

// A node with a crowd of clients is killed. All are back on the other nodes soon, without a
// new token and with every message; nobody is refused for good, and those who were on
// the other nodes stay there.
func TestFault12StormOfClients(t *testing.T) {
	s := &storm{judged: judgedMesh(t, "--restart-after", "1h")}
	died, rest := s.Nodes[0], s.Nodes[1:]
	for i := range crowdFrom {
		s.sockets = append(s.sockets, transport(t, net.IPv4(127, 0, 1, byte(i+1))))
	}
	began := time.Now()
	s.connect(died.QUIC, rest[0].QUIC, rest[1].QUIC)
	t.Logf("%d clients have come in %v: %d dials, %d failed", crowd, time.Since(began), s.dials.Swap(0), s.failed.Swap(0))

	speaker, room := s.judged.clients[1], "~"+rest[0].Region+"/square"
	if _, err := speaker.Publish(t.Context(), client.Message{Room: room, Content: "welcome"}); err != nil {
		t.Fatal(err)
	}
	back, killed := make(chan time.Time, crowd), time.Time{}
	var watch sync.WaitGroup
	defer watch.Wait()
	for _, c := range s.clients {
		f, err := c.Follow(t.Context(), room, 1)
		if err != nil {
			t.Fatal(err)
		}
		watch.Go(func() {
			defer f.Close()
			if e, err := f.Next(t.Context()); err != nil || e.Seq != 2 {
				t.Errorf("the next event is %d, %v", e.Seq, err)
			}
			back <- time.Now()
		})
	}
	calm := s.acks(speaker, time.Second)
	killed = time.Now()
	s.strike(t, os.Kill, died.ID)
	if _, err := speaker.Publish(t.Context(), client.Message{Room: room, Content: "who is there?"}); err != nil {
		t.Fatal(err)
	}
	others := s.acks(speaker, 3*time.Second)
	var took []time.Duration
	for late := time.After(time.Minute); len(took) < crowd; {
		select {
		case at := <-back:
			took = append(took, at.Sub(killed))
		case <-late:
			t.Fatalf("%d of %d clients are back after a minute", len(took), crowd)
		}
	}
	slices.Sort(took)
	t.Logf("%d clients are back after %v (half), %v (99 %%), %v (all); %d dials, %d failed, %d resumed TLS", crowd,
		took[crowd/2], took[crowd*99/100], took[crowd-1], s.dials.Load(), s.failed.Load(), s.resumed.Load())
	t.Logf("acks of others at 99 %%: %v before, %v in the storm", calm[len(calm)*99/100], others[len(others)*99/100])
	if n := s.tokens.Load(); n != int64(crowd) {
		t.Errorf("%d tokens were asked for", n)
	}
	for _, c := range s.judged.clients[1:] {
		if ends := c.Ends(); ends != (client.Ends{}) {
			t.Errorf("the sessions of others ended: %+v", ends)
		}
	}
}

// connect has the crowd come to the first of some nodes.
func (s *storm) connect(first, second, third string) {
	var work sync.WaitGroup
	s.clients = make([]*client.Client, crowd)
	addrs := [][]string{{first, second, third}, {first, third, second}}
	for worker := range crowdFrom {
		work.Go(func() {
			for i := worker; i < crowd; i += crowdFrom {
				c, err := s.one(i, addrs[i/crowdFrom%2])
				if err != nil {
					s.t.Error(err)
					return
				}
				s.clients[i] = c
			}
		})
	}
	s.t.Cleanup(func() {
		for _, c := range s.clients {
			if c != nil {
				work.Go(func() { _ = c.Close() })
			}
		}
		work.Wait()
	})
	work.Wait()
	if s.t.Failed() {
		s.t.FailNow()
	}
}

// one connects the i-th of the crowd.
func (s *storm) one(i int, addrs []string) (*client.Client, error) {
	token, err := mint(s.context, devApp, edge.Claims{User: fmt.Sprint("crowd-", i)})
	if err != nil {
		return nil, err
	}
	roots, err := s.context.Roots()
	if err != nil {
		return nil, err
	}
	return client.Dial(s.t.Context(), client.Config{
		Addrs: addrs, RootCAs: roots, ServerName: s.context.ServerName, Heartbeat: 500 * time.Millisecond,
		Token: func(ctx context.Context) (string, error) {
			s.tokens.Add(1)
			return token(ctx)
		},
		Dial: func(ctx context.Context, addr string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
			to, err := net.ResolveUDPAddr("udp", addr)
			if err != nil {
				return nil, err
			}
			s.dials.Add(1)
			conn, err := s.sockets[i%crowdFrom].Dial(ctx, to, tc, qc)
			switch {
			case err != nil:
				s.failed.Add(1)
			case conn.ConnectionState().TLS.DidResume:
				s.resumed.Add(1)
			}
			return conn, err
		},
	})
}

// acks sends for a while, and returns how long acks took, in order of that.
func (j *judged) acks(c *client.Client, d time.Duration) (took []time.Duration) {
	for until := time.Now().Add(d); time.Now().Before(until); passes(j.t.Context(), 10*time.Millisecond) {
		began := time.Now()
		if _, err := c.Publish(j.t.Context(), client.Message{Room: "~" + j.Nodes[1].Region + "/quiet", Content: "hush"}); err != nil {
			j.t.Error(err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took
}

// transport is a socket that many clients share. The system does not tell it that
// nobody listens where a node was.
func transport(t *testing.T, ip net.IP) *quic.Transport {
	t.Helper()
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: ip})
	if err != nil {
		t.Fatal(err)
	}
	tr := &quic.Transport{Conn: socket}
	t.Cleanup(func() { _ = tr.Close(); _ = socket.Close() })
	return tr
}

// A node is killed and started again. A client that it had hears of that from the new
// process, in answer to its next packet, and is back in its session at once.
func TestKilledNodeIsNoticed(t *testing.T) {
	j := judgedMesh(t)
	tr, node := transport(t, net.IPv4(127, 0, 0, 1)), j.Nodes[0]
	roots, err := j.context.Roots()
	if err != nil {
		t.Fatal(err)
	}
	token, err := mint(j.context, devApp, edge.Claims{User: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	to, err := net.ResolveUDPAddr("udp", node.QUIC)
	if err != nil {
		t.Fatal(err)
	}
	why := &ends{Handler: slog.DiscardHandler}
	c, err := client.Dial(t.Context(), client.Config{
		Addrs: []string{node.QUIC}, RootCAs: roots, ServerName: j.context.ServerName, Token: token, Heartbeat: -1, Log: slog.New(why),
		Dial: func(ctx context.Context, _ string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
			return tr.Dial(ctx, to, tc, qc)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	j.strike(t, os.Kill, node.ID)
	j.back(t)
	_ = j.dial("bob", node.QUIC).Close() // when it lets clients in again
	began := time.Now()
	if _, err := c.Query(t.Context(), "a question that no node knows and that is not short"); err == nil {
		t.Error("a node knew it")
	}
	t.Logf("the client was answered by the new process after %v", time.Since(began))
	var reset *quic.StatelessResetError
	if first := why.first(); !errors.As(first, &reset) {
		t.Errorf("the session ended with %v", first)
	}
}

// ends keeps why the first session of a client ended.
type ends struct {
	slog.Handler
	mu  sync.Mutex
	why error
}

func (e *ends) Enabled(context.Context, slog.Level) bool { return true }

func (e *ends) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		if err, ok := a.Value.Any().(error); ok && e.why == nil {
			e.why = err
		}
		return true
	})
	return nil
}

func (e *ends) first() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.why
}
