package directory

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
)

// snapshot is the JSON form of a State. Init holds what is now; the rest is
// since format 2.
type snapshot struct {
	V       int    `json:"v"`
	Version uint64 `json:"version"`
	Init
	Placement uint64    `json:"placement,omitzero"`
	Paused    bool      `json:"paused,omitzero"`
	Earlier   []Earlier `json:"earlier,omitempty"`
	Root      Replicas  `json:"root,omitzero"` // since format 3
	// Turns are the exceptions that are over; group 0 is the end of one.
	Turns []Exception `json:"turns,omitempty"`

	// Since format 4.
	Tokens  []Token    `json:"tokens,omitempty"`
	Revoked []string   `json:"revoked,omitempty"`
	Gossip  GossipKeys `json:"gossip,omitzero"`
}

// Snapshot returns s as a versioned JSON document for Restore. Equal states
// have equal snapshots. It holds the secrets of keys.
func (s *State) Snapshot() ([]byte, error) {
	d := snapshot{V: s.format(), Version: s.version, Init: Init{Groups: s.Groups()}, Placement: s.placement, Paused: s.paused, Root: s.root, Tokens: s.Tokens(), Revoked: s.Revoked(), Gossip: s.gossip}
	for _, name := range slices.Sorted(maps.Keys(s.apps)) {
		d.Apps = append(d.Apps, s.apps[name])
	}
	for _, id := range slices.Sorted(maps.Keys(s.nodes)) {
		d.Nodes = append(d.Nodes, s.nodes[id])
	}
	for _, app := range slices.Sorted(maps.Keys(s.earlier)) {
		d.Earlier = append(d.Earlier, s.earlier[app]...)
	}
	for at, turns := range s.exceptions {
		for i, t := range turns {
			e := Exception{at.app, at.room, t.group, t.from}
			if i == len(turns)-1 && t.group != 0 {
				d.Exceptions = append(d.Exceptions, e)
			} else {
				d.Turns = append(d.Turns, e)
			}
		}
	}
	for _, list := range [][]Exception{d.Exceptions, d.Turns} {
		slices.SortFunc(list, func(a, b Exception) int {
			return cmp.Or(cmp.Compare(a.App, b.App), cmp.Compare(a.Room, b.Room), cmp.Compare(a.From, b.From))
		})
	}
	return json.Marshal(d)
}

// format returns the oldest format that can hold s.
func (s *State) format() int {
	if len(s.tokens)+len(s.revoked) > 0 || s.gossip.Version > 0 || slices.ContainsFunc(s.Nodes(), Node.admitted) {
		return 4
	}
	rules := rulesOf(sortedValues(s.apps))
	for _, list := range s.earlier {
		for _, e := range list {
			rules = append(rules, e.Rules)
		}
	}
	if classed(s.Groups(), rules...) || len(s.root.Voters) > 0 {
		return 3
	}
	if s.placement > 0 || s.paused {
		return 2
	}
	for _, g := range s.groups {
		if len(g.Now.Voters) > 0 {
			return 2
		}
	}
	return 1
}

// Restore returns the State of a snapshot. The error is a *Refusal, newer_format
// if a later release made the snapshot.
func Restore(b []byte, rank Rank) (*State, error) {
	var d snapshot
	if r := decode(b, &d); r != nil {
		return nil, r
	}
	s := New(rank)
	if r := s.fill(d.Init); r != nil {
		return nil, r
	}
	s.version, s.placement, s.paused, s.root = d.Version, d.Placement, d.Paused, d.Root
	s.gossip = d.Gossip
	for _, t := range d.Tokens {
		s.tokens[t.ID] = t
	}
	for _, id := range d.Revoked {
		s.revoked[id] = true
	}
	for _, e := range d.Earlier {
		s.earlier[e.App] = append(s.earlier[e.App], e)
	}
	for _, e := range d.Turns {
		at := place{e.App, e.Room}
		s.exceptions[at] = append(s.exceptions[at], turn{e.From, e.Group})
		slices.SortFunc(s.exceptions[at], func(a, b turn) int { return cmp.Compare(a.from, b.from) })
	}
	s.index()
	if r := s.check(); r != nil {
		return nil, r
	}
	if d.V != s.format() {
		return nil, refuse(CodeBadRequest, "a snapshot of format %d has format %d", s.format(), d.V)
	}
	return s, nil
}
