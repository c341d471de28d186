package children

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test binary be its own child.
func TestMain(m *testing.M) {
	switch os.Getenv("CHILD") {
	case "waits":
		os.Stderr.WriteString("up\n")
		<-time.After(time.Hour) // not select {}, which Go takes for a deadlock
	case "fails":
		os.Stderr.WriteString("first\nno such thing\n")
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func child(t *testing.T, what string) Child {
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("CHILD", what)
	return Child{Name: "a-1", Path: path}
}

// lines hands on each line that a family logs.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- strings.TrimSpace(string(p))
	return len(p), nil
}

func (l lines) want(t *testing.T, part string) {
	t.Helper()
	select {
	case line := <-l:
		if !strings.Contains(line, part) {
			t.Fatalf("log says %q, want %q", line, part)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("log does not say %q", part)
	}
}

func TestRestart(t *testing.T) {
	log := make(lines, 16)
	f := New(Config{Children: []Child{child(t, "waits")}, RestartAfter: time.Millisecond, Log: log})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	log.want(t, "[a-1] up")
	f.Settle()
	first := f.PID("a-1")
	p, err := os.FindProcess(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	log.want(t, "ended (signal: killed), starts again in 1ms")
	log.want(t, "runs again, pid")
	log.want(t, "[a-1] up")
	if second := f.PID("a-1"); second == 0 || second == first {
		t.Errorf("pid was %d, is %d", first, second)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if pid := f.PID("a-1"); pid != 0 {
		t.Errorf("process %d is left", pid)
	}
}

func TestFailsToStart(t *testing.T) {
	var log bytes.Buffer
	err := New(Config{Children: []Child{child(t, "fails")}, RestartAfter: time.Millisecond, Log: &log}).Run(t.Context())
	if err == nil || err.Error() != "a-1 did not start: no such thing (exit status 1)" {
		t.Errorf("error is %v", err)
	}
	if log.String() != "[a-1] first\n[a-1] no such thing\n" {
		t.Errorf("log is %q", log.String())
	}
}
