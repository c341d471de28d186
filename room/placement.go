package room

import "encoding/binary"

// Which group a room lives in depends on rules that change. The group of the
// newer rules makes a room only after each group of the earlier ones was asked, by
// a Claim: it says whether the room is there, and from then on refuses to make any
// room for who still goes by older rules. So one id never gets two histories,
// however late a command arrives. Where the room is in another group already,
// Elsewhere makes its new group say so.

// The tables that this adds to those of a store: tableMoved, with the key of a
// room that is in another group; tablePlacement, with nothing else.
const (
	tableMoved     = 'p'
	tablePlacement = 'q'
)

// Formats of their values: the group; the placement and the number of rooms
// that are elsewhere.
const (
	movedVersion     = 1
	movedBytes       = 1 + 4
	placementVersion = 1
	placementBytes   = 1 + 8 + 8
)

// placement is what a group knows of where rooms live.
type placement struct {
	newest    uint64 // that a claim has named
	elsewhere uint64 // how many rooms are
	known     bool   // is read from the store
	dirty     bool
}

// wellPlaced is wellFormed of Claim and Elsewhere.
func (c *Command) wellPlaced() *Refusal {
	if r := checkName("app", c.ID.App, NameBytes); r != nil {
		return r
	}
	if r := checkName("room", c.ID.Room, longRoomBytes); r != nil {
		return r
	}
	bare := Command{ID: c.ID, Kind: c.Kind, Placement: c.Placement, Group: c.Group}
	if *c != bare || c.Placement == 0 || c.Placement == Exists || (c.Kind == Elsewhere) != (c.Group != 0) {
		return refuse(CodeBadRequest, "%v needs room and placement, elsewhere a group, and neither any more", c.Kind)
	}
	return nil
}

// claim acks with the head of the room, 0 if it does not exist and never will by
// older rules than those of c.
func (m *Machine) claim(s Store, c *Command, room *cached) Result {
	p := m.placed(s)
	if c.Placement > p.newest {
		p.newest, p.dirty = c.Placement, true
	}
	if room.state.Access == 0 {
		return Result{Refusal: m.moved(s, c.ID)}
	}
	return Result{Ack: Ack{Seq: room.state.Head, Epoch: room.state.Epoch + m.renewed(s), TS: room.state.TS}}
}

// elsewhere notes that a room is in another group.
func (m *Machine) elsewhere(s Store, c *Command, room *cached) Result {
	if room.state.Access != 0 {
		return Result{Refusal: refuse(CodeExists, "room %s is here, not in group %d", c.ID.Room, c.Group)}
	}
	p := m.placed(s)
	if refusal := m.moved(s, c.ID); refusal != nil {
		if refusal.Group == c.Group {
			return Result{}
		}
		return Result{Refusal: refusal}
	}
	m.key = appendKey(m.key[:0], tableMoved, c.ID)
	s.Set(m.key, binary.BigEndian.AppendUint32([]byte{movedVersion}, c.Group))
	p.elsewhere++
	p.dirty = true
	return Result{}
}

// misplaced says why a command must not reach its room, because of where its sender
// took that to be; nil if it may.
//
// Who goes by older rules and does not know of the room is refused also if the
// room is there: it may have just been made, after an earlier command of the same
// sender was refused, which this one would overtake. The refusal tells the sender.
func (m *Machine) misplaced(s Store, c *Command, room *cached) *Refusal {
	exists := room.state.Access != 0
	if !exists {
		if refusal := m.moved(s, c.ID); refusal != nil {
			return refusal
		}
	}
	newest := m.placed(s).newest
	switch {
	case c.Placement == Exists && exists, c.Placement != Exists && c.Placement >= newest:
		return nil
	case exists:
		r := refuse(CodeMoved, "room %s is here, in group %d", c.ID.Room, m.cfg.Group)
		r.Group = m.cfg.Group
		return r
	case c.Placement == Exists:
		return refuse(CodeStale, "room %s is not here any more", c.ID.Room)
	}
	return refuse(CodeStale, "room %s is looked for by placement %d, and this group knows of %d", c.ID.Room, c.Placement, newest)
}

// moved is the refusal of a room that is elsewhere, nil if it is not.
func (m *Machine) moved(s Store, id ID) *Refusal {
	if m.placed(s).elsewhere == 0 {
		return nil
	}
	group, ok := Moved(s, id)
	if !ok {
		return nil
	}
	r := refuse(CodeMoved, "room %s is in group %d", id.Room, group)
	r.Group = group
	return r
}

func (m *Machine) placed(s Store) *placement {
	if !m.place.known {
		m.place = readPlacement(s)
	}
	return &m.place
}

func (m *Machine) flushPlacement(s Store) {
	if !m.place.dirty {
		return
	}
	m.value = appendNumber(m.value[:0], placementVersion, m.place.newest)
	m.value = binary.BigEndian.AppendUint64(m.value, m.place.elsewhere)
	s.Set([]byte{tablePlacement}, m.value)
	m.place.dirty = false
}

func readPlacement(r Reader) placement {
	v, ok := r.Get([]byte{tablePlacement})
	if !ok {
		return placement{known: true}
	}
	if refusal := checkFormat("placement", v, placementVersion, placementBytes); refusal != nil {
		panic(refusal)
	}
	return placement{newest: binary.BigEndian.Uint64(v[1:]), elsewhere: binary.BigEndian.Uint64(v[9:]), known: true}
}

// Placement returns the newest placement that a claim has named in a group: by
// older ones no room is made there any more.
func Placement(r Reader) uint64 { return readPlacement(r).newest }

// Moved returns the group in which a room is instead, false if that is not
// known of it.
func Moved(r Reader, id ID) (group uint32, ok bool) {
	v, ok := r.Get(appendKey(nil, tableMoved, id))
	if !ok {
		return 0, false
	}
	if refusal := checkFormat("moved room", v, movedVersion, movedBytes); refusal != nil {
		panic(refusal)
	}
	return binary.BigEndian.Uint32(v[1:]), true
}
