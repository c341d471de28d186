package oracle

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Rule is a promise that a history can break. Their numbers are those of the
// project's list of checkers.
type Rule int

// The rules; the package's comment says what each means.
const (
	Stored Rule = 1 + iota
	OneOrder
	Dense
	Once
	DeviceOrder
	RealTime
	Never
	NoInvention
	SameState
)

var ruleNames = []string{"", "stored", "one order", "dense", "once", "device order", "real time", "never", "no invention", "same state"}

// String returns the rule's name.
func (r Rule) String() string { return ruleNames[r] }

// Finding is a promise that was broken, or about which the history does not
// say enough.
type Finding struct {
	Rule      Rule
	Undecided bool
	Text      string // names the room, the seqs and the ids
}

// String returns the finding in one line.
func (f Finding) String() string {
	if f.Undecided {
		return fmt.Sprintf("%v: undecided: %s", f.Rule, f.Text)
	}
	return fmt.Sprintf("%v: %s", f.Rule, f.Text)
}

// maxFindings bounds what is said about one rule; the rest is counted.
const maxFindings = 10

// Check returns what speaks against a history, nothing if it keeps the rules
// (none named = all). It takes some seconds for a million records.
func Check(h *History, rules ...Rule) []Finding {
	if len(rules) == 0 {
		rules = []Rule{Stored, OneOrder, Dense, Once, DeviceOrder, RealTime, Never, NoInvention, SameState}
	}
	rooms := byRoom(h)
	names := slices.Sorted(maps.Keys(rooms))
	var found []Finding
	for _, rule := range rules {
		j := judge{rule: rule}
		if rule == SameState {
			j.sameState(h.States)
		}
		for _, name := range names {
			if check := roomRules[rule]; check != nil {
				check(&j, rooms[name])
			}
		}
		if j.more > 0 {
			j.found = append(j.found, Finding{rule, false, fmt.Sprintf("and %d more", j.more)})
		}
		found = append(found, j.found...)
	}
	return found
}

var roomRules = map[Rule]func(*judge, *room){
	Stored: (*judge).stored, OneOrder: (*judge).oneOrder, Dense: (*judge).dense, Once: (*judge).once,
	DeviceOrder: (*judge).deviceOrder, RealTime: (*judge).realTime, Never: (*judge).never, NoInvention: (*judge).noInvention,
}

// judge gathers the findings about one rule.
type judge struct {
	rule  Rule
	found []Finding
	more  int
}

func (j *judge) say(undecided bool, format string, args ...any) {
	if len(j.found) >= maxFindings {
		j.more++
		return
	}
	j.found = append(j.found, Finding{j.rule, undecided, fmt.Sprintf(format, args...)})
}

// against says that the rule is broken.
func (j *judge) against(format string, args ...any) { j.say(false, format, args...) }

// room is what a history says about one room.
type room struct {
	name  string
	sends []Send
	views []*view
	reads []Read
	seqs  map[own]uint64 // where ids were seen or acked first
}

// own is an id among those of its user; "" = of whichever user.
type own struct{ user, id string }

// view is what one observer saw of a room.
type view struct {
	observer string
	after    uint64
	seen     []Seen
}

// at returns what the observer saw at a seq.
func (v *view) at(seq uint64) (Seen, bool) {
	if i := seq - v.after - 1; i < uint64(len(v.seen)) && v.seen[i].Seq == seq {
		return v.seen[i], true // a view without holes, as it should be
	}
	for _, s := range v.seen {
		if s.Seq == seq {
			return s, true
		}
	}
	return Seen{}, false
}

func byRoom(h *History) map[string]*room {
	rooms := map[string]*room{}
	get := func(app, name string) *room {
		full := strings.TrimPrefix(app+"/"+name, "/")
		r := rooms[full]
		if r == nil {
			r = &room{name: full, seqs: map[own]uint64{}}
			rooms[full] = r
		}
		return r
	}
	type key struct {
		r        *room
		observer string
	}
	views := map[key]*view{}
	look := func(app, name, observer string) (*room, *view) {
		k := key{get(app, name), observer}
		if views[k] == nil {
			views[k] = &view{observer: observer}
			k.r.views = append(k.r.views, views[k])
		}
		return k.r, views[k]
	}
	for _, f := range h.Follows {
		_, v := look(f.App, f.Room, f.Observer)
		v.after = f.After
	}
	for _, s := range h.Seen {
		r, v := look(s.App, s.Room, s.Observer)
		v.seen = append(v.seen, s)
		r.note(s.User, s.ID, s.Seq)
	}
	for _, s := range h.Sends {
		r := get(s.App, s.Room)
		r.sends = append(r.sends, s)
		if s.Outcome == Acked {
			r.note(s.User, s.ID, s.Seq)
		}
	}
	for _, read := range h.Reads {
		r, _ := look(read.App, read.Room, read.Observer)
		r.reads = append(r.reads, read)
	}
	return rooms
}

func (r *room) note(user, id string, seq uint64) {
	for _, k := range []own{{user, id}, {"", id}} {
		if _, ok := r.seqs[k]; !ok {
			r.seqs[k] = seq
		}
	}
}

// view returns what an observer saw.
func (r *room) view(observer string) *view {
	i := slices.IndexFunc(r.views, func(v *view) bool { return v.observer == observer })
	return r.views[i]
}

// fits reports whether what was seen can be what was sent.
func (s Send) fits(e Seen) bool {
	return s.ID == e.ID && (s.User == e.User || s.User == "" || e.User == "") && (s.Hash == e.Hash || s.Hash == 0 || e.Hash == 0)
}
