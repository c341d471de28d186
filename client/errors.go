package client

import (
	"errors"
	"fmt"

	"github.com/starling-im/starling/wire"
)

// ErrClosed is returned by what was closed by its owner.
var ErrClosed = errors.New("client: closed")

// What a node may answer, for errors.Is. The error itself is a *wire.Error,
// perhaps within another, and says more.
var (
	ErrBadRequest      error = &wire.Error{Code: wire.CodeBadRequest}
	ErrTooLarge        error = &wire.Error{Code: wire.CodeTooLarge}
	ErrTooMany         error = &wire.Error{Code: wire.CodeTooMany}
	ErrUnauthenticated error = &wire.Error{Code: wire.CodeUnauthenticated}
	ErrTokenExpired    error = &wire.Error{Code: wire.CodeTokenExpired}
	ErrForbidden       error = &wire.Error{Code: wire.CodeForbidden}
	ErrNotFound        error = &wire.Error{Code: wire.CodeNotFound}
	ErrNotMember       error = &wire.Error{Code: wire.CodeNotMember}
	ErrAlreadyMember   error = &wire.Error{Code: wire.CodeAlreadyMember}
	ErrExists          error = &wire.Error{Code: wire.CodeExists}
	ErrConflict        error = &wire.Error{Code: wire.CodeConflict}
	ErrRateLimited     error = &wire.Error{Code: wire.CodeRateLimited}
	ErrOverloaded      error = &wire.Error{Code: wire.CodeOverloaded}
	ErrUnavailable     error = &wire.Error{Code: wire.CodeUnavailable}
)

// Rejected says that a send did not take effect and never will.
type Rejected struct {
	ID  string // of the message
	Err *wire.Error
}

func (e *Rejected) Error() string {
	return fmt.Sprintf("client: message %s was rejected: %v", e.ID, e.Err)
}

// Unwrap returns the node's error.
func (e *Rejected) Unwrap() error { return e.Err }

// Unknown says that a send was given up while it was not known whether it
// took effect. Sending it again with the same ID is safe.
type Unknown struct {
	ID  string // of the message
	Err error  // why it was given up
}

func (e *Unknown) Error() string {
	return fmt.Sprintf("client: the outcome of message %s is unknown: %v", e.ID, e.Err)
}

// Unwrap returns why the send was given up, such as context.Canceled.
func (e *Unknown) Unwrap() error { return e.Err }

// TooFar ends a Follow whose position is not kept any more. History before
// Head may be paged through, and a new Follow started from there.
type TooFar struct {
	Room string
	Head uint64
}

func (e *TooFar) Error() string {
	return fmt.Sprintf("client: room %q does not keep the events after this position any more; its head is %d", e.Room, e.Head)
}

// EpochChanged ends a Follow whose room was restored from a backup, or recovered
// with loss after too many of its replicas were gone: what was read of it may
// differ from what it holds now. Discard it and start again.
type EpochChanged struct {
	Room     string
	Old, New uint64
	Head     uint64
}

func (e *EpochChanged) Error() string {
	return fmt.Sprintf("client: room %q was recovered or restored: its epoch went from %d to %d", e.Room, e.Old, e.New)
}

// ConfigError says which field of a Config is wrong.
type ConfigError struct{ Field, Reason string }

func (e *ConfigError) Error() string { return "client: Config." + e.Field + " " + e.Reason }

// final reports whether what ended a session would end the next one too.
func final(err error) bool {
	var said *farewell
	if errors.As(err, &said) {
		return !wire.Reconnect(wire.CloseCode(said.said))
	}
	if code, ok := closedWith(err); ok {
		return !wire.Reconnect(code)
	}
	return false
}
