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
	"syscall"
	"time"

	"github.com/starling-im/starling/bench/internal/talk"
)

// Profiles of limits: one takes those of rates away, and leaves those of memory.
const (
	limitsProfile = "bench"
	production    = "production"
)

// A meshPlan says what mesh a measurement needs.
type meshPlan struct {
	nodes   int
	limits  string
	restart time.Duration // after which a node that died starts again; 0 = it does not
	groups  int           // 0 = as many as dev makes by itself
	fsync   time.Duration // that every sync takes longer
	one     bool          // all nodes have the first processor, and no other
}

// A mesh is edge-node dev with nodes of one region, each a process of its own.
type mesh struct {
	edgeNode, data, home string
	limits               string
	cmd                  *exec.Cmd
	devPID               int   // of dev itself, perhaps behind another program
	firstPIDs            []int // the processes of the nodes that began
}

// startMesh starts a mesh in a folder and returns once it is ready.
func (m *machine) startMesh(ctx context.Context, dir string, p meshPlan) (*mesh, error) {
	s := &mesh{edgeNode: m.edgeNode, data: filepath.Join(dir, "data"), home: filepath.Join(dir, "home"), limits: p.limits}
	if p.groups > 0 {
		if err := s.writeDevFile(p); err != nil {
			return nil, err
		}
	}
	line, err := slowed(p.fsync, m.edgeNode, "dev", "--processes", "--regions", "fra", "--nodes", strconv.Itoa(p.nodes), "--json",
		"--limits", p.limits, "--data", s.data, "--restart-after", p.restart.String())
	if err != nil {
		return nil, err
	}
	if p.one {
		taskset, err := exec.LookPath("taskset")
		if err != nil {
			return nil, err
		}
		line = append([]string{taskset, "-c", "0"}, line...)
	}
	s.cmd = exec.Command(line[0], line[1:]...)
	said := &lastLine{log: m.log}
	s.cmd.Env, s.cmd.Stderr = s.env(), said
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	s.devPID = s.cmd.Process.Pid
	if err := s.await(ctx, out, p.nodes); err != nil {
		s.stop()
		return nil, fmt.Errorf("%w: %s", err, said)
	}
	return s, nil
}

// env is the environment of its commands.
func (s *mesh) env() []string { return append(partEnv(), "STARLING_HOME="+s.home) }

// devReady is what edge-node dev says once its mesh is ready.
type devReady struct {
	Ready bool
	Nodes []struct{ PID int }
}

// await waits until dev says that its mesh of so many nodes is ready.
func (s *mesh) await(ctx context.Context, out io.Reader, nodes int) error {
	end := func() { _ = s.cmd.Process.Kill() }
	defer context.AfterFunc(ctx, end)()
	slow := time.AfterFunc(startWithin, end)
	defer slow.Stop()
	var up devReady
	if err := json.NewDecoder(out).Decode(&up); err != nil || !up.Ready || len(up.Nodes) != nodes {
		return fmt.Errorf("edge-node dev did not start a mesh of %d: %w", nodes, errors.Join(err, context.Cause(ctx)))
	}
	for _, n := range up.Nodes {
		s.firstPIDs = append(s.firstPIDs, n.PID)
	}
	// Behind strace dev is the nodes' parent, and not the process that was started.
	if fields := stat(s.firstPIDs[0]); len(fields) > 1 {
		if parent, err := strconv.Atoi(fields[1]); err == nil && parent > 1 {
			s.devPID = parent
		}
	}
	return nil
}

// stop ends dev, which ends the nodes.
func (s *mesh) stop() {
	late := time.AfterFunc(stopWithin, func() {
		kill(s.devPID)
		_ = s.cmd.Process.Kill()
	})
	defer late.Stop()
	if p, err := os.FindProcess(s.devPID); err == nil {
		_ = p.Signal(syscall.SIGINT)
	}
	_ = s.cmd.Wait()
}

// ask runs another command of edge-node.
func (s *mesh) ask(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, s.edgeNode, args...)
	cmd.Env = s.env()
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	if err != nil {
		return nil, fmt.Errorf("edge-node %s: %w", args[0], err)
	}
	return out, nil
}

// meshContext is what edge-node dev writes for other commands.
type meshContext struct {
	CA         string `json:"ca"`
	ServerName string `json:"server_name"`
	Nodes      []struct {
		ID   string `json:"id"`
		Addr string `json:"addr"`
	} `json:"nodes"`
}

// readContext returns the nodes and their names, with a token for clients that may speak
// for all users: one user may have 16 connections.
func (s *mesh) readContext(ctx context.Context, protocol string) (all []talk.Target, nodes []string, err error) {
	text, err := os.ReadFile(filepath.Join(s.home, "contexts", "default.json"))
	if err != nil {
		return nil, nil, err
	}
	var c meshContext
	if err := json.Unmarshal(text, &c); err != nil || len(c.Nodes) != len(s.firstPIDs) {
		return nil, nil, fmt.Errorf("edge-node dev wrote %q: %w", text, err)
	}
	life := "24h"
	if s.limits == production {
		life = "59m" // as long as it lets tokens live
	}
	token, err := s.ask(ctx, "token", "bench", "--act-as-any", "--expires", life)
	if err != nil {
		return nil, nil, err
	}
	for _, n := range c.Nodes {
		nodes = append(nodes, n.ID)
		all = append(all, talk.Target{
			Protocol: protocol, Addr: n.Addr, CA: c.CA, Name: c.ServerName, Token: strings.TrimSpace(string(token)),
		})
	}
	return all, nodes, nil
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

func (s *mesh) devFile() string { return filepath.Join(s.data, "dev.json") }

func (s *mesh) writeDevFile(p meshPlan) error {
	secret := func() []byte {
		b := make([]byte, 32)
		_, _ = rand.Read(b)
		return b
	}
	text, err := json.Marshal(devFile{
		Format: 1, Cluster: "dev", Regions: []string{"fra"}, Nodes: p.nodes, Groups: p.groups, Survive: "node", Gossip: secret(),
		Keys: map[string]devKey{"demo": {"demo-dev", secret()}, "starling": {"starling-dev", secret()}},
	})
	if err != nil {
		return err
	}
	return errors.Join(os.Mkdir(s.data, 0o700), os.WriteFile(s.devFile(), text, 0o600))
}

// groups is the number of groups in which the mesh keeps its rooms.
func (s *mesh) groups() (int, error) {
	text, err := os.ReadFile(s.devFile())
	if err != nil {
		return 0, err
	}
	var f devFile
	err = json.Unmarshal(text, &f)
	return f.Groups, err
}
