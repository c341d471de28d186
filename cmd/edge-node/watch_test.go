package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/starling-im/starling"
)

func TestChangesOfMembers(t *testing.T) {
	// A look is ID:STATE@ADDR for each member.
	look := func(text string) (all []starling.MemberInfo) {
		for _, f := range strings.Fields(text) {
			id, rest, _ := strings.Cut(f, ":")
			state, addr, _ := strings.Cut(rest, "@")
			all = append(all, starling.MemberInfo{ID: id, State: state, Addr: addr})
		}
		return all
	}
	for _, c := range []struct{ was, now, want string }{
		{"", "a:alive@1 b:alive@2", "a:alive@1 b:alive@2"},
		{"a:alive@1 b:alive@2", "a:alive@1 b:alive@2", ""},
		{"a:alive@1 b:alive@2", "a:draining@1 b:alive@2", "a:draining@1<alive"},
		{"a:alive@1", "a:alive@9", "a:alive@9<alive"},
		{"a:alive@1 b:failed@2", "b:failed@2", "a:left@1<alive"},
		{"a:left@1", "", ""},
	} {
		var got []string
		for _, x := range changesOf(look(c.was), look(c.now), time.Unix(0, 0)) {
			text := fmt.Sprintf("%s:%s@%s", x.ID, x.State, x.Addr)
			if x.Was != "" {
				text += "<" + x.Was
			}
			got = append(got, text)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("from %q to %q: %q, want %q", c.was, c.now, got, c.want)
		}
	}
}
