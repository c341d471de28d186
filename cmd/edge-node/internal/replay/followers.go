package replay

import (
	"context"
	"fmt"
	"sync"

	"github.com/starling-im/starling/client"
)

// followers are those who listen in every region. Each follows every room
// that is played, over as many connections as that takes.
type followers struct {
	judge    *Judge
	fromHead bool // what was said before the run is not of it
	fail     func(error)
	all      []*follower
	work     sync.WaitGroup
}

type follower struct {
	view    *view
	region  string
	dial    func(ctx context.Context) (*client.Client, error)
	clients []*client.Client
	rooms   int
}

// roomsPerConn is below the follows that a session may have.
const roomsPerConn = 900

// add adds a follower; region is an index into the judge's regions.
func (f *followers) add(region int, dial func(context.Context) (*client.Client, error)) {
	f.all = append(f.all, &follower{view: f.judge.follower(region), region: f.judge.regions[region], dial: dial})
}

// follow returns when everyone follows a room, so that nothing of what is sent
// afterwards can be missed. What is delivered goes to the judge until ctx ends.
func (f *followers) follow(wait, ctx context.Context, room string) error {
	errs := make(chan error, len(f.all))
	for _, one := range f.all {
		go func() { errs <- f.start(wait, ctx, one, room) }()
	}
	var first error
	for range f.all {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}

func (f *followers) start(wait, ctx context.Context, one *follower, room string) error {
	c, err := one.client(wait)
	if err != nil {
		return fmt.Errorf("no follower in %s: %w", one.region, err)
	}
	var feed *client.Follow
	after := uint64(0)
	if f.fromHead {
		if feed, err = c.FollowFromHead(wait, room); err == nil {
			after = feed.Head()
		}
	} else {
		feed, err = c.Follow(wait, room, 0)
	}
	if err != nil {
		return fmt.Errorf("no follower in %s: %w", one.region, err)
	}
	watch := one.view.watch(room, after)
	f.work.Go(func() {
		if err := listen(ctx, feed, watch); err != nil && ctx.Err() == nil {
			f.fail(fmt.Errorf("the follower of %q in %s failed: %w", room, one.region, err))
		}
	})
	return nil
}

// client returns a connection that has room for one more follow.
func (o *follower) client(ctx context.Context) (*client.Client, error) {
	if o.rooms == len(o.clients)*roomsPerConn {
		c, err := o.dial(ctx)
		if err != nil {
			return nil, err
		}
		o.clients = append(o.clients, c)
	}
	o.rooms++
	return o.clients[len(o.clients)-1], nil
}

// batchEvents bounds what is judged at once.
const batchEvents = 1024

func listen(ctx context.Context, feed *client.Follow, watch *Watch) error {
	defer feed.Close()
	var events []Event
	for {
		batch, err := feed.NextBatch(ctx, batchEvents)
		if err != nil {
			return err
		}
		events = events[:0]
		for _, e := range batch {
			events = append(events, Event{Seq: e.Seq, User: e.User, Kind: e.Kind.String(), Text: e.Content, ID: e.ID})
		}
		watch.Take(events)
	}
}

// close ends all following; the context of follow must have ended before.
func (f *followers) close() {
	f.work.Wait()
	for _, one := range f.all {
		for _, c := range one.clients {
			_ = c.Close()
		}
	}
}
