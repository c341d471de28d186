package starling

import (
	"context"
	"time"

	"github.com/starling-im/starling/edge"
	"github.com/starling-im/starling/relay"
	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// backend carries out what sessions ask of the node.
type backend Node

// Moment implements relay.Backend.
func (b *backend) Moment() uint64 { return b.flights.clock.Load() }

// Publish implements relay.Backend.
func (b *backend) Publish(c room.Command, moment uint64, done func(*wire.Ack, error)) {
	n := (*Node)(b)
	if c.ID == directoryRoom {
		done(nil, errDirectory)
		return
	}
	if c.Kind != room.Create {
		c.Access = room.Members
		if app, ok := n.dir.state().App(c.ID.App); ok && app.Open {
			c.Access = room.Open
		}
	}
	done = n.tracer.published(&c, done)
	n.places.send(c, moment, func(ack *wire.Ack, err error) {
		if ack != nil {
			ack.ClientMsgId = c.ClientMsgID
		}
		done(ack, err)
	})
}

// errDirectory keeps clients away from the room that holds the keys of all.
var errDirectory = wire.Errorf(wire.CodeForbidden, "the directory is not for clients")

// Propose implements relay.Backend.
func (b *backend) Propose(group uint32, command []byte, done func(*wire.Ack, error)) {
	n := (*Node)(b)
	if !n.replicates(group) {
		done(nil, wire.Errorf(wire.CodeNotLeader, "group %d has no replica on %q", group, n.cfg.Node))
		return
	}
	n.proposeHere(group, command, done)
}

// History implements relay.Backend.
func (b *backend) History(ctx context.Context, id room.ID, h *wire.History, max int) (*wire.Page, error) {
	n := (*Node)(b)
	if h.Group != nil {
		return n.pageAsked(ctx, id, h, max)
	}
	return n.pageOf(ctx, id, h, max)
}

// Readable implements relay.Backend.
func (b *backend) Readable(p relay.Peer, id room.ID) error {
	if id == directoryRoom && p.Node == "" {
		return errDirectory
	}
	return nil
}

// Query implements relay.Backend.
func (b *backend) Query(ctx context.Context, p relay.Peer, q *wire.Query) ([]byte, error) {
	return (*Node)(b).query(ctx, p, q)
}

// Authenticate implements relay.Backend.
func (b *backend) Authenticate(p relay.Peer, token string) (time.Time, error) {
	return (*Node)(b).door.Authenticate(edge.Identity{App: p.App, User: p.User, ActAs: p.ActAs, Operator: p.Operator}, token)
}
