package wire

import (
	"errors"
	"fmt"
	"time"
)

// The codes of Error. A code, once published, keeps its meaning.
const (
	CodeBadRequest      = "bad_request"     // a field breaks a rule
	CodeTooLarge        = "too_large"       // a frame or content is above its limit
	CodeTooMany         = "too_many"        // a count is above its limit
	CodeUnauthenticated = "unauthenticated" // no token, or one that proves nothing
	CodeTokenExpired    = "token_expired"   // get a new token and come back
	CodeForbidden       = "forbidden"       // the token does not allow this
	CodeNotFound        = "not_found"       // no such room or query
	CodeNotMember       = "not_member"      // the room lets only members send
	CodeAlreadyMember   = "already_member"  // a second join of a members' room
	CodeExists          = "exists"          // the room is there already
	CodeConflict        = "conflict"        // the client_msg_id was used with another payload
	CodeRateLimited     = "rate_limited"    // slow down, see retry_after_ms
	CodeOverloaded      = "overloaded"      // a queue is full, see retry_after_ms
	CodeOutOfOrder      = "out_of_order"    // an earlier send of the session failed; start again with it
	CodeNotLeader       = "not_leader"      // ask the node that the error names, if any
	CodeMoved           = "moved"           // the room is in another group; the edge finds it at the next try
	CodeStale           = "stale"           // the node has not heard of the newest placement of rooms yet
	CodeUnavailable     = "unavailable"     // the outcome is unknown; retry with the same client_msg_id
	CodeTooFar          = "too_far"         // the position is not kept any more; page from head_seq
	CodeEpochChanged    = "epoch_changed"   // the room was recovered with loss; follow it again with the epoch of the cursor
	CodeSlowReader      = "slow_reader"     // the client did not read; come back with its cursors
	CodeProtocol        = "protocol_error"  // the peer breaks the protocol
	CodeUnsupported     = "unsupported"     // a frame that this node does not know or serve
	CodeInternal        = "internal"        // a fault of the node; its log says more
	CodeShuttingDown    = "shutting_down"   // the node is going away; dial another
	CodeNewerFormat     = "newer_format"    // written by a newer release than this one
	CodeJoinForged      = "join_forged"     // a join token that the cluster did not make
	CodeJoinUsed        = "join_used"       // a join token that let another node in
	CodeJoinExpired     = "join_expired"    // a join token that has run out
	CodeJoinRegion      = "join_region"     // a join token for another region
	CodeRevoked         = "revoked"         // the node's certificate is good for nothing any more
)

// outcomeUnknown are the codes after which a send may still have taken effect.
var outcomeUnknown = map[string]bool{CodeUnavailable: true, CodeShuttingDown: true, CodeInternal: true}

// holdsUp are the other codes that say that a send did not get through.
var holdsUp = map[string]bool{CodeNotLeader: true, CodeOverloaded: true, CodeOutOfOrder: true}

// retryable are the codes after which the same request may succeed.
var retryable = map[string]bool{
	CodeRateLimited: true, CodeOverloaded: true, CodeOutOfOrder: true, CodeNotLeader: true, CodeMoved: true, CodeStale: true,
	CodeUnavailable: true, CodeEpochChanged: true, CodeSlowReader: true, CodeShuttingDown: true, CodeTokenExpired: true,
}

// Errorf makes an Error with a code of this package.
func Errorf(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), Retryable: retryable[code]}
}

// TooLarge says that a thing of size bytes (0 = unknown) exceeds max bytes.
func TooLarge(what string, size, max uint64) *Error {
	e := Errorf(CodeTooLarge, "%s of %d bytes exceeds the limit of %d bytes", what, size, max)
	if size == 0 {
		e.Message = fmt.Sprintf("%s exceeds the limit of %d bytes", what, max)
	}
	e.Limit = max
	return e
}

// After returns e with a time after which to try again, at least 1 ms.
func (x *Error) After(d time.Duration) *Error {
	x.RetryAfterMs = uint32(max(1, d.Milliseconds()))
	return x
}

// Error makes *Error an error: "code: message".
func (x *Error) Error() string { return x.Code + ": " + x.Message }

// Is reports whether target is an *Error with the same code, so that
// errors.Is(err, &wire.Error{Code: wire.CodeConflict}) asks for a kind.
func (x *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == x.Code
}

// Unknown reports whether a send that ended so may still have taken effect.
func (x *Error) Unknown() bool { return outcomeUnknown[x.Code] }

// HoldsUp reports whether a send failed on its way rather than by a rule of its
// room, so that what was sent behind it to the same group must fail too.
func (x *Error) HoldsUp() bool { return x.Unknown() || holdsUp[x.Code] }

// AsError returns err as an *Error; one that is none becomes CodeInternal.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return Errorf(CodeInternal, "%v", err)
}

// Code returns the code of err, "" if err carries none.
func Code(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
