package starling_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/geo"
	"github.com/starling-im/starling/wire"
)

// farCrowd is a room of Frankfurt, with its replicas on three of the nodes there, and those
// who follow it on every node of the mesh.
type farCrowd struct {
	*world
	room string
	sent *client.Client
	got  atomic.Int64
	all  sync.WaitGroup
	end  context.CancelFunc
	ctx  context.Context
}

func newFarCrowd(t *testing.T, before func(*starling.Node), regions ...string) *farCrowd {
	x := &farCrowd{world: newWorld(t, regions...), room: "~fra/lobby"}
	x.survive, x.before = geo.SurviveNode, before
	x.ctx, x.end = context.WithCancel(t.Context())
	for _, p := range x.peers {
		x.start(p.ID)
	}
	x.sent = x.dial("alice", 0)
	x.say(1)
	return x
}

func (x *farCrowd) say(many int) {
	for k := range many {
		_, err := x.sent.Publish(x.ctx, client.Message{Room: x.room, Content: fmt.Sprint("hello ", k)})
		ok(x.t, err)
	}
}

// follow has sessions on each node in turn follow the room, each so many times: each
// follow is a cursor of its own, and is written what it is owed.
func (x *farCrowd) follow(sessions, times int) {
	var asking sync.WaitGroup
	for i := range sessions {
		here, there := net.Pipe()
		node := x.nodes[x.peers[i%len(x.peers)].ID].node
		x.all.Go(func() {
			if err := node.Serve(x.ctx, there, "demo", fmt.Sprint("user-", i)); err != nil && x.ctx.Err() == nil && !errors.Is(err, io.EOF) {
				x.t.Errorf("session %d: %v", i, err)
			}
		})
		s := client.NewSession(client.SessionConfig{Commands: here, OnEvents: func(_ uint64, events [][]byte) { x.got.Add(int64(len(events))) }})
		x.all.Go(func() { _ = s.Run(x.ctx) })
		asking.Go(func() {
			for range times {
				for x.ask(s) != nil { // the node it is asked of has much to do
					time.Sleep(100 * time.Millisecond)
				}
			}
		})
	}
	asking.Wait()
}

func (x *farCrowd) ask(s *client.Session) error {
	a, err := s.Ask(x.ctx, &wire.Frame{Body: &wire.Frame_Follow{Follow: &wire.Follow{Room: x.room, FromHead: true}}})
	if err == nil && a.GetFollowed() == nil {
		x.t.Errorf("a %T answers a follow", a.Body)
	}
	if err != nil && !wire.AsError(err).Retryable {
		x.t.Error(err)
		return nil
	}
	return err
}

func (x *farCrowd) stop() {
	x.end()
	x.all.Wait()
	ok(x.t, x.sent.Close())
	x.stopAll()
}

// leaving counts the copies of events that have left each node of a region, to other nodes,
// by relay or as entries of the log.
func (w *world) leaving(region string) (copies uint64) {
	w.t.Helper()
	answer, err := w.nodes[w.peers[0].ID].node.Operate(w.t.Context(), "links")
	ok(w.t, err)
	var links []starling.LinkInfo
	ok(w.t, json.Unmarshal(answer, &links))
	for _, l := range links {
		if from, _, _ := strings.Cut(l.From, "-"); from == region {
			copies += l.Events
		}
	}
	return copies
}

// TestCopies shows that what leaves a room's home does not grow with those who follow it: a
// copy to each far region and to each other node there, at most.
func TestCopies(t *testing.T) {
	t.Parallel()
	regions := []string{"fra", "fra", "fra", "fra", "iad", "iad", "sin", "sin", "gru"}
	far, local := 3, 4
	crowds := [][2]int{{1000, 1}}
	if os.Getenv("STARLING_LONG") != "" {
		regions, far, local = append([]string{"fra", "fra", "fra"}, twelve...), 11, 4
		crowds = [][2]int{{1000, 1}, {1000, 100}, {1000, 1000}}
	}
	for _, crowd := range crowds {
		followers := crowd[0] * crowd[1]
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			x := newFarCrowd(t, nil, regions...)
			time.Sleep(30 * time.Second)
			x.follow(crowd[0], crowd[1])
			t.Logf("%d followers are there after %v", followers, time.Since(began))
			time.Sleep(30 * time.Second)
			const said = 10
			before := x.leaving("fra")
			x.say(said)
			time.Sleep(10 * time.Second)
			copies := float64(x.leaving("fra")-before) / said
			t.Logf("%d followers: %.2f copies of an event leave its home; %d regions, %d nodes at home", followers, copies, far, local)
			if copies > float64(far+local) {
				t.Errorf("%d followers: %.2f copies of an event, more than %d", followers, copies, far+local)
			}
			if got := x.got.Load(); got != int64(said*followers) {
				t.Errorf("%d followers got %d events, not %d", followers, got, said*followers)
			}
			x.stop()
		})
	}
}
