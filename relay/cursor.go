package relay

import (
	"context"

	"github.com/starling-im/starling/wire"
)

// A cursor is one follow of a session: a position in a topic. Its fields
// belong to the session's pump, save for queued, which the session's lock
// guards.
type cursor struct {
	session *Session
	follow  uint64 // the frame id that named the follow
	topic   *topic
	after   uint64
	life    uint64 // of the topic, when the follow began
	queued  bool   // is in session.ready, or being sent
	ended   bool   // unfollowed; guarded by the session's lock
	signals bool   // wants signals; likewise
}

// wake puts the cursor up for sending; part of the waiter interface.
func (c *cursor) wake() { c.session.enqueue(c) }

// next returns the events to send now, at most max bytes of frame. None, with
// parked = true, means that the cursor now waits for its topic.
func (c *cursor) next(ctx context.Context, max int) (events [][]byte, parked bool, err error) {
	for {
		events, version, ok := c.topic.read(c.after, max)
		if err := c.topic.outlived(c.life); err != nil {
			return nil, false, err
		}
		if !ok {
			events, err = c.topic.hub.cfg.Feed.Read(ctx, c.topic.id, c.after, max)
			if err != nil {
				return nil, false, err
			}
			if err = following(c.topic, c.after, events); err != nil {
				return nil, false, err
			}
		}
		if len(events) > 0 {
			return events, false, nil
		}
		c.session.park(c)
		if c.topic.wait(c, version) {
			return nil, true, nil
		}
		if !c.session.unpark(c) {
			return nil, true, nil
		}
	}
}

// following checks that events are what comes after a position. A feed that
// lags behind the topic is to be asked again; one that skips is a fault.
func following(t *topic, after uint64, events [][]byte) error {
	if len(events) == 0 && t.lags(after) {
		return wire.Errorf(wire.CodeUnavailable, "history of %q does not reach back to %d yet", t.id.Room, after)
	}
	for i, e := range events {
		if want := after + 1 + uint64(i); wire.EventSeq(e) != want {
			return wire.Errorf(wire.CodeInternal, "history of %q has seq %d where %d belongs", t.id.Room, wire.EventSeq(e), want)
		}
	}
	return nil
}
