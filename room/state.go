package room

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// Event is one numbered entry of a room's history.
type Event struct {
	Seq         uint64
	User        string
	Kind        Kind
	Type        string
	Content     string
	TS          int64 // Unix milliseconds, never less than that of the event before
	ClientMsgID string
	MsgID       string // given by the room, unique, sorts by time
	Trace       string // as in the command
}

// Ack says where a command's event stands.
type Ack struct {
	MsgID      string
	Seq, Epoch uint64
	TS         int64 // Unix milliseconds
	// Duplicate: the command had taken effect before; all else is as then.
	Duplicate bool
}

// Receipt is what a room remembers of a command for ever.
type Receipt struct {
	Seq     uint64
	MsgID   MsgID
	Payload [16]byte // hash of what the command said
}

// Facts are the two things that State does not hold, because they grow.
type Facts interface {
	// Receipt returns the receipt of the user's earlier command with this id.
	Receipt(user, clientMsgID string) (Receipt, bool)
	// Member reports whether the user is a member.
	Member(user string) bool
}

// State is a room without what grows with its history. The zero State is a
// room that does not exist.
type State struct {
	Epoch   uint64 // identity of the log; 1 at first, see Epoch
	Head    uint64 // seq of the last event
	TS      int64  // its time, Unix milliseconds
	Access  Access
	Members uint32
	Digest  [32]byte // chain hash over all events
}

// Change says what an event does to the membership of its user.
type Change uint8

// The changes of membership.
const (
	Stays Change = iota
	Joins
	Leaves
)

// Outcome is what became of a command.
type Outcome struct {
	Refusal *Refusal // if set, nothing else is, and nothing changed
	Ack     Ack
	// Event, Receipt and Change are what to store; Event.Seq is 0 if the
	// command was a duplicate.
	Event   Event
	Receipt Receipt
	Change  Change
}

// maxTS is the last time that a MsgID can hold, in the year 10889.
const maxTS = 1<<48 - 1

// Apply returns the room after c, and what became of c. now is the time that
// the log gave to c, in Unix milliseconds. It is pure: same arguments and
// facts, same result. All commands of one State have the same ID.
func (s State) Apply(c Command, now int64, f Facts) (State, Outcome) {
	if r := c.wellFormed(); r != nil {
		return s, Outcome{Refusal: r}
	}
	return s.apply(&c, now, f)
}

// apply is Apply of a well-formed command.
func (s State) apply(c *Command, now int64, f Facts) (State, Outcome) {
	payload := c.payload()
	if s.Access != 0 {
		if old, ok := f.Receipt(c.User, c.ClientMsgID); ok {
			if old.Payload != payload {
				return s, Outcome{Refusal: refuse(CodeConflict, "client_msg_id %s was used for another command, seq %d", c.ClientMsgID, old.Seq)}
			}
			return s, Outcome{Ack: old.ack(s.Epoch, true)}
		}
	}
	change, refusal := s.permit(c, f)
	if refusal != nil {
		return s, Outcome{Refusal: refusal}
	}
	if s.Access == 0 {
		s = State{Epoch: 1, Access: c.Access, Digest: genesis(c.ID)}
	}
	switch change {
	case Joins:
		s.Members++
	case Leaves:
		s.Members--
	}
	s.Head++
	s.TS = max(s.TS, min(now, maxTS))
	s.Digest = s.chain(c)

	receipt := Receipt{Seq: s.Head, MsgID: newMsgID(s.TS, s.Digest), Payload: payload}
	ack := receipt.ack(s.Epoch, false)
	return s, Outcome{
		Ack: ack,
		Event: Event{
			Seq: s.Head, User: c.User, Kind: c.Kind, Type: c.Type, Content: c.Content,
			TS: s.TS, ClientMsgID: c.ClientMsgID, MsgID: ack.MsgID, Trace: c.Trace,
		},
		Receipt: receipt,
		Change:  change,
	}
}

// permit decides about a command that is no retry. Membership is looked up
// only where the answer matters.
func (s State) permit(c *Command, f Facts) (Change, *Refusal) {
	switch {
	case s.Access != 0 && c.Kind == Create:
		return Stays, refuse(CodeExists, "room %s exists", c.ID.Room)
	case c.Kind == Create:
		return Joins, nil
	case s.Access == 0 && c.Access != Open:
		return Stays, refuse(CodeNotFound, "room %s does not exist", c.ID.Room)
	case s.Access == 0 && c.Kind == Join:
		return Joins, nil
	case s.Access == 0, s.Access == Open && (c.Kind == Message || c.Kind == Action):
		return Stays, nil
	}
	member := f.Member(c.User)
	switch {
	case c.Kind == Join && !member:
		return Joins, nil
	case c.Kind == Leave && member:
		return Leaves, nil
	case s.Access == Open:
		return Stays, nil
	case c.Kind == Join:
		return Stays, refuse(CodeAlreadyMember, "%s is a member of %s", c.User, c.ID.Room)
	case !member:
		return Stays, refuse(CodeNotMember, "%s is not a member of %s", c.User, c.ID.Room)
	}
	return Stays, nil
}

// genesis is the digest of a room without events. It holds the room's id, so
// that no two rooms share a digest, nor a MsgID that comes of one.
func genesis(id ID) [32]byte {
	return sha256.Sum256(appendString(appendString(nil, id.App), id.Room))
}

// chain returns the digest after the event that c becomes; all other fields
// of s are already those after it.
func (s *State) chain(c *Command) [32]byte {
	var stack [512]byte
	b := append(stack[:0], s.Digest[:]...)
	b = append(b, byte(c.Kind), byte(s.Access))
	b = binary.BigEndian.AppendUint64(b, s.Head)
	b = binary.BigEndian.AppendUint64(b, uint64(s.TS))
	b = appendString(b, c.User)
	b = appendString(b, c.ClientMsgID)
	b = appendString(b, c.Type)
	b = append(b, c.Content...)
	return sha256.Sum256(b)
}

// Check says what is wrong with s in itself, nil if nothing is.
func (s State) Check() error {
	switch {
	case s == State{}:
		return nil
	case s.Access != Open && s.Access != Members:
		return fmt.Errorf("room: %v is not known", s.Access)
	case s.Epoch == 0 || s.Head == 0:
		return fmt.Errorf("room: epoch %d and head %d of a room that exists", s.Epoch, s.Head)
	case s.TS < 0 || s.TS > maxTS:
		return fmt.Errorf("room: time %d is out of range", s.TS)
	case uint64(s.Members) > s.Head:
		return fmt.Errorf("room: %d members after %d events", s.Members, s.Head)
	}
	return nil
}

// stateVersion is the format of stored states: version, access, members,
// epoch, head, time, digest, numbers big-endian.
const (
	stateVersion = 1
	stateBytes   = 1 + 1 + 4 + 8 + 8 + 8 + 32
)

// Append appends the encoding of s to dst.
func (s State) Append(dst []byte) []byte {
	dst = append(dst, stateVersion, byte(s.Access))
	dst = binary.BigEndian.AppendUint32(dst, s.Members)
	dst = binary.BigEndian.AppendUint64(dst, s.Epoch)
	dst = binary.BigEndian.AppendUint64(dst, s.Head)
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.TS))
	return append(dst, s.Digest[:]...)
}

// DecodeState decodes what Append made. The error is a *Refusal: newer_format,
// or internal for what is damaged.
func DecodeState(b []byte) (State, error) {
	if r := checkFormat("state", b, stateVersion, stateBytes); r != nil {
		return State{}, r
	}
	s := State{
		Access:  Access(b[1]),
		Members: binary.BigEndian.Uint32(b[2:]),
		Epoch:   binary.BigEndian.Uint64(b[6:]),
		Head:    binary.BigEndian.Uint64(b[14:]),
		TS:      int64(binary.BigEndian.Uint64(b[22:])),
		Digest:  [32]byte(b[30:]),
	}
	if err := s.Check(); err != nil {
		return State{}, refuse(CodeInternal, "stored state is damaged: %v", err)
	}
	return s, nil
}

// checkFormat checks the version and, unless size is 0, the size of a stored value.
func checkFormat(what string, b []byte, version byte, size int) *Refusal {
	switch {
	case len(b) == 0 || b[0] == 0:
		return refuse(CodeInternal, "stored %s has no version", what)
	case b[0] > version:
		return refuse(CodeNewerFormat, "stored %s has format %d, this release knows %d", what, b[0], version)
	case size != 0 && len(b) != size:
		return refuse(CodeInternal, "stored %s has %d bytes, not %d", what, len(b), size)
	}
	return nil
}
