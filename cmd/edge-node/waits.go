package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/starling-im/starling/wire"
)

// waitTeller is a log that also tells why a client waits for a place.
type waitTeller struct {
	slog.Handler
	tell func(why string)
}

// Enabled implements slog.Handler: the client logs at this level that it has no session.
func (t waitTeller) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo || t.Handler.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (t waitTeller) Handle(ctx context.Context, r slog.Record) error {
	if why := waitsForPlace(r); why != "" {
		t.tell(why)
	}
	if !t.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return t.Handler.Handle(ctx, r)
}

// waitsForPlace returns why a client is not let in that comes again later, from what it
// logs; "" if the record is of something else.
func waitsForPlace(r slog.Record) (why string) {
	full := false
	r.Attrs(func(at slog.Attr) bool {
		switch v := at.Value.Any().(type) {
		case bool:
			full = full || at.Key == "full" && v
		case error:
			var said *wire.Error
			if why = joinLines(v.Error()); errors.As(v, &said) {
				why = said.Error() // each node says much the same
			}
		}
		return true
	})
	if !full {
		return ""
	}
	return why
}

// sayWhy says once for all clients of a command why they wait.
func (a *app) sayWhy(why string) {
	a.waits.Do(func() { fmt.Fprintln(a.stderr, "edge-node: waiting:", why) })
}
