package directory

import (
	"fmt"
	"slices"
)

// The codes of Refusal. They are those of the protocol's errors.
const (
	CodeBadRequest  = "bad_request"
	CodeTooMany     = "too_many"
	CodeNotFound    = "not_found"
	CodeConflict    = "conflict"
	CodeNewerFormat = "newer_format"
	CodeJoinUsed    = "join_used"
	CodeJoinExpired = "join_expired"
	CodeJoinRegion  = "join_region"
)

// Refusal says why a change had no effect, or why a room is nowhere.
type Refusal struct{ Code, Message string }

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

// App is a tenant.
type App struct {
	Name string `json:"name"`
	// Open: a room comes to be at its first use.
	Open bool `json:"open,omitzero"`
	// Homes are the regions that the app's rooms spread over.
	Homes []string `json:"homes"`
	// Rules are exceptions from Homes; the first one that matches counts.
	Rules []Rule `json:"rules,omitempty"`
	// Keys sign the app's tokens.
	Keys []Key `json:"keys,omitempty"`
}

// Rule gives homes to the rooms whose id matches.
type Rule struct {
	// Pattern is a room's whole id or, with a * at its end, how the id begins.
	Pattern string   `json:"pattern"`
	Homes   []string `json:"homes"`
	Class            // since format 3
}

// Key is a secret by which an app signs tokens. IDs are unique in the mesh.
type Key struct {
	ID     string `json:"id"`
	App    string `json:"-"` // whose it is; set by State.Key only
	Secret []byte `json:"secret"`
}

// Node is a member of the mesh.
type Node struct {
	ID     string `json:"id"`
	Region string `json:"region"`
	Addr   string `json:"addr"`
	// Key is the node's public key: base64 of its PKIX form. Since format 4.
	Key string `json:"key,omitempty"`
	// Signer: the node signs the certificates of its region. Since format 4.
	Signer bool `json:"signer,omitzero"`
	// Leaving: its replicas are moved elsewhere, and then it goes for good. Since format 4.
	Leaving bool `json:"leaving,omitzero"`
}

// Group holds rooms. Group 0, which holds the directory, is not listed.
type Group struct {
	ID     uint32   `json:"id"`
	Region string   `json:"region"` // the home of its rooms
	Voters []string `json:"voters"` // node ids of its first configuration
	Class           // since format 3; it never changes
	// Since is the placement with which it came; set by the State.
	Since uint64 `json:"since,omitzero"`
	// Now are its replicas if they are others than the first ones; see Replicas.
	Now Replicas `json:"now,omitzero"`
}

// Replicas are the nodes that hold a group, by the last word of whoever changed
// them. They are advice for those who look for the group: Raft's configuration
// decides.
type Replicas struct {
	Voters   []string `json:"voters"`
	Learners []string `json:"learners,omitempty"`
}

// Replicas returns the replicas of g as last heard of.
func (g Group) Replicas() Replicas {
	if len(g.Now.Voters) > 0 {
		return g.Now
	}
	return Replicas{Voters: g.Voters}
}

// GroupReplicas are the replicas of one group.
type GroupReplicas struct {
	ID uint32 `json:"id"`
	Replicas
}

// AppRule is a rule of one app, known by its pattern.
type AppRule struct {
	App  string `json:"app"`
	Rule Rule   `json:"rule"` // without homes to delete
	// First puts a new rule before all others, not after them.
	First bool `json:"first,omitzero"`
}

// Check says what a new rule must not be, nil if nothing. It is for who brings one
// in: State.Apply takes it nevertheless, as all releases must fold a log alike.
func (r AppRule) Check() error {
	if r := first(checkName("app", r.App, nameBytes), checkName("pattern", r.Rule.Pattern, patternBytes)); r != nil {
		return r
	}
	for i, h := range r.Rule.Homes {
		if slices.Contains(r.Rule.Homes[:i], h) {
			return refuse(CodeBadRequest, "rule %q of app %q has the home %q twice", r.Rule.Pattern, r.App, h)
		}
	}
	return nil
}

// Exception places one room, whatever the rules say.
type Exception struct {
	App   string `json:"app"`
	Room  string `json:"room"`
	Group uint32 `json:"group,omitzero"` // not used to delete
	// From is the placement with which it came; set by the State.
	From uint64 `json:"from,omitzero"`
}
