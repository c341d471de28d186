package geo

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

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
				got := new(scene).play(t, string(f.Data))
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

// scene is a group and the nodes of its mesh.
type scene struct {
	policy Policy
	nodes  []NodeState
	now    Config
}

func (s *scene) play(t *testing.T, script string) string {
	var out strings.Builder
	for line := range strings.Lines(script) {
		line = strings.TrimSuffix(line, "\n")
		command, ok := strings.CutPrefix(line, "> ")
		if ok {
			out.WriteString(line + "\n")
			for _, result := range s.do(t, strings.Fields(command)) {
				out.WriteString("  " + result + "\n")
			}
		} else if line == "" || strings.HasPrefix(line, "#") {
			out.WriteString(line + "\n")
		}
	}
	return out.String()
}

// do runs one line of a transcript:
//
//	policy HOME SURVIVE [allow R,R] [forbid R,R] [key KEY]
//	nodes N@R …                nodes that are alive
//	node N STATE [FOR] [load COUNT]
//	group V,V,… [learners L,L] the group as it is; the first one leads
//	caught N                   a replica has caught up
//	want                       what Place says
//	step                       what NextStep says, and it happens
//	steps                      all steps up to the last; who is added catches up
func (s *scene) do(t *testing.T, w []string) (out []string) {
	option := func(name string) string {
		if i := slices.Index(w, name); i >= 0 {
			return w[i+1]
		}
		return ""
	}
	list := func(text string) []string { return strings.FieldsFunc(text, func(r rune) bool { return r == ',' }) }
	switch w[0] {
	case "policy":
		s.policy = Policy{Home: w[1], Survive: Survive(w[2]), Allow: list(option("allow")), Forbid: list(option("forbid")), Key: option("key")}
	case "nodes":
		for _, site := range sites(strings.Join(w[1:], " ")) {
			s.nodes = append(s.nodes, NodeState{Site: site, State: Alive})
		}
	case "node":
		n := &s.nodes[slices.IndexFunc(s.nodes, func(n NodeState) bool { return n.Node == w[1] })]
		n.State, n.FailedFor = State(w[2]), 0
		if len(w) > 3 && w[3] != "load" {
			n.FailedFor, _ = time.ParseDuration(w[3])
		}
		n.Load, _ = strconv.Atoi(option("load"))
	case "group":
		s.now = Config{Voters: list(w[1]), Learners: list(option("learners"))}
		s.now.Leader = s.now.Voters[0]
		s.now.CaughtUp = slices.Concat(s.now.Voters, s.now.Learners)
	case "caught":
		s.now.CaughtUp = append(s.now.CaughtUp, w[1])
	case "want":
		return show(Place(s.policy, s.nodes, s.now, Pops()))
	case "copies":
		return []string{"copies " + strings.Join(Copies(Place(s.policy, s.nodes, s.now, Pops()), s.nodes, s.now), " ")}
	case "losses":
		var sites []Site
		var gone []string
		for _, n := range s.nodes {
			sites = append(sites, n.Site)
			if n.State != Alive {
				gone = append(gone, n.Node)
			}
		}
		return Losses(s.now.Voters, s.now.Learners, gone, sites)
	case "step", "steps":
		for range 30 {
			step, why := s.step()
			out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s: %s", step.Do, step.Node, why)))
			if step.Do != "" {
				out = append(out, "  "+s.show())
			}
			if step.Do == "" || w[0] == "step" {
				return out
			}
			s.now.CaughtUp = slices.Concat(s.now.Voters, s.now.Learners)
		}
		t.Errorf("there is no end of steps: %v", out)
	default:
		t.Fatalf("unknown command %q", w)
	}
	return out
}

func show(p Placement) (out []string) {
	out = append(out, "voters "+strings.Join(p.Voters, " "))
	if len(p.Learners) > 0 {
		out = append(out, "learners "+strings.Join(p.Learners, " "))
	}
	if p.UnderReplicated != "" {
		out = append(out, "under-replicated: "+p.UnderReplicated)
	}
	return out
}

func (s *scene) show() string {
	text := fmt.Sprintf("voters %s, %s leads", strings.Join(s.now.Voters, " "), s.now.Leader)
	if len(s.now.Learners) > 0 {
		text += ", learners " + strings.Join(s.now.Learners, " ")
	}
	return text
}

// step takes the next step. Nodes that are leaving are there until they go.
func (s *scene) step() (Step, string) {
	s.now.Alive = nil
	for _, n := range s.nodes {
		if n.State.Answers() {
			s.now.Alive = append(s.now.Alive, n.Node)
		}
	}
	s.elect()
	step, why := NextStep(s.now, Place(s.policy, s.nodes, s.now, Pops()))
	if s.now = s.now.after(step); step.Do == Remove {
		s.now.CaughtUp = less(s.now.CaughtUp, []string{step.Node})
	}
	return step, why
}

// elect gives the group a leader if a quorum of it is alive, and none if not.
func (s *scene) elect() {
	alive := less(s.now.Voters, less(s.now.Voters, s.now.Alive))
	switch {
	case len(alive) < quorum(len(s.now.Voters)):
		s.now.Leader = ""
	case !slices.Contains(alive, s.now.Leader):
		s.now.Leader = alive[0]
	}
}
