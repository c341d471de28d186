package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/cmd/edge-node/internal/home"
	"github.com/starling-im/starling/edge"
	"github.com/starling-im/starling/internal/oracle"
)

// judged is a mesh of processes in which people chat, and what they saw of it
// for the oracle. At each node a user sends to each room, follows it, and asks
// how long it is; when the node is gone its user goes to another.
type judged struct {
	*devMesh
	t       *testing.T
	data    string // the folder with a folder for each node
	app     *app
	context *home.Context
	rng     *rand.Rand
	pause   time.Duration // between two sends of a lane, on average
	admin   *client.Client
	clients []*client.Client // in the order of the nodes

	rooms   []string
	rec     *oracle.Recorder
	lanes   []*lane
	leave   context.CancelFunc // ends the followers of these rooms
	watch   sync.WaitGroup
	talks   sync.WaitGroup // sends and reads
	hush    context.CancelFunc
	silent  context.Context // ends the sending
	judging int
}

// lane is what one user sends to one room.
type lane struct {
	c          *client.Client
	user, room string
	n          int
	acked      atomic.Int64 // when the newest acked send began, Unix ns
	slowest    atomic.Int64 // the longest that an ack took, ns
}

// replicas is how many each group has at least in the meshes that are judged: the
// directory has one in each region.
const replicas = 3

// openWithin is how long sends may be open when everything is whole again.
const openWithin = 30 * time.Second

// judgedMesh starts a mesh and connects its users.
func judgedMesh(t *testing.T, args ...string) *judged {
	t.Helper()
	dir, data := t.TempDir(), t.TempDir()
	m := startMesh(t, dir, data, append([]string{"--restart-after", "200ms"}, args...)...)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	j := &judged{
		devMesh: m, t: t, data: data, rng: rand.New(rand.NewPCG(seed, 1)), pause: 40 * time.Millisecond, leave: func() {},
		app: &app{home: dir, context: "default", logLevel: "error", stderr: testLog{t, "client"}},
	}
	j.hush = func() {}
	t.Cleanup(func() { // when the clients are closed, and before the nodes are killed
		j.hush()
		j.leave()
		j.talks.Wait()
		j.watch.Wait()
	})
	var err error
	if j.context, err = j.app.mesh(); err != nil {
		t.Fatal(err)
	}
	if j.admin, err = j.app.dialOperator(t.Context(), j.context); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.admin.Close() })
	for i, n := range m.Nodes {
		addrs := []string{n.QUIC}
		for k := range len(m.Nodes) - 1 {
			addrs = append(addrs, m.Nodes[(i+k+1)%len(m.Nodes)].QUIC)
		}
		j.clients = append(j.clients, j.dial("user-"+n.ID, addrs...))
	}
	return j
}

// dial connects a user, to the first address that answers.
func (j *judged) dial(user string, addrs ...string) *client.Client {
	j.t.Helper()
	token, err := mint(j.context, devApp, edge.Claims{User: user})
	if err != nil {
		j.t.Fatal(err)
	}
	c, err := j.app.dial(j.t.Context(), j.context, connection{addrs: addrs, token: token, within: openWithin})
	if err != nil {
		j.t.Fatal(err)
	}
	j.t.Cleanup(func() { _ = c.Close() })
	return c
}

// addr is where a node listens.
func (j *judged) addr(node string) string {
	return j.Nodes[slices.IndexFunc(j.Nodes, func(n readyNode) bool { return n.ID == node })].QUIC
}

// enter lets everyone leave the rooms where they are and go to others, of which
// a new history is written.
func (j *judged) enter(rooms ...string) {
	j.leave()
	j.watch.Wait()
	var ctx context.Context
	ctx, j.leave = context.WithCancel(j.t.Context())
	j.t.Cleanup(j.leave)
	j.rooms, j.rec, j.lanes = rooms, new(oracle.Recorder), nil
	for i, c := range j.clients {
		for _, room := range rooms {
			j.lanes = append(j.lanes, &lane{c: c, user: "user-" + j.Nodes[i].ID, room: room})
			j.follow(ctx, c, "follower-"+j.Nodes[i].ID, room)
		}
	}
}

func (j *judged) follow(ctx context.Context, c *client.Client, observer, room string) {
	f, err := c.Follow(ctx, room, 0)
	if err != nil {
		j.t.Fatal(err)
	}
	rec := j.rec
	j.watch.Go(func() {
		defer f.Close()
		for e, err := range f.Events(ctx) {
			if err != nil {
				if ctx.Err() == nil {
					j.t.Errorf("%s of %s: %v", observer, room, err)
				}
				return
			}
			rec.Add(seenBy(observer, e))
		}
	})
}

func seenBy(observer string, e client.Event) oracle.Seen {
	return oracle.Seen{
		Observer: observer, App: devApp, Room: e.Room, Seq: e.Seq, User: e.User, ID: e.ID,
		Hash: oracle.Sum(e.Content), At: time.Now().UnixNano(),
	}
}

// talk lets everyone send and ask until quiet.
func (j *judged) talk() {
	j.silent, j.hush = context.WithCancel(j.t.Context())
	j.t.Cleanup(j.hush)
	for _, l := range j.lanes {
		rng := rand.New(rand.NewPCG(j.rng.Uint64(), 2))
		j.talks.Go(func() {
			for j.silent.Err() == nil {
				j.send(l)
				passes(j.silent, below(rng, 2*j.pause))
			}
		})
	}
	for i, c := range j.clients {
		j.talks.Go(func() {
			for k := 0; j.silent.Err() == nil; k++ {
				j.ask(j.silent, c, "reader-"+j.Nodes[i].ID, j.rooms[k%len(j.rooms)])
				passes(j.silent, 50*time.Millisecond)
			}
		})
	}
}

// below is a random time below d.
func below(rng *rand.Rand, d time.Duration) time.Duration { return time.Duration(rng.Int64N(int64(d))) }

// passes lets d pass, or less if ctx ends.
func passes(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// send sends without waiting for the answer.
func (j *judged) send(l *lane) {
	l.n++
	j.say(l, fmt.Sprint(l.user, " says ", l.n))
}

// say sends a content as the lane's n-th.
func (j *judged) say(l *lane, content string) {
	x := oracle.Send{
		App: devApp, Room: l.room, User: l.user, Device: "one", N: l.n, ID: fmt.Sprintf("%s-%s-%d", l.user, l.room, l.n),
		Hash: oracle.Sum(content), Call: time.Now().UnixNano(), Outcome: oracle.Unknown,
	}
	j.talks.Add(1)
	l.c.Send(j.t.Context(), client.Message{Room: l.room, ID: x.ID, Content: content}, func(a client.Ack, err error) {
		defer j.talks.Done()
		var rejected *client.Rejected
		switch x.Return = time.Now().UnixNano(); {
		case err == nil:
			x.Outcome, x.Seq = oracle.Acked, a.Seq
			l.acked.Store(max(l.acked.Load(), x.Call))
			l.slowest.Store(max(l.slowest.Load(), x.Return-x.Call))
		case errors.As(err, &rejected):
			x.Outcome = oracle.Rejected
		}
		if err != nil && j.t.Context().Err() == nil { // nothing that is done here is a reason to refuse a send
			j.t.Errorf("send %s: %v", x.ID, err)
		}
		j.rec.Add(x)
	})
}

// ask asks how long a room is; the answer must be up to date.
func (j *judged) ask(ctx context.Context, c *client.Client, observer, room string) {
	read := oracle.Read{Observer: observer, App: devApp, Room: room, Linearizable: true, Call: time.Now().UnixNano()}
	page, err := c.History(ctx, room, 1<<40, 1, client.Linearizable())
	if err != nil {
		return // the room is not there yet, or time is over
	}
	read.Head, read.Return = page.Head, time.Now().UnixNano()
	j.rec.Add(read)
}

// flows waits until every lane, but for those of some nodes' users, has the ack
// of a send that began after since, and returns how long that took.
func (j *judged) flows(since time.Time, but ...string) time.Duration {
	j.t.Helper()
	waitFor(j.t, "ack for each user and room", func() bool {
		return !slices.ContainsFunc(j.lanes, func(l *lane) bool {
			return l.acked.Load() <= since.UnixNano() && !slices.Contains(but, strings.TrimPrefix(l.user, "user-"))
		})
	})
	return time.Since(since)
}

// quiet ends the talk and waits for the answers.
func (j *judged) quiet() {
	j.t.Helper()
	j.hush()
	answered := make(chan struct{})
	go func() { j.talks.Wait(); close(answered) }()
	select {
	case <-answered:
	case <-time.After(openWithin):
		j.t.Fatalf("sends or reads have no answer %v after the last", openWithin)
	}
}

// judge ends the talk, reads what there is, and lets the oracle judge it.
func (j *judged) judge() *oracle.History {
	j.t.Helper()
	j.quiet()
	j.judging++
	heads := map[string]uint64{}
	for i, c := range j.clients {
		for _, room := range j.rooms {
			heads[room] = max(heads[room], j.export(j.rec, c, fmt.Sprintf("export-%s-%d", j.Nodes[i].ID, j.judging), room))
		}
	}
	j.reach(heads)
	j.equalReplicas()
	h := j.rec.History()
	for _, f := range oracle.Check(h) {
		j.t.Errorf("%v", f)
	}
	j.diedOnly(j.t)
	return h
}

// export reads all of a room, and returns its head.
func (j *judged) export(rec *oracle.Recorder, c *client.Client, observer, room string) uint64 {
	j.t.Helper()
	read := oracle.Read{Observer: observer, App: devApp, Room: room, Linearizable: true, Complete: true, Call: time.Now().UnixNano()}
	for after, more := uint64(0), true; more; {
		ctx, cancel := context.WithTimeout(j.t.Context(), openWithin)
		page, err := c.History(ctx, room, after, 0, client.Linearizable())
		cancel()
		if err != nil {
			j.t.Fatalf("%s of %s: %v", observer, room, err)
		}
		for _, e := range page.Events {
			after = e.Seq
			rec.Add(seenBy(observer, e))
		}
		if read.Return == 0 {
			read.Return = time.Now().UnixNano() // the head was told with the first page
		}
		read.Head, more = page.Head, page.More
	}
	rec.Add(read)
	return read.Head
}

// reach waits until each follower has seen each room to its head.
func (j *judged) reach(heads map[string]uint64) {
	j.t.Helper()
	waitFor(j.t, "follower at the head of each room", func() bool {
		seen := map[string]uint64{}
		for _, e := range j.rec.History().Seen {
			seen[e.Observer+" "+e.Room] = e.Seq
		}
		for _, n := range j.names() {
			for room, head := range heads {
				if seen["follower-"+n+" "+room] < head {
					return false
				}
			}
		}
		return true
	})
}

// equalReplicas waits until all replicas of each group have applied as much,
// and have made the same of it.
func (j *judged) equalReplicas() {
	j.t.Helper()
	var groups []starling.GroupInfo
	defer func() {
		if j.t.Failed() {
			j.t.Logf("groups: %+v", groups)
		}
	}()
	waitFor(j.t, "equal replicas of each group", func() bool {
		var err error
		if groups, err = groupsOf(j.t.Context(), j.admin); err != nil {
			j.t.Fatal(err)
		}
		return !slices.ContainsFunc(groups, func(g starling.GroupInfo) bool { return !equal(g) })
	})
	for _, g := range groups {
		for _, r := range g.Replicas {
			hash, err := strconv.ParseUint(r.Hash, 16, 64)
			if err != nil {
				j.t.Errorf("group %d at %s: hash %q", g.ID, r.Node, r.Hash)
			}
			j.rec.Add(oracle.State{Node: r.Node, Group: g.ID, Applied: r.Applied, Hash: hash})
		}
	}
}

func equal(g starling.GroupInfo) bool {
	differs := func(r starling.ReplicaInfo) bool {
		return r.Hash == "" || r.Hash != g.Replicas[0].Hash || r.Applied != g.Replicas[0].Applied
	}
	return g.Leader != "" && len(g.Replicas) >= replicas && !slices.ContainsFunc(g.Replicas, differs)
}
