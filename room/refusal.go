package room

import "fmt"

// The codes of Refusal. They are those of the protocol's errors.
const (
	CodeBadRequest    = "bad_request"
	CodeTooLarge      = "too_large"
	CodeConflict      = "conflict"
	CodeNotMember     = "not_member"
	CodeAlreadyMember = "already_member"
	CodeExists        = "exists"
	CodeNotFound      = "not_found"
	CodeMoved         = "moved"
	CodeStale         = "stale"
	CodeNewerFormat   = "newer_format"
	CodeInternal      = "internal"
)

// Refusal says why a command had no effect. It is certain that it had none.
type Refusal struct {
	Code, Message string
	// Group is where the room is, if the code is moved.
	Group uint32
}

// Error returns "code: message".
func (r *Refusal) Error() string { return r.Code + ": " + r.Message }

// Is reports whether target is a *Refusal with the same code.
func (r *Refusal) Is(target error) bool {
	t, ok := target.(*Refusal)
	return ok && t.Code == r.Code
}

func refuse(code, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Message: fmt.Sprintf(format, args...)}
}
