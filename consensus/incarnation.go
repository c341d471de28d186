package consensus

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/starling-im/starling/wire"
)

// ErrOldDisk says that a node came with a life that is over: with an old copy of
// its disk, or with an empty one. Its stream is refused; the node is told, and
// comes back as one that must catch up before it votes.
var ErrOldDisk = errors.New("consensus: node comes with an old copy of its disk, or with an empty one")

// life is one life of a node: each start has a higher number, and so has, every
// renewEvery, one that lasts. The nonce tells lives of one number apart.
type life struct{ number, nonce uint64 }

// renewEvery bounds the age of a copy of a disk that is not told from the disk.
const renewEvery = 10 * time.Minute

const (
	lifeVersion = 1
	lifeBytes   = 1 + 8 + 8
)

// lives are the highest lives seen of other nodes; they are in the store too.
type lives struct {
	s *store

	// meeting has a place for who compares a life and writes it: that may take
	// as long as the disk does.
	meeting chan struct{}
	mu      sync.Mutex
	seen    map[string]life
}

func openLives(s *store) (*lives, error) {
	l := &lives{s: s, meeting: make(chan struct{}, 1), seen: map[string]life{}}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{tablePeer}, UpperBound: []byte{tablePeer + 1}})
	if err != nil {
		return nil, s.fail(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err == nil {
			err = checkVersion("life of a node", value, lifeVersion)
		}
		if err == nil && len(value) != lifeBytes {
			err = fmt.Errorf("life of a node of %d bytes", len(value))
		}
		if err != nil {
			return nil, errors.Join(err, it.Close())
		}
		l.seen[string(it.Key()[1:])] = life{binary.BigEndian.Uint64(value[1:]), binary.BigEndian.Uint64(value[9:])}
	}
	if err := it.Close(); err != nil {
		return nil, s.fail(err)
	}
	return l, nil
}

// of returns the highest life seen of a node.
func (l *lives) of(node string) life {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen[node]
}

// meet remembers the life of a node durably, unless a later one was seen.
func (l *lives) meet(ctx context.Context, node string, now life) error {
	if l.of(node) == now {
		return nil
	}
	select {
	case l.meeting <- struct{}{}:
		defer func() { <-l.meeting }()
	case <-ctx.Done():
		return errClosed
	}
	last := l.of(node)
	switch {
	case now == last:
		return nil
	case now.number <= last.number:
		return fmt.Errorf("%w: %s comes with life %d, and life %d was seen", ErrOldDisk, node, now.number, last.number)
	}
	value := binary.BigEndian.AppendUint64([]byte{lifeVersion}, now.number)
	value = binary.BigEndian.AppendUint64(value, now.nonce)
	if err := l.s.set(append([]byte{tablePeer}, node...), value); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen[node] = now
	return nil
}

// life returns the present life of this node; without syncs it has none.
func (h *Host) life() life {
	g := h.s.guard
	if g == nil {
		return life{}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return life{g.shown, g.nonce}
}

// greeting is the first message of each stream to a node.
func (h *Host) greeting(node string) *wire.RaftMessage {
	now, seen := h.life(), h.lives.of(node)
	return &wire.RaftMessage{Body: &wire.RaftMessage_Life{Life: &wire.NodeLife{
		Life: now.number, Nonce: now.nonce, SeenLife: seen.number, SeenNonce: seen.nonce,
		Dictionaries: wire.Dictionaries(),
	}}}
}

// greeted compares what a node says of itself and of this node with what is
// known here. Its error means that the node must not be listened to.
func (h *Host) greeted(p *peer, m *wire.NodeLife) error {
	if m == nil {
		return wire.Errorf(wire.CodeProtocol, "a stream of raft begins without the life of %s", p.node)
	}
	p.dictionary.Store(uint32(wire.Shared(m.Dictionaries)))
	if h.s.guard == nil {
		return nil
	}
	if now, seen := h.life(), (life{m.SeenLife, m.SeenNonce}); seen.number > now.number || seen.number == now.number && seen.nonce != now.nonce {
		h.outlived(p.node, seen.number)
	}
	err := h.lives.meet(h.ctx, p.node, life{m.Life, m.Nonce})
	if errors.Is(err, ErrOldDisk) {
		h.cfg.Log.Error("a node is refused", "peer", p.node, "error", err)
		_ = p.send(h.greeting(p.node), false) // so that it learns of it
	}
	return err
}

// outlived begins a life after one that another node has seen, of which this
// disk knows nothing: what this node acknowledged in it is not here.
func (h *Host) outlived(by string, seen uint64) {
	gd, told := h.s.guard, false
	gd.change(func() {
		if seen < gd.life {
			return // heard of already
		}
		told = true
		gd.life = seen + 1
		gd.lost = gd.life
		for _, t := range gd.tips {
			if t.doubt != fresh {
				t.doubt = unknown
			}
		}
	})
	if !told || h.down() != nil {
		return
	}
	h.cfg.Log.Error("the disk of this node is an old copy, or was empty: its replicas must catch up before they vote",
		"peer", by, "seen", seen)
	for _, g := range h.all() {
		if g.doubt() == unknown {
			g.since(time.Now())
			g.restart("the disk is an old copy")
			g.start(g.settle)
		}
	}
}

// greet tells the other voters of this life: two followers have nothing else to
// say to each other, and what each remembers of the other should not be old.
func (g *group) greet() {
	for _, node := range g.voters() {
		if node != g.h.cfg.Node {
			_ = g.h.peer(node).send(g.h.greeting(node), false)
		}
	}
}

// renew raises the number of a life that lasts, so that an old copy of the disk
// is known as such once it is older than that.
func (h *Host) renew() {
	gd := h.s.guard
	if gd == nil {
		return
	}
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-h.ctx.Done():
			return
		}
		gd.change(func() { gd.life++ })
		for _, p := range h.known() {
			_ = p.send(h.greeting(p.node), false)
		}
	}
}
