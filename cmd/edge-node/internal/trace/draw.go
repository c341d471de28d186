package trace

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/starling-im/starling"
)

// Draw writes the tree, a line per step.
func (m *Message) Draw(w io.Writer) error {
	tree := m.Tree()
	var b strings.Builder
	got := 0
	for _, c := range m.Clients {
		if c.Got != 0 {
			got++
		}
	}
	if m.remembered() {
		fmt.Fprintf(&b, "seq %d of %s: %.1f ms in all (trace %s)\n\n", m.Seq, cmp.Or(m.User, "a user who is not known"), m.Total(), m.Trace)
	} else {
		fmt.Fprintf(&b, "%s, seq %d: %d of %d clients have it, the last after %.1f ms (trace %s)\n\n", m.Room, m.Seq, got, len(m.Clients), m.Total(), m.Trace)
	}
	fmt.Fprintf(&b, "%10s %10s\n", "TOOK MS", "AT MS")
	tree.draw(&b, "")
	for _, c := range m.Clocks {
		if c.Off() {
			fmt.Fprintf(&b, "\nThe clock of %s is %.1f ms ahead of this machine's, give or take %.1f ms; its times are corrected by that.", c.Node, c.Ahead, c.Within)
		}
	}
	if unknown := m.unknown(); len(unknown) > 0 {
		fmt.Fprintf(&b, "\nHow far the clocks of %s are from this machine's is not known: ways to and from there are off by it.", strings.Join(unknown, ", "))
	}
	if text := b.String(); !strings.HasSuffix(text, "\n") {
		b.WriteString("\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// unknown are the nodes whose clocks nobody has looked at.
func (m *Message) unknown() (nodes []string) {
	known := map[string]bool{}
	for _, c := range m.Clocks {
		known[c.Node] = true
	}
	for _, h := range m.Hops {
		if !known[h.Node] {
			known[h.Node] = true
			nodes = append(nodes, h.Node)
		}
	}
	return nodes
}

// draw writes what comes after a step: below it, or as branches if it is several.
func (s *Step) draw(b *strings.Builder, indent string) {
	for i, next := range s.Then {
		branch, below := "", ""
		if len(s.Then) > 1 {
			branch, below = "├─ ", "│  "
			if i == len(s.Then)-1 {
				branch, below = "└─ ", "   "
			}
		}
		fmt.Fprintf(b, "%10.3f %10.3f  %s%s%s\n", next.Took, next.At, indent, branch, next)
		if next.Others > 0 {
			others := fmt.Sprintf("%d other clients", next.Others)
			if next.Others == 1 {
				others = "another client"
			}
			fmt.Fprintf(b, "%10s %10s  %s%s(and writes it to %s)\n", "", "", indent, below, others)
		}
		next.draw(b, indent+below)
	}
}

// String says what a step is.
func (s *Step) String() string {
	text := ""
	switch s.What {
	case Way:
		switch {
		case s.To == "":
			return fmt.Sprintf("to the client at %s in %s", s.From, s.Region)
		case s.From == "":
			return fmt.Sprintf("from the sender to %s in %s", s.To, s.Region)
		}
		return fmt.Sprintf("%s → %s in %s", s.From, s.To, s.Region)
	case Raft:
		return fmt.Sprintf("%s → %s in %s, by Raft", s.From, s.To, s.Region)
	case starling.HopAck:
		if s.To == "" {
			return "ack: to the sender"
		}
		return fmt.Sprintf("ack: %s → %s in %s", s.From, s.To, s.Region)
	case starling.HopEdge:
		text = s.Node + " takes it, and finds the leader"
	case Queue:
		text = s.Node + " leads: waits for its turn"
	case Quorum:
		text = "a quorum has it on disk"
	case starling.HopApply:
		text = s.Node + " applies it"
	case starling.HopRelay:
		text = s.Node + " passes it on"
	case starling.HopWrite:
		to := s.To
		if to == "" {
			to = "the client"
		}
		if s.User != "" {
			to += " of " + s.User
		}
		text = fmt.Sprintf("%s writes it to %s", s.Node, to)
		if s.Queued > 0 {
			text += fmt.Sprintf(", after %.3f ms of waiting", s.Queued)
		}
	}
	return text
}
