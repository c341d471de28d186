package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// asProgram makes the test binary be edge-node, so that tests can start it as
// processes of their own, and kill them.
const asProgram = "EDGE_NODE_TEST_RUN"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		_ = flag.Set("test.parallel", atOnce)
	}
	os.Exit(m.Run())
}

// program is a run of edge-node as a process.
func program(t *testing.T, home string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "STARLING_HOME="+home)
	cmd.Stderr = testLog{t, args[0]}
	t.Cleanup(func() { // what still runs would write to the log of a test that is over
		if cmd.Process != nil && cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return cmd
}

// testLog shows what a process says when its test fails.
type testLog struct {
	t    *testing.T
	name string
}

func (l testLog) Write(p []byte) (int, error) {
	l.t.Logf("%s: %s", l.name, bytes.TrimSpace(p))
	return len(p), nil
}

// heard keeps what a process writes and passes it on.
type heard struct {
	also io.Writer
	mu   sync.Mutex
	text bytes.Buffer
}

func (h *heard) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.text.Write(p)
	return h.also.Write(p)
}

func (h *heard) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.String()
}

// output runs edge-node to its end, which must be good, and returns what it
// printed.
func output(t *testing.T, home, stdin string, args ...string) string {
	t.Helper()
	cmd := program(t, home, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	return string(out)
}

// lines decodes the lines of a command's output.
func lines[T any](t *testing.T, out string) (all []T) {
	t.Helper()
	for line := range strings.Lines(out) {
		var v T
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		all = append(all, v)
	}
	return all
}

// devMesh is a mesh that dev keeps running.
type devMesh struct {
	ready
	cmd  *exec.Cmd
	home string
	said *heard // what dev and its nodes wrote to stderr
	lives
}

// startMesh starts dev --processes and waits until it is ready.
func startMesh(t *testing.T, home, data string, args ...string) *devMesh {
	t.Helper()
	m := &devMesh{home: home, cmd: program(t, home, append([]string{"dev", "--json", "--processes", "--data", data}, args...)...)}
	m.said = &heard{also: m.cmd.Stderr}
	m.cmd.Stderr = io.MultiWriter(m.said, &m.lives)
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.kill()
		if m.raced {
			t.Error("there is a data race in a node, see above")
		}
	})
	first, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("dev said %q: %v", first, err)
	}
	if err := json.Unmarshal([]byte(first), &m.ready); err != nil || !m.Ready {
		t.Fatalf("dev said %q: %v", first, err)
	}
	return m
}

// kill ends dev, and so all nodes, at once. It may be called twice.
func (m *devMesh) kill() {
	_ = m.cmd.Process.Kill()
	_ = m.cmd.Wait()
}

// stop ends dev as Ctrl-C does and returns how long that took.
func (m *devMesh) stop(t *testing.T) time.Duration {
	t.Helper()
	began := time.Now()
	if err := m.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := m.cmd.Wait(); err != nil {
		t.Errorf("dev ended with %v", err)
	}
	return time.Since(began)
}

func killNode(t *testing.T, pid int) {
	t.Helper()
	p, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
}

const sample = "testdata/sample.jsonl"

// record is a line of a file to replay.
type record struct {
	Room string `json:"room"`
	From string `json:"from"`
	Kind string `json:"kind"`
	Text string `json:"text"`
}
