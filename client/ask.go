package client

import (
	"context"
	"fmt"
	"time"

	"github.com/starling-im/starling/wire"
)

// HistoryOption changes how History is read.
type HistoryOption func(*wire.History)

// Linearizable makes History contain every event that was acknowledged before
// it was asked for. It waits for the room's leader; without it the nearest
// replica answers with what it has, and Page.Age says how old that may be.
func Linearizable() HistoryOption { return func(h *wire.History) { h.Linearizable = true } }

// History returns the events of a room after a position, at most limit of
// them (0 = as many as a page holds). It tries again while the node's answer
// says that it may, until ctx ends; other errors are *wire.Error.
func (c *Client) History(ctx context.Context, room string, after uint64, limit int, options ...HistoryOption) (Page, error) {
	h := &wire.History{Room: room, AfterSeq: after, Limit: uint32(min(max(limit, 0), wire.PageEvents))}
	for _, o := range options {
		o(h)
	}
	f, err := c.ask(ctx, &wire.Frame{Body: &wire.Frame_History{History: h}})
	switch {
	case err != nil:
		return Page{}, err
	case f.GetPage() == nil:
		return Page{}, wire.Errorf(wire.CodeProtocol, "History was answered with a %T", f.Body)
	}
	return pageOf(room, f.GetPage()), nil
}

// Query returns a JSON document about the mesh as the node sees it: "members",
// "groups", "rooms", "links" and others, some with arguments. It needs a token
// that allows that. A lost answer is asked for again, at another node.
func (c *Client) Query(ctx context.Context, what string, args ...string) ([]byte, error) {
	f, err := c.ask(ctx, &wire.Frame{Body: &wire.Frame_Query{Query: &wire.Query{What: what, Args: args}}})
	switch {
	case err != nil:
		return nil, err
	case f.GetAnswer() == nil:
		return nil, wire.Errorf(wire.CodeProtocol, "Query was answered with a %T", f.Body)
	}
	return f.GetAnswer().Json, nil
}

// ask asks one node after the other until one answers. The request must be
// one that may be carried out twice.
func (c *Client) ask(ctx context.Context, request *wire.Frame) (*wire.Frame, error) {
	var last *wire.Error
	for tries := 0; ; tries++ {
		l, err := c.wait(ctx)
		var f *wire.Frame
		if err == nil {
			f, err = l.session.Ask(ctx, &wire.Frame{Body: request.Body})
		}
		switch {
		case err == nil:
			return f, nil
		case ctx.Err() != nil && last != nil:
			return nil, fmt.Errorf("%w; the last answer was %w", context.Cause(ctx), last)
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case wire.Code(err) == "" || !wire.AsError(err).Retryable || c.ctx.Err() != nil:
			return nil, err
		}
		last = wire.AsError(err)
		pause(ctx, max(halfJitter(tries, retryMin, retryMax), time.Duration(last.RetryAfterMs)*time.Millisecond))
	}
}
