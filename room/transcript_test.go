package room

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write what happens into testdata")

// TestTranscripts plays the commands in testdata/*.txtar, the lines that begin
// with ">", and compares what happens with the lines below each.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for i, f := range archive.Files {
				got := newScene().play(t, string(f.Data))
				if got != string(f.Data) && !*update {
					t.Errorf("%s has changed (see with -update and git diff); got:\n%s", f.Name, got)
				}
				archive.Files[i].Data = []byte(got)
			}
			if *update {
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// scene is one store and what the next commands are about.
type scene struct {
	store   *memory
	machine *Machine
	now     int64
	id      ID
	access  Access
	by      uint64 // the placement that sends carry
	last    []byte // the last command, for retry
}

func newScene() *scene {
	return &scene{
		store: newMemory(), machine: NewMachine(Config{Encode: encodeJSON, Group: 5}),
		now: 1000, id: ID{"acme", "lobby"}, access: Open,
	}
}

func (s *scene) play(t *testing.T, script string) string {
	var out strings.Builder
	for line := range strings.Lines(script) {
		line = strings.TrimSuffix(line, "\n")
		command, ok := strings.CutPrefix(line, "> ")
		if !ok {
			if line == "" || strings.HasPrefix(line, "#") {
				out.WriteString(line + "\n")
			}
			continue
		}
		out.WriteString(line + "\n")
		for _, r := range s.do(t, command) {
			out.WriteString("  " + r + "\n")
		}
		for _, room := range List(s.store, s.id.App, "", 100) {
			if err := Check(s.store, room.ID); err != nil {
				t.Errorf("after %q: %v", line, err)
			}
		}
	}
	return out.String()
}

var accessNames = map[string]Access{"open": Open, "members": Members, "none": 0}

var kindOf = map[string]Kind{"msg": Message, "action": Action, "join": Join, "leave": Leave, "create": Create}

// do runs one line of a transcript:
//
//	at MS                       the log's time from now on
//	room ROOM, app APP          where from now on
//	access open|members|none    what sends carry from now on
//	msg|action|join|leave USER ID [TEXT…]
//	create USER ID ACCESS       ID of any command: client_msg_id
//	retry                       the last command again
//	by PLACEMENT                what sends carry from now on
//	claim, elsewhere GROUP      by that placement
//	renew EPOCH                 of the group
//	raw HEX                     any bytes
//	read AFTER, state, rooms, members, forget
func (s *scene) do(t *testing.T, line string) []string {
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "at":
		now, err := strconv.ParseInt(rest, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		s.now = now
	case "room":
		s.id.Room = rest
	case "app":
		s.id.App = rest
	case "access":
		s.access = accessNames[rest]
	case "msg", "action", "join", "leave", "create":
		w := strings.SplitN(rest, " ", 3)
		w = append(w, make([]string, 3-len(w))...)
		c := Command{ID: s.id, User: w[0], ClientMsgID: w[1], Content: w[2], Kind: kindOf[verb], Access: s.access, Placement: s.by}
		if c.Kind == Create {
			c.Access, c.Content = accessNames[w[2]], ""
		}
		s.last = c.Append(nil)
		return s.apply()
	case "by":
		if s.by = Exists; rest != "exists" {
			s.by, _ = strconv.ParseUint(rest, 10, 64)
		}
	case "claim":
		s.last = Command{ID: s.id, Kind: Claim, Placement: s.by}.Append(nil)
		return s.apply()
	case "elsewhere":
		group, _ := strconv.ParseUint(rest, 10, 32)
		s.last = Command{ID: s.id, Kind: Elsewhere, Placement: s.by, Group: uint32(group)}.Append(nil)
		return s.apply()
	case "renew":
		epoch, _ := strconv.ParseUint(rest, 10, 64)
		s.last = Command{ID: s.id, Kind: Renew, Placement: epoch}.Append(nil)
		return s.apply()
	case "retry":
		return s.apply()
	case "raw":
		b, err := hex.DecodeString(strings.ReplaceAll(rest, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		s.last = b
		return s.apply()
	case "forget":
		s.machine.Reset()
	default:
		return s.show(t, verb, rest)
	}
	return nil
}

func (s *scene) apply() (out []string) {
	results, stop := applyOrStop(s.machine, s.store, s.now, s.last)
	if stop != nil {
		return []string{"stopped by " + stop.Error()}
	}
	r := results[0].(Result)
	switch {
	case r.Refusal != nil:
		out = append(out, "refused "+r.Refusal.Error())
	case r.Ack.Seq == 0:
		out = append(out, "ack of seq 0")
	case r.Ack.Duplicate:
		out = append(out, fmt.Sprintf("duplicate of seq %d at %d", r.Ack.Seq, r.Ack.TS))
	default:
		out = append(out, fmt.Sprintf("seq %d at %d", r.Ack.Seq, r.Ack.TS))
	}
	if r.Ack.Epoch > 1 {
		out[0] += fmt.Sprintf(", epoch %d", r.Ack.Epoch)
	}
	if s.machine.Renewed() {
		out = append(out, "renewed")
	}
	for _, p := range s.machine.Take() {
		if p.Seq != r.Ack.Seq || p.ID != s.id && s.id.App == p.ID.App && s.id.Room == p.ID.Room {
			out = append(out, fmt.Sprintf("published %v seq %d instead", p.ID, p.Seq))
		}
	}
	return out
}

func (s *scene) show(t *testing.T, verb, rest string) (out []string) {
	switch verb {
	case "read":
		after, err := strconv.ParseUint(rest, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range Read(s.store, s.id, after, 100, 1<<20) {
			e := decodeJSON(t, b)
			out = append(out, fmt.Sprintf("%d %s %s: %s", e.Seq, e.User, e.Kind, e.Content))
		}
	case "state":
		st, ok := Load(s.store, s.id)
		if !ok {
			return []string{"no such room"}
		}
		out = append(out, fmt.Sprintf("%s, epoch %d, head %d, at %d, members %d", st.Access, st.Epoch, st.Head, st.TS, st.Members))
	case "rooms":
		for _, r := range List(s.store, s.id.App, "", 100) {
			out = append(out, fmt.Sprintf("%s head %d", r.ID.Room, r.State.Head))
		}
		out = append(out, fmt.Sprintf("%d in the group", CountRooms(s.store)))
	case "members":
		prefix := appendKey(nil, tableMember, s.id)
		s.store.Scan(prefix, prefixEnd(prefix), func(key, _ []byte) bool {
			out = append(out, string(key[len(prefix):]))
			return true
		})
	default:
		t.Fatalf("unknown command %q", verb)
	}
	return out
}

// model says in the plainest way what a room does.
type model struct {
	access  Access
	members []string
	said    []Command
}

func (m *model) apply(c Command) (seq int, duplicate bool, code string) {
	for i, old := range m.said {
		if m.access != 0 && old.User == c.User && old.ClientMsgID == c.ClientMsgID {
			same := old.Kind == c.Kind && old.Type == c.Type && old.Content == c.Content
			if c.Kind == Create && old.Access != c.Access {
				same = false
			}
			if !same {
				return 0, false, CodeConflict
			}
			return i + 1, true, ""
		}
	}
	member := slices.Contains(m.members, c.User)
	switch {
	case c.Kind == Create && m.access != 0:
		return 0, false, CodeExists
	case c.Kind == Create || m.access == 0 && c.Access == Open:
		m.access = c.Access
	case m.access == 0:
		return 0, false, CodeNotFound
	case m.access == Members && c.Kind == Join && member:
		return 0, false, CodeAlreadyMember
	case m.access == Members && c.Kind != Join && !member:
		return 0, false, CodeNotMember
	}
	if (c.Kind == Create || c.Kind == Join) && !member {
		m.members = append(m.members, c.User)
	}
	if c.Kind == Leave {
		m.members = slices.DeleteFunc(m.members, func(u string) bool { return u == c.User })
	}
	m.said = append(m.said, c)
	return len(m.said), false, ""
}

func codeOf(r *Refusal) string {
	if r == nil {
		return ""
	}
	if !errors.Is(r, &Refusal{Code: r.Code}) {
		return "not itself"
	}
	return r.Code
}
