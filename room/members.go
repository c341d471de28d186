package room

import "strings"

// membersKept bounds the memberships that a Machine remembers, of some 150 bytes
// each, in each of two generations.
const membersKept = 8192

// members remembers who is a member of which room, and who is not. What is used
// moves to the young generation; when that is full, the old one is forgotten.
type members struct {
	young, old map[membership]bool
}

type membership struct {
	id   ID
	user string
}

// get returns what is known of a membership.
func (m *members) get(id ID, user string) (member, known bool) {
	k := membership{id, user}
	if member, known = m.young[k]; known {
		return member, true
	}
	if member, known = m.old[k]; known {
		m.put(id, user, member)
	}
	return member, known
}

// put notes a membership. It keeps the id, and a copy of the user.
func (m *members) put(id ID, user string, member bool) {
	if len(m.young) >= membersKept {
		m.young, m.old = nil, m.young
	}
	if m.young == nil {
		m.young = make(map[membership]bool)
	}
	// The user is part of a whole command, which must not stay with it.
	m.young[membership{id, strings.Clone(user)}] = member
}
