package oracle

import (
	"cmp"
	"slices"
)

func (j *judge) stored(r *room) {
	acked, last := 0, int64(0)
	for _, s := range r.sends {
		if s.Outcome == Acked {
			acked, last = acked+1, max(last, s.Return)
		}
	}
	readAfter := false
	for _, read := range r.reads {
		if !read.Complete {
			continue
		}
		readAfter = readAfter || read.Call > last
		v := r.view(read.Observer)
		for _, s := range r.sends {
			if s.Outcome != Acked || s.Return >= read.Call {
				continue
			}
			if e, ok := v.at(s.Seq); !ok {
				j.against("room %s: %s was acked with seq %d, and is not in what %s read up to %d", r.name, s.ID, s.Seq, v.observer, read.Head)
			} else if !s.fits(e) {
				j.against("room %s: %s was acked with seq %d, where %s read %s%s", r.name, s.ID, s.Seq, v.observer, e.ID, otherwise(s, e))
			}
		}
	}
	if acked > 0 && !readAfter {
		j.say(true, "room %s: nobody read all of it after the last of %d acks", r.name, acked)
	}
}

// otherwise says what differs if it is not the id.
func otherwise(s Send, e Seen) string {
	switch {
	case s.ID != e.ID:
		return ""
	case s.Hash != e.Hash:
		return " with another content"
	}
	return " of user " + e.User
}

func (j *judge) oneOrder(r *room) {
	type claim struct {
		Seen
		by string
	}
	first := map[uint64]claim{}
	for _, v := range r.views {
		for _, e := range v.seen {
			c, ok := first[e.Seq]
			if !ok {
				first[e.Seq] = claim{e, v.observer}
			} else if c.ID != e.ID || c.User != e.User || c.Hash != e.Hash {
				j.against("room %s seq %d: %s of %q (content %x) at %s, %s of %q (content %x) at %s", r.name, e.Seq, c.ID, c.User, c.Hash, c.by, e.ID, e.User, e.Hash, v.observer)
			}
		}
	}
	for _, s := range r.sends {
		if s.Outcome != Acked {
			continue
		}
		c, ok := first[s.Seq]
		if !ok {
			first[s.Seq] = claim{Seen{ID: s.ID, User: s.User, Hash: s.Hash}, "the ack of its sender"}
		} else if !s.fits(c.Seen) {
			j.against("room %s seq %d: acked for %s of %q (content %x), but it is %s of %q (content %x) at %s", r.name, s.Seq, s.ID, s.User, s.Hash, c.ID, c.User, c.Hash, c.by)
		}
	}
}

func (j *judge) dense(r *room) {
	for _, v := range r.views {
		last := v.after
		for _, e := range v.seen {
			if e.Seq != last+1 {
				j.against("room %s: %s got seq %d (%s) after %d", r.name, v.observer, e.Seq, e.ID, last)
			}
			last = e.Seq
		}
	}
	for _, read := range r.reads {
		if v := r.view(read.Observer); read.Complete && (len(v.seen) == 0 && read.Head > 0 || len(v.seen) > 0 && v.seen[len(v.seen)-1].Seq != read.Head) {
			j.against("room %s: the reading of %s ends before its head, %d", r.name, v.observer, read.Head)
		}
	}
}

func (j *judge) once(r *room) {
	type place struct {
		seq uint64
		by  string
	}
	first := map[own]place{}
	claim := func(k own, p place) {
		if q, ok := first[k]; !ok {
			first[k] = p
		} else if p.seq != q.seq {
			j.against("room %s: %s of %q has seq %d at %s and seq %d at %s", r.name, k.id, k.user, q.seq, q.by, p.seq, p.by)
		}
	}
	for _, s := range r.sends {
		if s.Outcome == Acked {
			claim(own{s.User, s.ID}, place{s.Seq, "its sender"})
		}
	}
	for _, v := range r.views {
		for _, e := range v.seen {
			claim(own{e.User, e.ID}, place{e.Seq, v.observer})
		}
	}
}

func (j *judge) deviceOrder(r *room) {
	type device struct{ user, device string }
	sent := map[device][]Send{}
	for _, s := range r.sends {
		if s.N > 0 {
			k := device{s.User, s.Device}
			sent[k] = append(sent[k], s)
		}
	}
	for _, s := range r.sends { // in the order of the history, not of a map
		k := device{s.User, s.Device}
		list := sent[k]
		delete(sent, k)
		slices.SortStableFunc(list, func(a, b Send) int { return cmp.Compare(a.N, b.N) })
		var before Send
		for _, x := range list {
			if x.Seq = r.seqs[own{x.User, x.ID}]; x.Seq == 0 {
				continue
			}
			if x.Seq <= before.Seq && x.ID != before.ID {
				j.against("room %s: send %d of %s/%s (%s) has seq %d, and its send %d (%s) seq %d", r.name, before.N, x.User, x.Device, before.ID, before.Seq, x.N, x.ID, x.Seq)
			}
			before = x
		}
	}
}

func (j *judge) never(r *room) {
	tried := map[own]bool{} // with an outcome other than rejected
	for _, s := range r.sends {
		if s.Outcome != Rejected {
			tried[own{s.User, s.ID}] = true
		}
	}
	rejected := map[string][]Send{}
	for _, s := range r.sends {
		if s.Outcome == Rejected && !tried[own{s.User, s.ID}] {
			rejected[s.ID] = append(rejected[s.ID], s)
		}
	}
	for _, v := range r.views {
		for _, e := range v.seen {
			if slices.ContainsFunc(rejected[e.ID], func(s Send) bool { return s.fits(e) }) {
				j.against("room %s: %s was rejected, and %s saw it with seq %d", r.name, e.ID, v.observer, e.Seq)
			}
		}
	}
}

func (j *judge) noInvention(r *room) {
	sent := make(map[string][]Send, len(r.sends))
	for _, s := range r.sends {
		sent[s.ID] = append(sent[s.ID], s)
	}
	for _, v := range r.views {
		for _, e := range v.seen {
			if !slices.ContainsFunc(sent[e.ID], func(s Send) bool { return s.fits(e) }) {
				j.against("room %s seq %d: %s saw %s of %q (content %x), which nobody sent", r.name, e.Seq, v.observer, e.ID, e.User, e.Hash)
			}
		}
	}
}

func (j *judge) sameState(states []State) {
	type point struct {
		group   uint32
		applied uint64
	}
	first := map[point]State{}
	for _, s := range states {
		k := point{s.Group, s.Applied}
		if f, ok := first[k]; !ok {
			first[k] = s
		} else if f.Hash != s.Hash {
			j.against("group %d at index %d: %s has state %x, %s has %x", s.Group, s.Applied, f.Node, f.Hash, s.Node, s.Hash)
		}
	}
}
