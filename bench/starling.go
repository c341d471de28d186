package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// buildEdgeNode builds the program of the folder above.
func buildEdgeNode(ctx context.Context, dir string) (path string, err error) {
	path = filepath.Join(dir, "edge-node")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", path, "./cmd/edge-node")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("edge-node does not build (run the bench in its folder, or name a program with --edge-node): %w\n%s", err, out)
	}
	return path, nil
}

// startStarling starts three nodes of one region.
func startStarling(ctx context.Context, m *machine, dir string, w workload) (*cluster, error) {
	s, err := m.startMesh(ctx, dir, meshPlan{nodes: 3, limits: limitsProfile, groups: w.Groups, fsync: w.Fsync})
	if err != nil {
		return nil, err
	}
	c := &cluster{pids: s.firstPIDs, limits: limitsProfile, stop: s.stop}
	if c.groups, err = s.groups(); err != nil {
		c.stop()
		return nil, err
	}
	c.sender = &sender{cmd: exec.Command(m.edgeNode, "bench", "--json", "--rooms", strconv.Itoa(w.Rooms), "--window", strconv.Itoa(w.Window),
		"--size", strconv.Itoa(w.Size), "--sessions", strconv.Itoa(w.Sessions), "--warm-up", w.WarmUp.String(), "--seconds", fmt.Sprint(w.Seconds))}
	c.sender.cmd.Env = s.env()
	return c, nil
}

// lastLine passes on what a process says, and keeps the last line of it.
type lastLine struct {
	log  io.Writer
	mu   sync.Mutex
	line string
}

// Write implements io.Writer; a process writes whole lines.
func (l *lastLine) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if lines := strings.Split(strings.TrimSpace(string(p)), "\n"); lines[len(lines)-1] != "" {
		l.line = lines[len(lines)-1]
	}
	return l.log.Write(p)
}

func (l *lastLine) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.line
}

// partEnv is the environment of processes that are measured: without what
// would configure a node, or a Go program, otherwise than by default.
func partEnv() []string {
	var env []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if !strings.HasPrefix(name, "STARLING_") && name != "GOGC" && name != "GOMEMLIMIT" && name != "GOMAXPROCS" {
			env = append(env, v)
		}
	}
	return env
}
