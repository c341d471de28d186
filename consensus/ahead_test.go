package consensus

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
)

// A log that is read in order, as Raft does when it starts, is read ahead; what is
// cut or written anew meanwhile is not answered from there.
func TestLogIsReadAhead(t *testing.T) {
	s, err := openStore(Config{Node: "a", Dir: "data", FS: vfs.NewMem(), NoSync: true}.withDefaults(), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	l, err := openLog(s, 1)
	if err != nil {
		t.Fatal(err)
	}
	write := func(first, last int, text string) {
		var entries []*raft.Log
		for i := first; i <= last; i++ {
			entries = append(entries, &raft.Log{Index: uint64(i), Term: 1, Data: fmt.Appendf(nil, "%s %d", text, i)})
		}
		if err := l.StoreLogs(entries); err != nil {
			t.Fatal(err)
		}
	}
	read := func(l *logStore, index int, want string) {
		t.Helper()
		var e raft.Log
		switch err := l.GetLog(uint64(index), &e); {
		case want == "" && err == raft.ErrLogNotFound:
		case err != nil || e.Index != uint64(index) || string(e.Data) != fmt.Sprintf("%s %d", want, index):
			t.Fatalf("entry %d is %d %q, %v; want %q", index, e.Index, e.Data, err, want)
		}
	}
	write(1, 1000, "old")
	if l, err = openLog(s, 1); err != nil { // as after a start: nothing is in memory
		t.Fatal(err)
	}
	for i := 1; i <= 400; i++ {
		read(l, i, "old")
	}
	if len(l.ahead.entries) == 0 {
		t.Error("nothing was read ahead: the test proves nothing")
	}
	if err := l.DeleteRange(402, 1000); err != nil {
		t.Fatal(err)
	}
	read(l, 401, "old")
	read(l, 402, "")
	write(402, 1000, "new")
	for i := 402; i <= 1000; i++ {
		read(l, i, "new")
	}
	read(l, 1001, "")
	for i := 300; i <= 1000; i++ {
		read(l, i, map[bool]string{true: "old", false: "new"}[i < 402])
	}
	if n := len(l.ahead.entries); n > 0 {
		t.Errorf("%d entries stay after all were read", n)
	}
	if err := l.DeleteRange(1, 500); err != nil {
		t.Fatal(err)
	}
	read(l, 499, "")
	read(l, 500, "")
	read(l, 501, "new")
}
