package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/spf13/cobra"
)

// The parts of a turn are processes of this program: servers and the sender.
// Each reads what it shall do, one JSON object, from its standard input, and
// ends when that does: no part outlives the bench.
const (
	servePart = "serve"
	sendPart  = "send"
)

// parts are what each system's processes do.
var (
	servers = map[string]func(ctx context.Context, s serverSpec, ready func() error) error{
		jetstreamName:  serveJetStream,
		raftName:       serveRaft,
		natsName:       serveNATS,
		centrifugeName: serveCentrifuge,
		mochiName:      serveMochi,
	}
	senders = map[string]func(ctx context.Context, s senderSpec) (measured, error){
		jetstreamName: sendToJetStream,
		perRoomName:   sendToJetStream,
		raftName:      sendToRaft,
	}
)

// A serverSpec tells a server who it is. Addrs are for clients and Links for
// servers, by number of the server.
type serverSpec struct {
	Number       int
	Dir          string
	Addrs, Links []string
	Groups       int
}

// A senderSpec tells the sender where to send what.
type senderSpec struct {
	System string
	Addrs  []string
	Work   workload
}

// partCommands are the commands of the parts, which nobody types.
func partCommands() []*cobra.Command {
	serve := &cobra.Command{Use: servePart, Hidden: true, Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		var s serverSpec
		say := func() error { return json.NewEncoder(cmd.OutOrStdout()).Encode(started{os.Getpid()}) }
		ctx, err := readSpec(cmd, &s, func() {
			runtime.GC()
			debug.FreeOSMemory()
			_ = say()
		})
		if err != nil {
			return err
		}
		return servers[args[0]](ctx, s, say)
	}}
	send := &cobra.Command{Use: sendPart, Hidden: true, Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		var s senderSpec
		ctx, err := readSpec(cmd, &s, nil)
		if err != nil {
			return err
		}
		m, err := senders[args[0]](ctx, s)
		if err != nil {
			return err
		}
		return json.NewEncoder(cmd.OutOrStdout()).Encode(m)
	}}
	crowd := &cobra.Command{Use: crowdPart, Hidden: true, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		var s crowdSpec
		ctx, err := readSpec(cmd, &s, nil)
		if err != nil {
			return err
		}
		said, err := runCrowd(ctx, s)
		if err != nil {
			return err
		}
		return json.NewEncoder(cmd.OutOrStdout()).Encode(said)
	}}
	throng := &cobra.Command{Use: throngPart, Hidden: true, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		return runThrong(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout())
	}}
	return []*cobra.Command{serve, send, crowd, throng}
}

// readSpec reads what a part shall do, and calls asked for each line that comes
// later. The context ends with standard input.
func readSpec(cmd *cobra.Command, spec any, asked func()) (context.Context, error) {
	in := json.NewDecoder(cmd.InOrStdin())
	if err := in.Decode(spec); err != nil {
		return nil, fmt.Errorf("a part of the bench is not to be called: %w", err)
	}
	ctx, cancel := context.WithCancel(cmd.Context())
	go func() {
		lines := bufio.NewScanner(io.MultiReader(in.Buffered(), cmd.InOrStdin()))
		for lines.Scan() {
			if asked != nil && lines.Text() != "" {
				asked()
			}
		}
		cancel()
	}()
	return ctx, nil
}

// started is what a server says once it serves.
type started struct {
	PID int `json:"pid"`
}

// A child is a server's process, perhaps behind strace.
type child struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	said  *json.Decoder
	pid   int // of the server itself
}

// within bounds the start and the end of processes.
const (
	startWithin = 60 * time.Second
	stopWithin  = 10 * time.Second
)

// startServers starts three servers and returns once each says that it serves.
func startServers(ctx context.Context, log io.Writer, system string, delay time.Duration, specs []serverSpec) (all []*child, err error) {
	defer func() {
		if err != nil {
			stopServers(all)
			all = nil
		}
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, startWithin, fmt.Errorf("the servers are not ready after %v", startWithin))
	defer cancel()
	ready := make(chan error, len(specs))
	for _, spec := range specs {
		s, err := startServer(log, system, delay, spec)
		if err != nil {
			return all, err
		}
		all = append(all, s)
		go func() { ready <- s.hear() }()
	}
	for range specs {
		select {
		case err := <-ready:
			if err != nil {
				return all, err
			}
		case <-ctx.Done():
			return all, context.Cause(ctx)
		}
	}
	return all, nil
}

func startServer(log io.Writer, system string, delay time.Duration, spec serverSpec) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	line, err := slowed(delay, self, servePart, system)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Stderr = log
	cmd.Env = partEnv()
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &child{cmd: cmd, stdin: in, said: json.NewDecoder(out)}, json.NewEncoder(in).Encode(spec)
}

// hear waits for the server's first words.
func (s *child) hear() error {
	var up started
	if err := s.said.Decode(&up); err != nil {
		return fmt.Errorf("a server did not start: %w", err)
	}
	s.pid = up.PID
	return nil
}

// collect lets the server free the memory that nothing refers to.
func (s *child) collect(context.Context) error {
	if _, err := io.WriteString(s.stdin, "collect\n"); err != nil {
		return err
	}
	return s.said.Decode(new(started))
}

// stopServers ends them, by force if they take long.
func stopServers(all []*child) {
	var work sync.WaitGroup
	for _, s := range all {
		work.Go(func() {
			late := time.AfterFunc(stopWithin, func() {
				kill(s.pid) // strace ends with what it traces
				_ = s.cmd.Process.Kill()
			})
			defer late.Stop()
			_ = s.stdin.Close()
			_ = s.cmd.Wait()
		})
	}
	work.Wait()
}

func kill(pid int) {
	if pid == 0 {
		return
	}
	if p, err := os.FindProcess(pid); err == nil {
		_ = p.Kill()
	}
}

// errNoTracer says why a disk cannot be slowed here.
var errNoTracer = errors.New("strace, which slows the syncs, is not installed")

// slowed is a command line whose syncs take longer.
func slowed(by time.Duration, line ...string) ([]string, error) {
	if by == 0 {
		return line, nil
	}
	path, err := exec.LookPath("strace")
	if err != nil {
		return nil, errNoTracer
	}
	return append([]string{
		path, "-f", "--seccomp-bpf", "-qqq", "-o", os.DevNull, "-e", "trace=fsync,fdatasync", "-e", "signal=none",
		"-e", fmt.Sprintf("inject=fsync,fdatasync:delay_exit=%d", by.Microseconds()), "--",
	}, line...), nil
}

// A sender is the process that is all clients of a turn.
type sender struct {
	cmd  *exec.Cmd
	spec any // for its standard input; nil = it needs none
}

// afterCounting is how long a sender may take beyond what it counts: for
// connections, rooms, leaders, and the end.
const afterCounting = 2 * time.Minute

// run has a sender do what its spec says and reads the result, for which it may take
// no more than a while beyond a limit. It calls counts when the sender begins to
// count and when it ends.
func (s *sender) run(ctx context.Context, limit time.Duration, result any, counts func(begins bool)) error {
	ctx, cancel := context.WithTimeout(ctx, limit+afterCounting)
	defer cancel()
	var out bytes.Buffer
	s.cmd.Stdout = &out
	said, err := s.cmd.StderrPipe()
	if err != nil {
		return err
	}
	in, err := s.cmd.StdinPipe() // open until it ends
	if err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = s.cmd.Process.Kill() })()
	if s.spec != nil {
		if err := json.NewEncoder(in).Encode(s.spec); err != nil {
			return errors.Join(err, s.cmd.Process.Kill(), s.cmd.Wait())
		}
	}
	last := follow(said, counts)
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("the clients failed: %w: %s", errors.Join(err, ctx.Err()), last)
	}
	if err := json.Unmarshal(out.Bytes(), result); err != nil {
		return fmt.Errorf("the clients said %q: %w", out.String(), err)
	}
	return nil
}

// follow reads what a sender says until it says no more. It calls counts when
// the sender says that it counts, and that it does no more, and returns the
// last line.
func follow(said io.Reader, counts func(begins bool)) (last string) {
	lines := bufio.NewScanner(said)
	for lines.Scan() {
		switch last = lines.Text(); last {
		case sayCounting:
			counts(true)
		case sayDone:
			counts(false)
		}
	}
	return last
}

// What a sender says, edge-node bench too.
const (
	sayCounting = "bench: counting"
	sayDone     = "bench: done counting"
)
