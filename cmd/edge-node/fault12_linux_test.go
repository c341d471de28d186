package main

import (
	"context"
	"crypto/tls"
	"fmt"
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

// crowd is how many clients come back at once.
const crowd = 2000

// A node with 2,000 clients is killed. All are back on the other nodes soon, with
// every message, and those who were there all the time hardly notice.
func TestFault12StormOfClients(t *testing.T) {
	j := judgedMesh(t, "--restart-after", "1h")
	died, rest := j.Nodes[0], j.Nodes[1:]
	var clients []*client.Client
	var mu sync.Mutex
	why := map[string]int{}
	var dials, refused atomic.Int64
	sockets := make([]*quic.Transport, 50)
	for i := range sockets {
		sockets[i] = transport(t, byte(i+1))
	}
	var work sync.WaitGroup
	roots, err := j.context.Roots()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for worker := range 64 {
		work.Go(func() {
			for i := worker; i < crowd; i += 64 {
				token, err := mint(j.context, devApp, edge.Claims{User: fmt.Sprint("crowd-", i)})
				if err != nil {
					t.Error(err)
					return
				}
				c, err := client.Dial(t.Context(), client.Config{
					Addrs: []string{died.QUIC, rest[i%len(rest)].QUIC, rest[(i+1)%len(rest)].QUIC}, Token: token,
					RootCAs: roots, ServerName: j.context.ServerName, Heartbeat: 500 * time.Millisecond,
					Dial: func(ctx context.Context, addr string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
						to, err := net.ResolveUDPAddr("udp", addr)
						if err != nil {
							return nil, err
						}
						dials.Add(1)
						conn, err := sockets[i%len(sockets)].Dial(ctx, to, tc, qc)
						if err != nil {
							refused.Add(1)
							mu.Lock()
							why[fmt.Sprint(addr == died.QUIC, err)]++
							mu.Unlock()
						}
						return conn, err
					},
				})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				clients = append(clients, c)
				mu.Unlock()
			}
		})
	}
	work.Wait()
	t.Cleanup(func() {
		for _, c := range clients {
			work.Go(func() { _ = c.Close() })
		}
		work.Wait()
	})
	t.Logf("%d clients connected in %v: %d dials, %d failed", len(clients), time.Since(began), dials.Swap(0), refused.Swap(0))
	room := "~" + rest[1].Region + "/square"
	speaker := j.clients[1]
	if _, err := speaker.Publish(t.Context(), client.Message{Room: room, Content: "welcome"}); err != nil {
		t.Fatal(err)
	}
	back := make(chan time.Duration, crowd)
	var struck, said atomic.Int64
	for _, c := range clients {
		f, err := c.Follow(t.Context(), room, 1)
		if err != nil {
			t.Fatal(err)
		}
		work.Go(func() {
			defer f.Close()
			e, err := f.Next(t.Context())
			if err != nil || e.Seq != 2 {
				t.Errorf("the next event is %d, %v", e.Seq, err)
			}
			back <- time.Since(time.Unix(0, struck.Load()))
		})
	}
	calm := j.acks(speaker, 2*time.Second)
	struck.Store(time.Now().UnixNano())
	j.strike(t, os.Kill, died.ID)
	if _, err := speaker.Publish(t.Context(), client.Message{Room: room, Content: "who is there?"}); err != nil {
		t.Fatal(err)
	}
	_ = said.Load()
	storm := make(chan []time.Duration)
	go func() { storm <- j.acks(speaker, 5*time.Second) }()
	var times []time.Duration
	for len(times) < crowd {
		select {
		case d := <-back:
			times = append(times, d)
		case <-time.After(30 * time.Second):
			t.Fatalf("%d of %d clients are back after 30 s", len(times), crowd)
		}
	}
	slices.Sort(times)
	others := <-storm
	t.Logf("%d clients are back after %v (median), %v (99 %%), %v (all); %d dials, %d failed", crowd,
		times[crowd/2], times[crowd*99/100], times[crowd-1], dials.Load(), refused.Load())
	t.Log(why)
	t.Logf("acks of others: %v before, %v in the storm (99 %%)", p99(calm), p99(others))
}

// acks sends to a room of its own for a while, and returns how long acks took.
func (j *judged) acks(c *client.Client, d time.Duration) (took []time.Duration) {
	for until := time.Now().Add(d); time.Now().Before(until); passes(j.t.Context(), 10*time.Millisecond) {
		began := time.Now()
		if _, err := c.Publish(j.t.Context(), client.Message{Room: "~sin/quiet", Content: "hush"}); err != nil {
			j.t.Error(err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took
}

func p99(sorted []time.Duration) time.Duration { return sorted[len(sorted)*99/100] }

// transport is a socket that many clients share.
func transport(t *testing.T, host byte) *quic.Transport {
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 1, host)})
	if err != nil {
		t.Fatal(err)
	}
	tr := &quic.Transport{Conn: socket}
	t.Cleanup(func() { _ = tr.Close(); _ = socket.Close() })
	return tr
}
