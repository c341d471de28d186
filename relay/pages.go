package relay

import (
	"context"
	"sync"
	"time"

	"github.com/starling-im/starling/wire"
)

// pages are what a topic read of history last: followers who ask near each other share
// one read.
type pages struct {
	mu  sync.Mutex
	all []*page // the newest first
}

// A page is a part of a room's history, or will be one.
type page struct {
	after uint64
	life  uint64
	done  chan struct{}
	block *block // nil: there was nothing
	err   error
}

const (
	// pagesMost bounds the pages that a topic keeps, pageBytes what is asked for one.
	pagesMost = 4
	pageBytes = 64 << 10
	// pageTries bounds the pages of others that one who asks waits for.
	pageTries = 4
	// pageNear is how far before a page that is being read others wait for it, in events.
	pageNear = 64
	// pageWithin bounds a read, pageLife how long a page is kept.
	pageWithin = 15 * time.Second
	pageLife   = time.Second
)

// forget drops what was read.
func (p *pages) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = nil
}

// get returns a block of the topic's history with the event after a position, nil if there
// is none yet.
func (p *pages) get(ctx context.Context, t *topic, after, life uint64) (*block, error) {
	t.hub.stats.readers.Add(1)
	defer t.hub.stats.readers.Add(-1)
	for range pageTries {
		pg, mine := p.take(after, life)
		if mine && !t.hub.running(func() { p.read(t, pg) }) {
			return nil, errGone
		}
		select {
		case <-pg.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if pg.err != nil || pg.after == after || pg.block != nil && pg.block.has(after) {
			return pg.block, pg.err
		}
	}
	return nil, wire.Errorf(wire.CodeUnavailable, "many read the history of %q", t.id.Room)
}

// take returns a page that has, or may get, the event after a position; mine if the caller
// is to read it.
func (p *pages) take(after, life uint64) (pg *page, mine bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pg := range p.all {
		select {
		case <-pg.done:
			if pg.life == life && pg.block != nil && pg.block.has(after) {
				return pg, false
			}
		default:
			if pg.life == life && pg.after <= after && after-pg.after <= pageNear {
				return pg, false
			}
		}
	}
	pg = &page{after: after, life: life, done: make(chan struct{})}
	p.all = append([]*page{pg}, p.all[:min(len(p.all), pagesMost-1)]...)
	return pg, true
}

// read reads a page through the feed, and has it forgotten after a while.
func (p *pages) read(t *topic, pg *page) {
	defer close(pg.done)
	ctx, cancel := context.WithTimeout(t.hub.ctx, pageWithin)
	defer cancel()
	t.hub.stats.pages.Add(1)
	events, err := t.hub.cfg.Feed.Read(ctx, t.id, pg.after, pageBytes)
	if err == nil {
		err = following(t, pg.after, events)
	}
	if pg.err = err; err == nil && len(events) > 0 {
		pg.block = blockOf(pg.after+1, events)
	}
	if pg.block == nil {
		p.drop(pg)
		return
	}
	time.AfterFunc(pageLife, func() { p.drop(pg) })
}

func (p *pages) drop(pg *page) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, x := range p.all {
		if x == pg {
			p.all = append(p.all[:i:i], p.all[i+1:]...)
			return
		}
	}
}
