package mesh

import (
	"cmp"
	"slices"
)

// parentsMax bounds the parents of a node: two are enough for one to die, and the third
// is there while another is found.
const parentsMax = 3

// parents returns the parents that this node says it has.
func (g *gossip) parents() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.self.parents
}

// keepParents says in gossip over which nodes one can reach this one, if it cannot be
// dialled.
func (m *Mesh) keepParents(view *View) {
	if !m.cfg.Outbound {
		return
	}
	was := m.gossip.parents()
	now := chooseParents(view.Members, was)
	if slices.Equal(now, was) {
		return
	}
	m.log.Info("reached over other parents", "parents", now)
	m.gossip.say(func(self *meta) { self.parents = now })
	m.table.setParents(now)
}

// chooseParents chooses among the members that there is a link to without others and
// that can be dialled. Those that are parents stay it as long as they may be; places
// that are free go to the nearest.
func chooseParents(members []Member, was []string) []string {
	var may []Member
	for _, p := range members {
		if p.Linked && p.State == Alive && !p.Outbound && (p.Path == PathUDP || p.Path == PathTCP) {
			may = append(may, p)
		}
	}
	slices.SortStableFunc(may, func(a, b Member) int {
		return cmp.Or(cmp.Compare(rank(was, a.ID), rank(was, b.ID)), cmp.Compare(a.MinRTT, b.MinRTT))
	})
	ids := make([]string, 0, parentsMax)
	for _, p := range may[:min(len(may), parentsMax)] {
		ids = append(ids, p.ID)
	}
	return ids
}

// rank is the place of an id among others, or after all of them.
func rank(ids []string, id string) int {
	if i := slices.Index(ids, id); i >= 0 {
		return i
	}
	return len(ids)
}

// setParents shows the parents of this node.
func (t *table) setParents(ids []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all[t.self].Parents = ids
	t.publish()
}
