package main

import (
	"strings"
	"testing"
)

func TestNetcheckAdvice(t *testing.T) {
	works, slow := pathCheck{Works: true, Seen: "10.0.0.5:4242", RTT: 1}, pathCheck{Works: true, Seen: "10.0.0.5:4242", RTT: 1, Clock: -90_000}
	nat := pathCheck{Works: true, Seen: "192.0.2.1:4242", RTT: 1}
	no := pathCheck{}
	for _, test := range []struct {
		name  string
		nodes []nodeCheck
		want  []string // parts of the advice, in order
	}{
		{"all is well", []nodeCheck{{UDP: works, TCP: works}, {UDP: works, TCP: works}}, nil},
		{"nobody answers", []nodeCheck{{}}, nil},
		{"no UDP", []nodeCheck{{UDP: no, TCP: works}, {}}, []string{"UDP does not get through"}},
		{"UDP to one", []nodeCheck{{UDP: no, TCP: works}, {UDP: works, TCP: works}}, []string{"to 1 of 2 nodes"}},
		{"no TCP", []nodeCheck{{UDP: works}}, []string{"TCP gets through to 0 of 1"}},
		{"our clock", []nodeCheck{{UDP: slow, TCP: slow}}, []string{"off by 90.0 s"}},
		{"their clock", []nodeCheck{{UDP: slow, TCP: slow}, {UDP: works, TCP: works}}, nil},
		{"a NAT", []nodeCheck{{UDP: nat, TCP: nat}}, []string{"seen as 192.0.2.1"}},
	} {
		got := (&netCheck{Nodes: test.nodes}).advise([]string{"10.0.0.5"})
		if len(got) != len(test.want) {
			t.Errorf("%s: %q", test.name, got)
			continue
		}
		for i, part := range test.want {
			if !strings.Contains(got[i], part) {
				t.Errorf("%s: %q, not %q", test.name, got[i], part)
			}
		}
	}
}
