package starling

import (
	"context"
	"sync"

	"github.com/starling-im/starling/directory"
	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// changes tells those who wait how far the directory was folded, and what became
// of the newest changes.
type changes struct {
	mu        sync.Mutex
	seq       uint64
	placement uint64
	refused   map[uint64]error // by seq
	fold      chan struct{}    // closed by the next fold
	place     chan struct{}    // closed by the next change of the placement
}

// refusedKept is how many changes back a refusal is remembered.
const refusedKept = 256

// folded notes that a change has taken effect, or why it was refused.
func (c *changes) folded(seq, placement uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused == nil {
		c.refused = make(map[uint64]error)
	}
	delete(c.refused, seq)
	if err != nil {
		c.refused[seq] = err
	}
	delete(c.refused, seq-refusedKept)
	c.seq = seq
	if c.fold != nil {
		close(c.fold)
		c.fold = nil
	}
	if c.place != nil && c.placement != placement {
		close(c.place)
		c.place = nil
	}
	c.placement = placement
}

// wake lets those who wait look again.
func (c *changes) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fold != nil {
		close(c.fold)
		c.fold = nil
	}
}

// forget begins again with nothing folded: the directory has another epoch, in which
// other changes have the numbers of those before.
func (c *changes) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq, c.refused = 0, nil
}

// wait returns when a change has been folded, with what became of it.
func (c *changes) wait(ctx context.Context, seq uint64) error {
	for {
		c.mu.Lock()
		done, err := c.seq >= seq, c.refused[seq]
		if c.fold == nil {
			c.fold = make(chan struct{})
		}
		next := c.fold
		c.mu.Unlock()
		if done {
			return err
		}
		select {
		case <-next:
		case <-ctx.Done():
			return wire.Errorf(wire.CodeUnavailable, "change %d of the directory has not reached this node yet", seq)
		}
	}
}

// next returns a channel that is closed by the next fold.
func (c *changes) next() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fold == nil {
		c.fold = make(chan struct{})
	}
	return c.fold
}

// placed returns a channel that is closed when the placement of rooms changes.
func (k *keeper) placed() <-chan struct{} {
	c := &k.changes
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.place == nil {
		c.place = make(chan struct{})
	}
	return c.place
}

// change brings a change into the directory, and returns when this node has
// folded it. The id makes a repeated one happen once. Errors are *wire.Error; those
// of the directory keep their codes.
func (k *keeper) change(ctx context.Context, id, user string, change directory.Change) error {
	content := directory.Encode(change)
	if _, err := directory.Decode(content); err != nil {
		return refusedChange(err)
	}
	c := room.Command{
		ID: directoryRoom, User: user, ClientMsgID: id, Kind: room.Message, Content: string(content), Access: room.Open,
	}
	if err := c.Validate(); err != nil {
		return refusedChange(err)
	}
	ack, err := k.node.proposeWait(ctx, 0, c)
	if wire.Code(err) == wire.CodeConflict {
		return errRepeated
	}
	if err != nil {
		return err
	}
	return refusedChange(k.changes.wait(ctx, ack.Seq))
}

// errRepeated says that the id of a change was used for another one.
var errRepeated = wire.Errorf(wire.CodeConflict, "another change was made with this id")

// refusedChange makes a refusal of package directory or room an error of the
// protocol.
func refusedChange(err error) error {
	switch r := err.(type) {
	case *directory.Refusal:
		return wire.Errorf(r.Code, "%s", r.Message)
	case *room.Refusal:
		return wire.Errorf(r.Code, "%s", r.Message)
	}
	return err
}
