package relay

import (
	"hash/maphash"
	"maps"
	"slices"
	"time"

	"github.com/starling-im/starling/wire"
)

const (
	// talkLines and talkBytes bound what a node passes on at a time of what is said live in
	// a room.
	talkLines = 32
	talkBytes = 8 << 10
	// lineOverhead is what a line takes beside its texts.
	lineOverhead = 16
	// talkForget is how long a node is remembered in whose lines there was nothing new. No
	// link brings anything that is as late.
	talkForget = 30 * time.Second
)

// A talk is what was said live in a room since this node told others last, as much of it as
// has a place. It is a value, as a crowd is.
//
// Each node counts the lines that are said there. A number that was heard is not heard again,
// whoever tells it, and what the numbers say beyond the lines that came was left out or
// lost.
type talk struct {
	self  string
	lots  func(round uint64, user string) uint64
	round uint64 // rises when others were told
	said  uint64 // lines of all nodes so far
	told  uint64 // those of them when others were told last
	fresh bool   // there is something of which others are to be told
	lines []line // in the order of their coming
	bytes int
	nodes map[string]*talker
}

type line struct {
	*wire.Line
	by   *talker
	rank int // the lines of the same user and node before it
	lot  uint64
}

// talker is a node whose users say something.
type talker struct {
	began       int64  // which count
	after, upto uint64 // the numbers of which others are to be told
	from        string // who told
	down        bool   // it was the parent
	heard       time.Time
	lines       int // those of talk.lines
}

// say takes what an own user says, and returns how many lines lose their place, with at
// most max bytes for all. If it is the first of a count, that one began at began, Unix ms.
func (t *talk) say(user, text string, now time.Time, began int64, max int) (lost int) {
	by := t.nodes[t.self]
	if by == nil {
		by = t.talker(t.self, began, 0)
	}
	t.fresh = true
	by.upto++
	by.from, by.heard = t.self, now
	t.said++
	return t.put(by, &wire.Line{User: user, Content: text, TsMs: now.UnixMilli()}, max)
}

// hear takes what a node tells, the parent if down. It returns how many lines lose their
// place, and whether the node is one too many.
func (t *talk) hear(from string, down bool, is *wire.Talk, now time.Time, max int) (lost int, full bool) {
	by := t.nodes[is.Node]
	switch {
	case is.Node == t.self:
		return 0, false
	case by == nil && len(t.nodes) >= crowdNodes:
		return 0, true
	case by == nil || is.BeganMs > by.began:
		by = t.talker(is.Node, is.BeganMs, is.After)
	case is.BeganMs < by.began || is.Upto <= by.upto:
		return 0, false
	}
	t.fresh = true
	known := is.After < by.upto
	t.said += is.Upto - by.upto
	by.upto, by.from, by.down, by.heard = is.Upto, from, down, now
	if known { // which of the lines are new nobody knows
		return 0, false
	}
	for _, l := range is.Lines {
		lost += t.put(by, l, max)
	}
	return lost, false
}

func (t *talk) talker(node string, began int64, after uint64) *talker {
	if t.nodes == nil {
		t.nodes = map[string]*talker{}
	}
	t.nodes[node] = &talker{began: began, after: after, upto: after}
	return t.nodes[node]
}

// put gives a line a place, and takes those away that are too many for it.
func (t *talk) put(by *talker, is *wire.Line, max int) (lost int) {
	l := line{Line: is, by: by, lot: t.lots(t.round, is.User)}
	for _, o := range t.lines {
		if o.by == by && o.User == is.User {
			l.rank++
		}
	}
	t.lines = append(t.lines, l)
	by.lines++
	t.bytes += l.size()
	for len(t.lines) > talkLines || t.bytes > max {
		last := 0
		for i := range t.lines {
			if t.lines[i].yields(t.lines[last]) {
				last = i
			}
		}
		t.bytes -= t.lines[last].size()
		t.lines[last].by.lines--
		t.lines = slices.Delete(t.lines, last, last+1)
		lost++
	}
	return lost
}

// yields reports whether l loses its place before o does: it is of the node that has more,
// of one's lines the later, of the lines of two users the one whose lot says so. Lots are drawn
// anew when others were told.
func (l line) yields(o line) bool {
	switch {
	case l.by.lines != o.by.lines:
		return l.by.lines > o.by.lines
	case l.rank != o.rank:
		return l.rank > o.rank
	}
	return l.lot > o.lot
}

func (l line) size() int { return len(l.User) + len(l.Content) + lineOverhead }

// tell returns what a peer is to be told. A parent (up) gets only what did not come from one.
// First come those that have lines: the count of the others is in what they say next.
func (t *talk) tell(peer string, up bool) []*wire.Talk {
	var silent, talks []*wire.Talk
	for node, by := range t.nodes {
		if by.after == by.upto || by.from == peer || node == peer || up && by.down {
			continue
		}
		is := &wire.Talk{Node: node, BeganMs: by.began, After: by.after, Upto: by.upto}
		for _, l := range t.lines {
			if l.by == by {
				is.Lines = append(is.Lines, l.Line)
			}
		}
		if is.Lines == nil {
			silent = append(silent, is)
		} else {
			talks = append(talks, is)
		}
	}
	talks = append(talks, silent...)
	return talks[:min(len(talks), aggregateShares)]
}

// live returns the lines that clients are told.
func (t *talk) live() []*wire.Line {
	lines := make([]*wire.Line, len(t.lines))
	for i, l := range t.lines {
		lines[i] = l.Line
	}
	return lines
}

// over begins anew when others were told.
func (t *talk) over(now time.Time) {
	if t.fresh {
		t.fresh = false
		t.round++
		t.told = t.said
		t.lines, t.bytes = nil, 0
		for _, by := range t.nodes {
			by.after, by.lines = by.upto, 0
		}
	}
	maps.DeleteFunc(t.nodes, func(_ string, by *talker) bool { return now.Sub(by.heard) >= talkForget })
}

// drawLots returns how users draw lots: so that nobody knows before, and each once in a round.
func drawLots() func(round uint64, user string) uint64 {
	type draw struct {
		round uint64
		user  string
	}
	seed := maphash.MakeSeed()
	return func(round uint64, user string) uint64 { return maphash.Comparable(seed, draw{round, user}) }
}
