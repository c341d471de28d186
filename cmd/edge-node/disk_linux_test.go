package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A disk that is full ends its node with words, and nothing else: the sender
// goes on over another node, and all that was acknowledged is there.
func TestFullDiskEndsItsNodeAlone(t *testing.T) {
	t.Parallel()
	home, data := t.TempDir(), t.TempDir()
	small := filepath.Join(data, "fra-1")
	if err := os.Mkdir(small, 0o700); err != nil {
		t.Fatal(err)
	}
	err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=24m")
	if errors.Is(err, syscall.EPERM) {
		t.Skip("needs the right to mount a small disk: run as root")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(small, 0); err != nil {
			t.Error(err)
		}
	})
	m := startMesh(t, home, data, "--restart-after", "0s")

	const messages = 2000
	line := strings.Repeat("x", 16<<10)
	sender := program(t, home, "chat", "lobby", "--as", "alice", "--region", "fra", "--json")
	in, err := sender.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := sender.Start(); err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriter(in)
	for i := range messages {
		_, _ = fmt.Fprintf(w, "%d %s\n", i, line)
	}
	_ = w.Flush()
	_ = in.Close()
	if err := sender.Wait(); err != nil {
		t.Errorf("the sender ended with %v", err)
	}
	if out := m.said.String(); !strings.Contains(out, "no space left on device") || !strings.Contains(out, "the disk failed") {
		t.Errorf("the node did not say that its disk is full: %q", out)
	}
	events := lines[struct{ Text string }](t, output(t, home, "", "export", "lobby", "--json"))
	if len(events) != messages {
		t.Errorf("%d of %d messages are stored", len(events), messages)
	}
}
