package room

// A group that was recovered with loss is in another epoch: its rooms may lack
// events that somebody has seen, and have others with their seqs. So all of its
// rooms, those to come included, get another epoch, by one value in the store.

// tableRenewed is added to the tables of a store: nothing else, the epoch.
const (
	tableRenewed   = 'g'
	renewedVersion = 1
)

// groupEpoch is the epoch of a group in memory.
type groupEpoch struct {
	value uint64
	known bool // is read from the store
	news  bool // for who asks with Renewed
}

// renew begins an epoch of the group. Its command is the first one in it.
func (m *Machine) renew(s Store, c *Command) Result {
	if c.Placement > m.renewed(s) {
		m.epoch.value, m.epoch.news = c.Placement, true
		m.value = appendNumber(m.value[:0], renewedVersion, c.Placement)
		s.Set([]byte{tableRenewed}, m.value)
	}
	return Result{Ack: Ack{Epoch: m.epoch.value}}
}

func (m *Machine) renewed(r Reader) uint64 {
	if !m.epoch.known {
		m.epoch = groupEpoch{value: readRenewed(r), known: true}
	}
	return m.epoch.value
}

// Renewed reports whether the group has begun an epoch since the last call. As
// Take it is for when the writes of Apply are committed.
func (m *Machine) Renewed() bool {
	news := m.epoch.news
	m.epoch.news = false
	return news
}

func readRenewed(r Reader) uint64 {
	v, ok := r.Get([]byte{tableRenewed})
	if !ok {
		return 0
	}
	return must(decodeNumber("epoch of a group", v, renewedVersion))
}

// Epoch returns the epoch of a room of the group: of one that does not exist, the
// one that it would be made in. It never falls.
func Epoch(r Reader, id ID) uint64 {
	s, ok := Load(r, id)
	if !ok {
		s.Epoch = 1
	}
	return s.Epoch + readRenewed(r)
}
