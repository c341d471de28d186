//go:build unix

package docs_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestReadme runs the commands of README.md as they are written: a mesh, two
// people who talk across regions, and the drill.
func TestReadme(t *testing.T) {
	readme := open(t, "README.md")
	t.Setenv("STARLING_HOME", t.TempDir())

	mesh := start(t, readme.command(t, "mesh", 0))
	mesh.wait(t, "chat lobby")
	alice, bob := start(t, readme.command(t, "alice", 0)), start(t, readme.command(t, "bob", 0))
	meet(t, alice, bob)
	alice.say(t, "hello from Frankfurt")
	bob.wait(t, "hello from Frankfurt")
	alice.leave(t)
	bob.leave(t)
	mesh.interrupt(t)

	mesh = start(t, readme.command(t, "mesh", 1))
	mesh.wait(t, "chat lobby")
	alice, bob = start(t, readme.command(t, "alice", 0)), start(t, readme.command(t, "bob", 0))
	meet(t, alice, bob)
	start(t, strings.Replace(readme.command(t, "kill", 0), "PID", mesh.pid(t, "iad-1"), 1)).end(t)
	alice.say(t, "meanwhile")
	bob.wait(t, "meanwhile")
	bob.say(t, "after")
	alice.wait(t, "after")
	alice.leave(t)
	bob.leave(t)
	export := start(t, readme.command(t, "export", 0))
	export.end(t)
	dense(t, export.text(), "it is me", "me too", "meanwhile", "after")
	mesh.interrupt(t)
}

// meet returns when both hear each other. A chat begins at the room's head, so
// each waits for its own words first.
func meet(t *testing.T, alice, bob *terminal) {
	t.Helper()
	alice.say(t, "it is me")
	alice.wait(t, "it is me")
	bob.say(t, "me too")
	bob.wait(t, "me too")
	alice.wait(t, "me too")
}

// document holds the commands of a document by the names in the comments above
// them, such as <!-- run: mesh -->.
type document struct {
	name   string
	blocks map[string][]string
	ran    map[string]bool
}

// notRun names commands that no test can run.
const notRun = "never"

// open reads a document, every command of which has a name, and wants each to
// have been run when t ends well.
func open(t *testing.T, name string) *document {
	t.Helper()
	text := read(t, name)
	d := &document{name: name, blocks: map[string][]string{}, ran: map[string]bool{}}
	named := regexp.MustCompile("(?s)<!-- run: ([a-z]+)[^>]*-->\n```sh\n(.*?)\n```").FindAllStringSubmatch(text, -1)
	for _, m := range named {
		d.blocks[m[1]] = append(d.blocks[m[1]], m[2])
	}
	if len(named) != strings.Count(text, "```sh\n") {
		t.Fatalf("%s has commands that do not say how they are run", name)
	}
	t.Cleanup(func() {
		for block, lines := range d.blocks {
			for _, line := range lines {
				if block != notRun && !d.ran[line] && !t.Failed() {
					t.Errorf("%s has a command that is not run: %s", name, line)
				}
			}
		}
	})
	return d
}

// command returns the i-th block of commands of a name, which is run now.
func (d *document) command(t *testing.T, name string, i int) string {
	t.Helper()
	if i >= len(d.blocks[name]) {
		t.Fatalf("%s has %d commands named %s, not %d", d.name, len(d.blocks[name]), name, i+1)
	}
	d.ran[d.blocks[name][i]] = true
	return d.blocks[name][i]
}

// dense checks that exported events are numbered 1, 2, 3 … and that these
// texts are among them, in this order.
func dense(t *testing.T, export string, texts ...string) {
	seq := uint64(0)
	for line := range strings.Lines(export) {
		var e struct {
			Seq  uint64
			Text string
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		if seq++; e.Seq != seq {
			t.Errorf("seq %d where %d belongs", e.Seq, seq)
		}
		if len(texts) > 0 && e.Text == texts[0] {
			texts = texts[1:]
		}
	}
	if len(texts) > 0 {
		t.Errorf("not exported: %q; got:\n%s", texts, export)
	}
}

// patience is how long a command may take for what it is waited for; the
// first one is compiled meanwhile.
const patience = 2 * time.Minute

// again is the pause before a command is run once more: what it waits for needs the
// processors too.
const again = 200 * time.Millisecond

// terminal is a command that runs as if typed into a terminal of its own.
type terminal struct {
	cmd   *exec.Cmd
	line  string
	stdin io.WriteCloser
	ended chan struct{}

	mu   sync.Mutex
	out  bytes.Buffer
	news chan struct{}
	seen int // how much of out wait has passed
}

// start runs a line in a shell, in the folder of the test. Whatever of it is
// left at the end is killed.
func start(t *testing.T, line string) *terminal {
	t.Helper()
	return startIn(t, ".", line)
}

func startIn(t *testing.T, dir, line string) *terminal {
	t.Helper()
	x := &terminal{cmd: exec.Command("sh", "-c", line), line: line, ended: make(chan struct{}), news: make(chan struct{}, 1)}
	x.cmd.Dir = dir
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := x.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	x.stdin = stdin
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	x.cmd.Stdout, x.cmd.Stderr = w, w
	if err := x.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	go x.read(r)
	t.Cleanup(func() {
		select {
		case <-x.ended:
		default:
			_ = syscall.Kill(-x.cmd.Process.Pid, syscall.SIGKILL)
			<-x.ended
		}
	})
	return x
}

// read gathers what the command prints, until its last process has ended.
func (x *terminal) read(r *os.File) {
	defer close(x.ended)
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		x.mu.Lock()
		x.out.WriteString(line)
		x.mu.Unlock()
		select {
		case x.news <- struct{}{}:
		default:
		}
		if err != nil {
			break
		}
	}
	_ = x.cmd.Wait()
}

func (x *terminal) text() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.out.String()
}

// wait returns when the command has printed something new that has part in it.
func (x *terminal) wait(t *testing.T, part string) {
	t.Helper()
	late := time.After(patience)
	for ended := false; ; {
		if i := strings.Index(x.text()[x.seen:], part); i >= 0 {
			x.seen += i + len(part)
			return
		}
		if ended {
			t.Fatalf("%s\nended before it printed %q:\n%s", x.line, part, x.text())
		}
		select {
		case <-x.news:
		case <-x.ended:
			ended = true
		case <-late:
			t.Fatalf("%s\ndid not print %q:\n%s", x.line, part, x.text())
		}
	}
}

func (x *terminal) say(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(x.stdin, text+"\n"); err != nil {
		t.Fatalf("%s: %v\n%s", x.line, err, x.text())
	}
}

// leave ends the command's input, and waits for its good end.
func (x *terminal) leave(t *testing.T) {
	t.Helper()
	_ = x.stdin.Close()
	x.end(t)
}

// interrupt is Ctrl-C.
func (x *terminal) interrupt(t *testing.T) {
	t.Helper()
	_ = syscall.Kill(-x.cmd.Process.Pid, syscall.SIGINT)
	select {
	case <-x.ended:
	case <-time.After(patience):
		t.Fatalf("%s\ndoes not end:\n%s", x.line, x.text())
	}
}

func (x *terminal) end(t *testing.T) {
	t.Helper()
	select {
	case <-x.ended:
	case <-time.After(patience):
		t.Fatalf("%s\ndoes not end:\n%s", x.line, x.text())
	}
	if code := x.cmd.ProcessState.ExitCode(); code != 0 {
		t.Fatalf("%s\nended with status %d:\n%s", x.line, code, x.text())
	}
}

// pid is the process of a node, as the mesh printed it.
func (x *terminal) pid(t *testing.T, node string) string {
	t.Helper()
	m := regexp.MustCompile(regexp.QuoteMeta(node) + `\b.*\bpid (\d+)`).FindStringSubmatch(x.text())
	if m == nil {
		t.Fatalf("no pid of %s in:\n%s", node, x.text())
	}
	return m[1]
}
