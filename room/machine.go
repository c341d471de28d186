package room

import "strings"

// Config says how a Machine works. Encode is required.
type Config struct {
	// Encode returns the encoding of an event that is stored and published. It
	// must be the same on every replica, and must not keep the event.
	Encode func(*Event) []byte
	// Group is the group's own number.
	Group uint32
	// CacheRooms bounds the rooms whose state is kept in memory, about 250
	// bytes each; 0 means 65,536.
	CacheRooms int
}

// Result is what became of one command.
type Result struct {
	Ack     Ack
	Refusal *Refusal // if set, Ack is empty
}

// Published is an event to be sent to those who follow its room.
type Published struct {
	ID   ID
	Seq  uint64
	Data []byte // as made by Config.Encode
}

// Machine applies the log of one group to the rooms in the group's store. One
// goroutine at a time may use it.
type Machine struct {
	cfg Config

	// Two generations of a cache: what is used moves to young; when that is
	// full, it becomes old and the old one is forgotten.
	young, old map[ID]*cached
	recent     int // the keys that the rooms' recent hold
	members    members
	dirty      []*cached // to be written at the end of the batch
	published  []Published

	rooms      uint64 // how many there are
	roomsKnown bool
	roomsDirty bool
	place      placement
	epoch      groupEpoch

	facts      facts // of the command being applied
	event      Event // scratch, as key and value are
	key, value []byte
}

// cached is a room in memory. A room that does not exist has the zero State.
type cached struct {
	id     ID
	state  State
	recent recent
	dirty  bool
}

// NewMachine returns a Machine for one group.
func NewMachine(cfg Config) *Machine {
	if cfg.CacheRooms <= 0 {
		cfg.CacheRooms = 65_536
	}
	m := &Machine{cfg: cfg}
	m.Reset()
	return m
}

// Reset forgets all that is in memory, because the store was replaced, and the
// events that were not taken.
func (m *Machine) Reset() {
	*m = Machine{cfg: m.cfg, young: make(map[ID]*cached), key: m.key, value: m.value}
}

// Apply applies encoded commands in order; now is the time that the log gave
// them, in Unix milliseconds. The results, one per command, are of type
// Result. All that was written is in s when it returns. It panics with a
// *Refusal for what a later release has written, in the log as in the store.
func (m *Machine) Apply(s Store, now int64, commands [][]byte) []any {
	results := make([]any, len(commands))
	for i, b := range commands {
		results[i] = m.apply(s, now, b)
	}
	m.flush(s)
	m.facts = facts{}
	return results
}

// Take returns the events since the last Take, in order. To be called when the
// writes of Apply are committed: followers then find in the store what they hear of.
func (m *Machine) Take() []Published {
	p := m.published
	m.published = nil
	return p
}

func (m *Machine) apply(s Store, now int64, b []byte) Result {
	c, refusal := decodeCommand(b)
	if refusal == nil {
		refusal = c.newer()
	}
	if refusal != nil && refusal.Code == CodeNewerFormat {
		// Replicas of the release that wrote it apply it. This one would refuse
		// it, go on, and be another room from then on.
		panic(refusal)
	}
	if refusal == nil {
		// Before any key is made of a name that may have a 0x00 in it.
		refusal = c.wellFormed()
	}
	if refusal != nil {
		return Result{Refusal: refusal}
	}
	room := m.room(s, c.ID)
	switch {
	case c.Kind == Claim:
		return m.claim(s, &c, room)
	case c.Kind == Elsewhere:
		return m.elsewhere(s, &c, room)
	case c.Kind == Renew:
		return m.renew(s, &c)
	}
	if refusal := m.misplaced(s, &c, room); refusal != nil {
		return Result{Refusal: refusal}
	}
	m.facts = facts{m, s, room}
	created := room.state.Access == 0
	state, out := room.state.apply(&c, now, &m.facts)
	if out.Refusal == nil {
		out.Ack.Epoch += m.renewed(s)
	}
	if out.Refusal != nil || out.Event.Seq == 0 {
		return Result{Ack: out.Ack, Refusal: out.Refusal}
	}
	room.state = state
	if !room.dirty {
		room.dirty = true
		m.dirty = append(m.dirty, room)
	}
	if created {
		m.countRoom(s)
	}
	m.store(s, room, &out)
	return Result{Ack: out.Ack}
}

// room returns a room's state from memory or from the store.
func (m *Machine) room(s Store, id ID) *cached {
	if r, ok := m.young[id]; ok {
		return r
	}
	r, ok := m.old[id]
	if !ok {
		// The id is part of a whole command, which must not stay with it.
		r = &cached{id: ID{App: strings.Clone(id.App), Room: strings.Clone(id.Room)}}
		m.key = appendKey(m.key[:0], tableState, id)
		if v, ok := s.Get(m.key); ok {
			r.state = must(DecodeState(v))
			r.recent.floor = lastReceipt(s, id)
		}
	}
	if len(m.young) >= max(1, m.cfg.CacheRooms/2) {
		m.flush(s) // else a room could be forgotten before it is written
		m.old, m.young = m.young, make(map[ID]*cached)
		m.recent = 0
		for _, r := range m.old {
			m.recent += len(r.recent.keys)
		}
	}
	m.young[r.id] = r
	return r
}

// store writes what a new event adds to its room.
func (m *Machine) store(s Store, room *cached, out *Outcome) {
	id := room.id
	m.event = out.Event
	data := m.cfg.Encode(&m.event)
	m.event = Event{}

	m.key = appendEventKey(m.key[:0], id, out.Event.Seq)
	m.value = append(append(m.value[:0], eventVersion), data...)
	s.Set(m.key, m.value)

	m.key = appendReceiptKey(m.key[:0], id, out.Event.User, out.Event.ClientMsgID)
	m.value = out.Receipt.append(m.value[:0])
	s.Set(m.key, m.value)
	m.recent += room.recent.add(recentKey(out.Event.User, out.Event.ClientMsgID), m.recent < recentAll)

	switch out.Change {
	case Joins:
		m.key = appendMemberKey(m.key[:0], id, out.Event.User)
		m.value = appendNumber(m.value[:0], memberVersion, out.Event.Seq)
		s.Set(m.key, m.value)
		m.members.put(id, out.Event.User, true)
	case Leaves:
		m.key = appendMemberKey(m.key[:0], id, out.Event.User)
		s.Delete(m.key)
		m.members.put(id, out.Event.User, false)
	}
	m.published = append(m.published, Published{ID: id, Seq: out.Event.Seq, Data: data})
}

func (m *Machine) countRoom(s Store) {
	if !m.roomsKnown {
		m.rooms, m.roomsKnown = uint64(CountRooms(s)), true
	}
	m.rooms++
	m.roomsDirty = true
}

// flush writes the state of each room that changed, once.
func (m *Machine) flush(s Store) {
	for i, r := range m.dirty {
		m.key = appendKey(m.key[:0], tableState, r.id)
		m.value = r.state.Append(m.value[:0])
		s.Set(m.key, m.value)
		r.dirty = false
		m.dirty[i] = nil
	}
	m.dirty = m.dirty[:0]
	if m.roomsDirty {
		m.value = appendNumber(m.value[:0], countVersion, m.rooms)
		s.Set([]byte{tableCount}, m.value)
		m.roomsDirty = false
	}
	m.flushPlacement(s)
}

// facts looks up what State asks about the room of the command being applied.
type facts struct {
	m    *Machine
	s    Store
	room *cached
}

func (f *facts) Receipt(user, clientMsgID string) (Receipt, bool) {
	f.m.key = appendReceiptKey(f.m.key[:0], f.room.id, user, clientMsgID)
	if f.room.recent.new(f.m.key[len(f.m.key)-len(clientMsgID)-1-len(user):]) {
		return Receipt{}, false
	}
	v, ok := f.s.Get(f.m.key)
	if !ok {
		return Receipt{}, false
	}
	return must(decodeReceipt(v)), true
}

func (f *facts) Member(user string) bool {
	if member, known := f.m.members.get(f.room.id, user); known {
		return member
	}
	f.m.key = appendMemberKey(f.m.key[:0], f.room.id, user)
	v, ok := f.s.Get(f.m.key)
	if ok {
		must(decodeNumber("member", v, memberVersion))
	}
	f.m.members.put(f.room.id, user, ok)
	return ok
}
