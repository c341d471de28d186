package room

import (
	"crypto/sha256"
	"fmt"
	"math"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// The bounds of a command, in bytes.
const (
	// NameBytes bounds the id of an app, room, user or message, and the type.
	NameBytes = 128
	// ContentBytes bounds the content of a message.
	ContentBytes = 32 << 10
	// longRoomBytes is what the log accepts as a room's id: room for the ids of
	// direct conversations, which hold two users.
	longRoomBytes = 300
	// TraceBytes is the size of a trace id.
	TraceBytes = 16
	// commandBytes bounds an encoded command: all of the above fits.
	commandBytes = 36 << 10
)

// ID names a room within the whole mesh.
type ID struct{ App, Room string }

// String returns app/room, for logs.
func (id ID) String() string { return id.App + "/" + id.Room }

// Kind says what a command or event does. The numbers are those of the protocol.
type Kind uint8

// The kinds of commands and events.
const (
	Message Kind = 1
	Action  Kind = 2
	Join    Kind = 3
	Leave   Kind = 4
	Create  Kind = 5

	// These are between nodes only and make no event; see Machine.
	Claim     Kind = 128
	Elsewhere Kind = 129
	Renew     Kind = 130
)

var kindNames = [...]string{Message: "message", Action: "action", Join: "join", Leave: "leave", Create: "create"}

// String returns "message", "action", "join", "leave", "create", "claim",
// "elsewhere" or "renew".
func (k Kind) String() string {
	switch {
	case k >= Message && k <= Create:
		return kindNames[k]
	case k == Claim:
		return "claim"
	case k == Elsewhere:
		return "elsewhere"
	case k == Renew:
		return "renew"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Access says who may send to a room. The numbers are those of the protocol.
type Access uint8

const (
	// Open rooms take events of anyone in the app.
	Open Access = 1
	// Members rooms take messages and actions of those who joined. Anyone may join.
	Members Access = 2
)

// String returns "open" or "members".
func (a Access) String() string {
	switch a {
	case Open:
		return "open"
	case Members:
		return "members"
	}
	return fmt.Sprintf("access(%d)", uint8(a))
}

// Exists is the Placement of a command whose sender knows that the room is in
// this group, by whatever placement that was made.
const Exists = math.MaxUint64

// Command asks a room for one event.
type Command struct {
	ID          ID
	User        string
	ClientMsgID string
	Kind        Kind
	Type        string
	Content     string
	// Access of the room that Create makes. In any other command: Open lets the
	// command bring an open room into being; otherwise the room must exist.
	Access Access
	// Placement is that of the directory by which the room belongs in this group,
	// or Exists; in Renew it is the epoch of the group.
	Placement uint64
	// Group is where the room is, in Elsewhere only.
	Group uint32
	// Trace is an id of TraceBytes bytes under which nodes note what they do with the
	// command and its event; "" = not traced. The room itself does not know of it.
	Trace string
}

// Validate says whether a door may let c in: a *Refusal with code bad_request
// or too_large, or nil. Names are 1 to NameBytes bytes of UTF-8 in NFC without
// control characters; only the type may be empty.
func (c Command) Validate() error {
	if c.Kind > Create {
		return refuse(CodeBadRequest, "%v is not for doors", c.Kind)
	}
	if r := c.wellFormed(); r != nil {
		return r
	}
	if err := c.ID.Validate(); err != nil {
		return err
	}
	for _, n := range [...]struct{ what, name string }{{"user", c.User}, {"client_msg_id", c.ClientMsgID}, {"type", c.Type}} {
		if !norm.NFC.IsNormalString(n.name) {
			return refuse(CodeBadRequest, "%s is not in Unicode normal form C", n.what)
		}
	}
	return nil
}

// Validate says whether a door may let the id in: a *Refusal, or nil.
//
// What is NFC changes with the version of Unicode. Replicas of different
// releases must agree, so the log accepts what the door would not.
func (id ID) Validate() error {
	for _, n := range [...]struct{ what, name string }{{"app", id.App}, {"room", id.Room}} {
		if r := checkName(n.what, n.name, NameBytes); r != nil {
			return r
		}
		if !norm.NFC.IsNormalString(n.name) {
			return refuse(CodeBadRequest, "%s is not in Unicode normal form C", n.what)
		}
	}
	return nil
}

// wellFormed holds the rules that every replica checks, of every release.
func (c *Command) wellFormed() *Refusal {
	if c.Kind >= Claim && c.Kind <= Renew {
		return c.wellPlaced()
	}
	if c.Group != 0 {
		return refuse(CodeBadRequest, "%v with a group", c.Kind)
	}
	if c.Kind < Message || c.Kind > Create {
		return refuse(CodeBadRequest, "%v is not known", c.Kind)
	}
	if c.Access > Members || c.Kind == Create && c.Access == 0 {
		return refuse(CodeBadRequest, "%v is not known", c.Access)
	}
	if r := checkName("app", c.ID.App, NameBytes); r != nil {
		return r
	}
	if r := checkName("room", c.ID.Room, longRoomBytes); r != nil {
		return r
	}
	if r := checkName("user", c.User, NameBytes); r != nil {
		return r
	}
	if r := checkName("client_msg_id", c.ClientMsgID, NameBytes); r != nil {
		return r
	}
	if c.Type != "" {
		if r := checkName("type", c.Type, NameBytes); r != nil {
			return r
		}
	}
	if len(c.Content) > ContentBytes {
		return refuse(CodeTooLarge, "content has %d bytes, the limit is %d", len(c.Content), ContentBytes)
	}
	if !utf8.ValidString(c.Content) {
		return refuse(CodeBadRequest, "content is not UTF-8")
	}
	if len(c.Trace) != 0 && len(c.Trace) != TraceBytes {
		return refuse(CodeBadRequest, "trace has %d bytes, not %d", len(c.Trace), TraceBytes)
	}
	return nil
}

func checkName(what, name string, max int) *Refusal {
	switch {
	case name == "":
		return refuse(CodeBadRequest, "%s is empty", what)
	case len(name) > max:
		return refuse(CodeBadRequest, "%s has %d bytes, the limit is %d", what, len(name), max)
	}
	for i, r := range name {
		// The controls of Unicode are these for ever.
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return refuse(CodeBadRequest, "%s has the control character %U", what, r)
		}
		if r == utf8.RuneError {
			if _, n := utf8.DecodeRuneInString(name[i:]); n == 1 {
				return refuse(CodeBadRequest, "%s is not UTF-8", what)
			}
		}
	}
	return nil
}

// payload returns the hash that tells a retry from another command under the
// same client_msg_id. The access that a send carries is the app's rule of that
// moment, and the trace is for who looks on; neither are the sender's words.
func (c *Command) payload() (hash [16]byte) {
	var stack [512]byte
	b := append(stack[:0], byte(c.Kind), 0)
	if c.Kind == Create {
		b[1] = byte(c.Access)
	}
	b = appendString(b, c.Type)
	b = append(b, c.Content...)
	sum := sha256.Sum256(b)
	copy(hash[:], sum[:])
	return hash
}
