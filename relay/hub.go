package relay

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// Duty is what other nodes that follow a room here count on this node for: from 0,
// nothing, to what package geo has. A greater one includes the smaller ones.
type Duty int

// Feed is where a hub's events come from; the node supplies it.
type Feed interface {
	// Run calls Hub.Begin, then Hub.Append with every event after that, until
	// ctx ends. After a break it goes on after last(), if that is known.
	// duty is what others count on this node for, see Duty.
	Run(ctx context.Context, id room.ID, duty Duty, last func() (seq uint64, known bool))
	// Read returns encoded events after a position in order, at most max
	// bytes of them but one if there is one; none if there are none yet.
	Read(ctx context.Context, id room.ID, after uint64, max int) ([][]byte, error)
	// Head returns the newest seq of a room, 0 if there is none, and its epoch or
	// that in which it would be made.
	Head(ctx context.Context, id room.ID) (head, epoch uint64, err error)
}

// HubConfig bounds a hub; zero fields get defaults.
type HubConfig struct {
	Feed Feed
	// TailBytes bounds the tail of one room (default 1 MiB).
	TailBytes int
	// NodeBytes bounds the tails of all rooms (default 256 MiB): above it every
	// tail is halved, oldest events first.
	NodeBytes int64
	// Topics bounds the rooms that are followed (default 262,144). While more than half of
	// them are, an app may have its share alone.
	Topics int
	// FetchedBytes bounds the history that waits in sessions until their peers read
	// (default 64 MiB): above it a session reads again what it could not send at once.
	FetchedBytes int64
	// Traced is called after each write for each traced event in it (wire.EventTrace),
	// with the peer and when the write began; nil = nobody wants to know.
	Traced func(event []byte, to Peer, begun time.Time)
}

// Hub holds the topics of a node.
type Hub struct {
	cfg   HubConfig
	pump  *pump
	stats stats
	bytes atomic.Int64
	// trimming: somebody makes the tails smaller.
	trimming atomic.Bool

	// fetched is the history that sessions hold.
	fetched atomic.Int64

	mu        sync.Mutex
	topics    map[room.ID]*topic
	apps      apps // that the topics are of
	followers int
	feeds     sync.WaitGroup
	ctx       context.Context // of reads of history
	cancel    context.CancelFunc
}

// NewHub returns a hub without topics. It starts nothing.
func NewHub(cfg HubConfig) *Hub {
	cfg.TailBytes = cmp.Or(cfg.TailBytes, 1<<20)
	cfg.NodeBytes = cmp.Or(cfg.NodeBytes, 256<<20)
	cfg.Topics = cmp.Or(cfg.Topics, 256<<10)
	cfg.FetchedBytes = cmp.Or(cfg.FetchedBytes, 64<<20)
	h := &Hub{cfg: cfg, topics: make(map[room.ID]*topic), apps: newApps(cfg.Topics)}
	h.pump = newPump(&h.stats)
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h
}

// Append gives the hub a room's event. It costs nothing if nobody follows.
func (h *Hub) Append(id room.ID, seq uint64, event []byte) {
	h.mu.Lock()
	t := h.topics[id]
	h.mu.Unlock()
	if t != nil {
		t.append(seq, event)
		h.bound()
	}
}

// bound halves all tails if together they are too large.
func (h *Hub) bound() {
	if h.bytes.Load() <= h.cfg.NodeBytes || !h.trimming.CompareAndSwap(false, true) {
		return
	}
	defer h.trimming.Store(false)
	h.mu.Lock()
	topics := slices.Collect(maps.Values(h.topics))
	h.mu.Unlock()
	for _, t := range topics {
		t.halve()
	}
}

// Begin says that every event of the room after head will be appended, and which
// epoch the room is in; 0 = not known.
func (h *Hub) Begin(id room.ID, head, epoch uint64) {
	h.mu.Lock()
	t := h.topics[id]
	h.mu.Unlock()
	if t != nil {
		t.begin(head, epoch)
	}
}

// Epoch returns the epoch of a room that is followed, as far as known; else 0.
func (h *Hub) Epoch(id room.ID) uint64 {
	h.mu.Lock()
	t := h.topics[id]
	h.mu.Unlock()
	if t == nil {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.epoch
}

// Bytes returns the size of all tails.
func (h *Hub) Bytes() int64 { return h.bytes.Load() }

// Rooms returns the rooms that are followed, in no order.
func (h *Hub) Rooms() []room.ID {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Collect(maps.Keys(h.topics))
}

// Close ends all feeds and waits for them. Follow fails afterwards.
func (h *Hub) Close() {
	h.mu.Lock()
	h.cancel()
	for _, t := range h.topics {
		t.stop()
	}
	h.mu.Unlock()
	h.feeds.Wait()
}

// acquire returns the room's topic, made if need be; release gives it back. Apps have
// shares of the topics of clients: a node that follows for its own has to be let in.
// A topic that exists before the feed is read misses nothing: an event is in
// what the feed returns, or is appended after.
func (h *Hub) acquire(id room.ID, duty Duty, client bool) (*topic, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ctx.Err() != nil {
		return nil, errGone
	}
	t := h.topics[id]
	switch {
	case t == nil && h.apps.full():
		return nil, tooManyTopics(h.apps.held, "")
	case t == nil && client && h.apps.over(id.App):
		return nil, tooManyTopics(h.apps.by[id.App], " of your app, which is its share,")
	case t == nil:
		t = &topic{id: id, hub: h, duty: duty}
		h.topics[id] = t
		h.apps.take(id.App)
		h.run(t)
	case duty > t.duty:
		t.duty = duty
		t.stop()
		h.run(t)
	}
	t.refs++
	h.followers++
	return t, nil
}

func tooManyTopics(n int, whose string) error {
	e := wire.Errorf(wire.CodeTooMany, "%d rooms%s are followed on this node", n, whose).After(placeAgain)
	e.Limit, e.Retryable = uint64(n), true
	return e
}

// errGone is what a hub answers that was closed.
var errGone = wire.Errorf(wire.CodeShuttingDown, "the node is going away")

// running runs f, unless the hub was closed, which then waits for it.
func (h *Hub) running(f func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ctx.Err() != nil {
		return false
	}
	h.feeds.Go(f)
	return true
}

// run starts the topic's feed; h is locked.
func (h *Hub) run(t *topic) {
	ctx, stop := context.WithCancel(context.Background())
	duty := t.duty
	t.stop = stop
	h.feeds.Go(func() { h.cfg.Feed.Run(ctx, t.id, duty, t.last) })
}

func (h *Hub) release(t *topic) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t.refs--
	h.followers--
	if t.refs > 0 {
		return
	}
	t.stop()
	if h.topics[t.id] == t {
		delete(h.topics, t.id)
		h.apps.release(t.id.App)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.account(-t.bytes)
	t.blocks, t.gone = nil, true
	t.older.forget()
}
