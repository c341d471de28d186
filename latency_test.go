package starling_test

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/internal/simnet"
)

// twelve are regions on all continents with people on them.
var twelve = []string{"fra", "lhr", "iad", "sjc", "gru", "jnb", "dxb", "maa", "sin", "hkg", "nrt", "syd"}

// line is one message of a log: who says what where, and when after the beginning.
type line struct {
	at         time.Duration
	room, from string
	text       string
}

// longestPause is what longer pauses in logs are cut to.
const longestPause = 20 * time.Second

// theLogs are the first so many messages of each room of chat/chat_irc.jsonl.gz in the
// folder STARLING_DATA, from its middle on; or those of the sample that is shipped, dealt
// to some rooms in turn. All rooms begin together, and pauses are cut to longestPause.
func theLogs(t *testing.T, perRoom int) (all []line) {
	t.Helper()
	type record struct {
		T                      int64
		Room, From, Kind, Text string
	}
	name := filepath.Join("cmd", "edge-node", "testdata", "sample.jsonl")
	folder := os.Getenv("STARLING_DATA")
	if folder != "" {
		name = filepath.Join(folder, "chat", "chat_irc.jsonl.gz")
	}
	f, err := os.Open(name)
	ok(t, err)
	defer f.Close()
	var r io.Reader = f
	if folder != "" {
		r, err = gzip.NewReader(f)
		ok(t, err)
	}
	said := map[string][]record{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for i := 0; lines.Scan(); i++ {
		var x record
		ok(t, json.Unmarshal(lines.Bytes(), &x))
		if folder == "" {
			x.Room = fmt.Sprint(x.Room, i%5)
		}
		if x.Kind == "message" && x.Text != "" {
			said[x.Room] = append(said[x.Room], x)
		}
	}
	ok(t, lines.Err())
	for name, records := range said {
		if folder != "" {
			records = records[len(records)/2:]
		}
		at := time.Duration(0)
		for i, x := range records[:min(perRoom, len(records))] {
			if i > 0 {
				at += min(longestPause, time.Duration(x.T-records[i-1].T)*time.Millisecond)
			}
			all = append(all, line{at, name, x.From, x.Text})
		}
	}
	slices.SortFunc(all, func(a, b line) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.room, b.room)) })
	return all
}

// bounds are the least times that deliveries can take in a world.
type bounds struct {
	w    *world
	best [][]time.Duration // one way between nodes, over any others
}

func newBounds(w *world) *bounds {
	b := &bounds{w: w, best: make([][]time.Duration, len(w.peers))}
	for i := range w.peers {
		b.best[i] = make([]time.Duration, len(w.peers))
		for k := range w.peers {
			b.best[i][k] = b.way(i, k)
		}
	}
	for via := range w.peers {
		for i := range w.peers {
			for k := range w.peers {
				b.best[i][k] = min(b.best[i][k], b.best[i][via]+b.best[via][k])
			}
		}
	}
	return b
}

// way is the time from one node straight to another.
func (b *bounds) way(i, k int) time.Duration {
	if i == k {
		return 0
	}
	addr := func(i int) netip.Addr { return netip.MustParseAddrPort(b.w.peers[i].Addr).Addr() }
	return b.w.latency(addr(i), addr(k))
}

// home is where a room is decided on.
type home struct {
	leader int
	quorum time.Duration // the round trip from the leader to the voter that completes a quorum
}

// home returns that of a room which exists.
func (b *bounds) home(room string) home {
	b.w.t.Helper()
	index := func(id string) int {
		return slices.IndexFunc(b.w.peers, func(p starling.Peer) bool { return p.ID == id })
	}
	group, err := b.w.nodes[b.w.peers[0].ID].node.GroupOf("demo", room)
	ok(b.w.t, err)
	voters := b.w.nodes[b.w.peers[0].ID].node.VotersOf(group)
	h := home{leader: index(b.w.nodes[voters[0]].node.Holds("demo", room)[group])}
	var trips []time.Duration
	for _, v := range voters {
		trips = append(trips, 2*b.way(h.leader, index(v)))
	}
	slices.Sort(trips)
	h.quorum = trips[len(voters)/2]
	return h
}

// least is the bound of a delivery.
func (b *bounds) least(from, to int, h home) time.Duration {
	return b.way(from, h.leader) + h.quorum + b.best[h.leader][to]
}

// delivery is one message that came to one region.
type delivery struct {
	from, to    int
	room        string
	sent        time.Duration
	took, least time.Duration
}

func (d delivery) ratio() float64 { return float64(d.took) / float64(d.least) }

// chatter plays logs through a mesh and notes when what was said comes where.
type chatRun struct {
	*world
	mu   sync.Mutex
	sent map[string]sending
	got  []delivery
	bad  []string
}

type sending struct {
	at   time.Time
	from int
	room string
}

// over plays logs over a network of so much loss; ordered: what goes between two nodes is in one
// stream. It returns the deliveries.
func over(t *testing.T, logs []line, loss float64, ordered bool) (all []delivery) {
	synctest.Test(t, func(t *testing.T) {
		r := &chatRun{world: newWorld(t, twelve...), sent: map[string]sending{}}
		r.net = simnet.New(t, simnet.Options{Latency: r.latency, Ordered: func(a, b netip.Addr) bool {
			return ordered && a.As4()[3] == 1 && b.As4()[3] == 1
		}})
		r.actAs = "*"
		for _, p := range r.peers {
			r.start(p.ID)
		}
		all = r.play(logs, loss)
		r.stopAll()
	})
	return all
}

func (r *chatRun) play(logs []line, loss float64) []delivery {
	t := r.t
	ctx, cancel := context.WithCancel(t.Context())
	var clients []*client.Client
	for i := range r.peers {
		clients = append(clients, r.dial(fmt.Sprint("user-", i), i))
	}
	rooms := r.rooms(logs)
	for _, room := range rooms {
		_, err := clients[0].Publish(ctx, client.Message{Room: room, ID: "first", Content: "first"})
		ok(t, err)
	}
	var watching sync.WaitGroup
	for i, c := range clients {
		for _, room := range rooms {
			f, err := c.FollowFromHead(ctx, room)
			ok(t, err)
			watching.Go(func() { r.watch(ctx, f, i) })
		}
	}
	time.Sleep(time.Minute) // ways are measured, and have lasted
	r.net.Make(simnet.Noise{Loss: loss})
	began := time.Now()
	var talk sync.WaitGroup
	for k, l := range logs {
		time.Sleep(time.Until(began.Add(l.at)))
		room, from, id := rooms[l.room], regionOf(l.from, len(r.peers)), fmt.Sprint("m", k)
		r.mu.Lock()
		r.sent[id] = sending{time.Now(), from, room}
		r.mu.Unlock()
		talk.Add(1)
		clients[from].Send(ctx, client.Message{Room: room, ID: id, Content: l.text, ActAs: l.from}, func(_ client.Ack, err error) {
			defer talk.Done()
			if err != nil {
				t.Errorf("%s: %v", id, err)
			}
		})
	}
	talk.Wait()
	r.net.Make(simnet.Noise{})
	time.Sleep(10 * time.Second)
	r.bound(rooms)
	cancel()
	watching.Wait()
	for _, c := range clients {
		_ = c.Close()
	}
	if want := len(logs) * len(clients); len(r.got) != want {
		t.Errorf("%d deliveries, want %d", len(r.got), want)
	}
	return r.got
}

// rooms are those of logs, each at home in another region.
func (r *chatRun) rooms(logs []line) map[string]string {
	of := map[string]string{}
	for _, l := range logs {
		if of[l.room] == "" {
			clean := strings.NewReplacer("#", "", "/", "-").Replace(l.room)
			of[l.room] = fmt.Sprintf("~%s/%s", r.peers[len(of)*5%len(r.peers)].Region, clean)
		}
	}
	return of
}

// regionOf says where somebody is.
func regionOf(user string, regions int) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(user))
	return int(h.Sum32() % uint32(regions))
}

func (r *chatRun) watch(ctx context.Context, f *client.Follow, to int) {
	for {
		e, err := f.Next(ctx)
		if err != nil {
			return
		}
		r.mu.Lock()
		if s, ok := r.sent[e.ID]; ok {
			r.got = append(r.got, delivery{from: s.from, to: to, room: s.room, took: time.Since(s.at)})
		}
		r.mu.Unlock()
	}
}

// bound sets the least times of what was delivered.
func (r *chatRun) bound(rooms map[string]string) {
	b, homes := newBounds(r.world), map[string]home{}
	for _, room := range rooms {
		homes[room] = b.home(room)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.got {
		d := &r.got[i]
		d.least = b.least(d.from, d.to, homes[d.room])
	}
}

// TestLatency
func TestLatency(t *testing.T) {
	logs := theLogs(t, 60)
	began := time.Now()
	got := over(t, logs, 0.001, false)
	t.Logf("%d in %v", len(got), time.Since(began))
	slices.SortFunc(got, func(a, b delivery) int { return cmp.Compare(a.ratio(), b.ratio()) })
	for _, q := range []float64{0, 0.5, 0.9, 0.99, 0.999} {
		d := got[int(q*float64(len(got)))]
		t.Logf("%v: %.3f %v of %v", q, d.ratio(), d.took, d.least)
	}
	for _, d := range got[len(got)-len(got)/50:] {
		t.Logf("%.3f %v of %v: %s to %s in %s", d.ratio(), d.took, d.least, twelve[d.from], twelve[d.to], d.room)
	}
}
