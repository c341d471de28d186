package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// limitsProfile takes the limits of rates away; those of memory stay.
const limitsProfile = "bench"

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

// devFile is what edge-node dev reads from its folder; here it is written
// first where a number of groups is wanted.
type devFile struct {
	Format  int               `json:"format"`
	Cluster string            `json:"cluster"`
	Regions []string          `json:"regions"`
	Nodes   int               `json:"nodes"`
	Groups  int               `json:"groups_per_region"`
	Survive string            `json:"survive"`
	Gossip  []byte            `json:"gossip_key"`
	Keys    map[string]devKey `json:"keys"`
}

type devKey struct {
	ID     string `json:"id"`
	Secret []byte `json:"secret"`
}

func newDevFile(groups int) devFile {
	secret := func() []byte {
		b := make([]byte, 32)
		_, _ = rand.Read(b)
		return b
	}
	return devFile{
		Format: 1, Cluster: "dev", Regions: []string{"fra"}, Nodes: 3, Groups: groups, Survive: "node", Gossip: secret(),
		Keys: map[string]devKey{"demo": {"demo-dev", secret()}, "starling": {"starling-dev", secret()}},
	}
}

// devReady is what edge-node dev says once its mesh is ready.
type devReady struct {
	Ready bool
	Nodes []struct{ PID int }
}

// startStarling starts three nodes of one region.
func startStarling(ctx context.Context, m *machine, dir string, w workload) (*cluster, error) {
	data := filepath.Join(dir, "data")
	file := filepath.Join(data, "dev.json")
	if w.Groups > 0 {
		text, err := json.Marshal(newDevFile(w.Groups))
		if err == nil {
			err = errors.Join(os.Mkdir(data, 0o700), os.WriteFile(file, text, 0o600))
		}
		if err != nil {
			return nil, err
		}
	}
	line, err := slowed(w.Fsync, m.edgeNode, "dev", "--processes", "--regions", "fra", "--nodes", "3", "--json",
		"--limits", limitsProfile, "--data", data, "--restart-after", "0")
	if err != nil {
		return nil, err
	}
	env := append(partEnv(), "STARLING_HOME="+filepath.Join(dir, "home"))
	dev := exec.Command(line[0], line[1:]...)
	said := &lastLine{log: m.log}
	dev.Env, dev.Stderr = env, said
	out, err := dev.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := dev.Start(); err != nil {
		return nil, err
	}
	c := &cluster{limits: limitsProfile, stop: func() { stopDev(dev, nil) }}
	if err := c.awaitDev(ctx, out, dev, 3); err != nil {
		c.stop()
		return nil, fmt.Errorf("%w: %s", err, said)
	}
	if c.groups, err = groupsOf(file); err != nil {
		c.stop()
		return nil, err
	}
	c.sender = exec.Command(m.edgeNode, "bench", "--json", "--rooms", strconv.Itoa(w.Rooms), "--window", strconv.Itoa(w.Window),
		"--size", strconv.Itoa(w.Size), "--sessions", strconv.Itoa(w.Sessions), "--warm-up", w.WarmUp.String(), "--seconds", fmt.Sprint(w.Seconds))
	c.sender.Env = env
	return c, nil
}

// awaitDev waits until dev says that its mesh of so many nodes is ready.
func (c *cluster) awaitDev(ctx context.Context, out io.Reader, dev *exec.Cmd, nodes int) error {
	late := context.AfterFunc(ctx, func() { _ = dev.Process.Kill() })
	defer late()
	slow := time.AfterFunc(startWithin, func() { _ = dev.Process.Kill() })
	defer slow.Stop()
	var up devReady
	if err := json.NewDecoder(out).Decode(&up); err != nil || !up.Ready || len(up.Nodes) != nodes {
		return fmt.Errorf("edge-node dev did not start a mesh of %d: %w", nodes, errors.Join(err, context.Cause(ctx)))
	}
	for _, n := range up.Nodes {
		c.pids = append(c.pids, n.PID)
	}
	c.stop = func() { stopDev(dev, c.pids) }
	return nil
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

// groupsOf is the number of groups in which a mesh keeps its rooms.
func groupsOf(file string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	var f devFile
	err = json.Unmarshal(text, &f)
	return f.Groups, err
}

// stopDev ends dev, which ends the nodes. Behind strace it is the nodes'
// parent, and not the process that was started.
func stopDev(dev *exec.Cmd, nodes []int) {
	pid := dev.Process.Pid
	if len(nodes) > 0 {
		if fields := stat(nodes[0]); len(fields) > 1 {
			if parent, err := strconv.Atoi(fields[1]); err == nil && parent > 1 {
				pid = parent
			}
		}
	}
	late := time.AfterFunc(stopWithin, func() {
		kill(pid)
		_ = dev.Process.Kill()
	})
	defer late.Stop()
	if p, err := os.FindProcess(pid); err == nil {
		_ = p.Signal(syscall.SIGINT)
	}
	_ = dev.Wait()
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
