// Package children runs programs as direct children of this process and
// starts them again when they die.
//
// It promises that no child outlives Run, nor the process where the system
// allows that, and that a child which cannot even start is an error rather
// than a loop.
package children

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"
)

// A Child is one program to keep running.
type Child struct {
	Name string
	Path string
	Args []string
	Env  []string // nil = this process's
}

// Config says what to run.
type Config struct {
	Children []Child
	// RestartAfter is the pause before a child that died is started again; 0 =
	// it stays dead.
	RestartAfter time.Duration
	// Log gets what children write to standard error, and what becomes of
	// them, a line each that begins with the child's name.
	Log io.Writer
}

// stopWithin is how long a child may take to end when it is asked to.
const stopWithin = 2 * time.Second

// Family runs the children. Use New, then Run.
type Family struct {
	cfg Config

	mu      sync.Mutex
	pids    map[string]int
	settled bool
	log     io.Writer
}

// New returns a family that is not running.
func New(cfg Config) *Family {
	return &Family{cfg: cfg, pids: make(map[string]int), log: &lockedWriter{w: cfg.Log}}
}

// Settle says that all children work: from now on one that ends is started
// again. Before, a child that ends by itself makes Run fail.
func (f *Family) Settle() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settled = true
}

// PID returns the process id of a child, 0 while it does not run.
func (f *Family) PID(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pids[name]
}

// Run runs the children until ctx ends, then stops them and returns nil. It
// returns an error if a child ended before Settle.
func (f *Family) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var work sync.WaitGroup
	for _, c := range f.cfg.Children {
		work.Go(func() {
			// The system kills a child when the thread that started it ends.
			runtime.LockOSThread()
			if err := f.keep(ctx, c); err != nil {
				cancel(err)
			}
		})
	}
	work.Wait()
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// keep runs one child again and again.
func (f *Family) keep(ctx context.Context, c Child) error {
	for {
		last, err := f.once(ctx, c)
		if ctx.Err() != nil {
			return nil
		}
		f.mu.Lock()
		settled := f.settled
		f.mu.Unlock()
		why := "it ended"
		if err != nil {
			why = err.Error()
		}
		if !settled {
			return fmt.Errorf("%s did not start: %s", c.Name, strings.TrimSpace(last+" ("+why+")"))
		}
		if f.cfg.RestartAfter == 0 {
			f.say(c.Name, "ended (%s)", why)
			<-ctx.Done()
			return nil
		}
		f.say(c.Name, "ended (%s), starts again in %v", why, f.cfg.RestartAfter)
		t := time.NewTimer(f.cfg.RestartAfter)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil
		}
	}
}

// once runs one child until it ends, and returns the last line that it wrote.
func (f *Family) once(ctx context.Context, c Child) (last string, err error) {
	out := &prefixer{w: f.log, prefix: "[" + c.Name + "] "}
	cmd := exec.CommandContext(ctx, c.Path, c.Args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = c.Env
	cmd.Cancel = func() error { return stop(cmd.Process) }
	cmd.WaitDelay = stopWithin
	dieWithParent(cmd)
	if err := cmd.Start(); err != nil {
		return "", err
	}
	f.setPID(c.Name, cmd.Process.Pid)
	err = cmd.Wait()
	f.setPID(c.Name, 0)
	out.flush()
	return out.last, err
}

func (f *Family) setPID(name string, pid int) {
	f.mu.Lock()
	again := f.settled && pid != 0
	f.pids[name] = pid
	f.mu.Unlock()
	if again {
		f.say(name, "runs again, pid %d", pid)
	}
}

func (f *Family) say(name, format string, args ...any) {
	fmt.Fprintf(f.log, "[%s] "+format+"\n", append([]any{name}, args...)...)
}

// stop asks a process to end; where it cannot be asked, it is killed.
func stop(p *os.Process) error {
	if err := p.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return p.Kill()
	}
	return nil
}

// lockedWriter lets several children write, a line at a time.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// prefixer puts a prefix before each line. It is used by one goroutine.
type prefixer struct {
	w      io.Writer
	prefix string
	rest   []byte
	last   string
}

// maxLogLine bounds a line that a child writes, in bytes; longer ones are cut.
const maxLogLine = 16 << 10

func (p *prefixer) Write(b []byte) (int, error) {
	n := len(b)
	for {
		line, more, whole := bytes.Cut(b, []byte("\n"))
		p.rest = append(p.rest, line[:min(len(line), maxLogLine-min(maxLogLine, len(p.rest)))]...)
		if !whole {
			return n, nil
		}
		p.flush()
		b = more
	}
}

// flush writes what is left as a line.
func (p *prefixer) flush() {
	if len(p.rest) == 0 {
		return
	}
	p.last = string(p.rest)
	_, _ = p.w.Write([]byte(p.prefix + p.last + "\n"))
	p.rest = p.rest[:0]
}
