package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/starling-im/starling/bench/internal/talk"
)

// A harmMesh is nodes of one region, and clients who are told what to do.
type harmMesh struct {
	m        *machine
	home     string
	edgeNode string
	dev      *exec.Cmd
	nodes    []string // their names
	targets  []talk.Target
	began    time.Time
	client   http.Client
	stop     func()
}

// A harmPlan says what mesh a measurement needs.
type harmPlan struct {
	nodes    int
	limits   string
	protocol string
	restart  time.Duration
	one      bool // all nodes have the first processor, and no other
}

// startHarm starts a mesh in a folder.
func (m *machine) startHarm(ctx context.Context, dir string, p harmPlan) (*harmMesh, error) {
	h := &harmMesh{m: m, home: filepath.Join(dir, "home"), edgeNode: m.edgeNode, began: time.Now()}
	line := []string{
		m.edgeNode, "dev", "--processes", "--regions", "fra", "--nodes", strconv.Itoa(p.nodes), "--json", "--limits", p.limits,
		"--data", filepath.Join(dir, "data"), "--restart-after", p.restart.String(),
	}
	if p.one {
		taskset, err := exec.LookPath("taskset")
		if err != nil {
			return nil, err
		}
		line = append([]string{taskset, "-c", "0"}, line...)
	}
	h.dev = exec.Command(line[0], line[1:]...)
	said := &lastLine{log: m.log}
	h.dev.Env, h.dev.Stderr = append(partEnv(), "STARLING_HOME="+h.home), said
	out, err := h.dev.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := h.dev.Start(); err != nil {
		return nil, err
	}
	h.stop = func() { stopDev(h.dev, nil) }
	c := &cluster{}
	if err := c.awaitDev(ctx, out, h.dev, p.nodes); err != nil {
		h.stop()
		return nil, fmt.Errorf("%w: %s", err, said)
	}
	if err := h.readContext(ctx, p.protocol); err != nil {
		h.stop()
		return nil, err
	}
	return h, nil
}

// tokenLife is as long as production lets tokens live.
const tokenLife = "59m"

func (h *harmMesh) readContext(ctx context.Context, protocol string) error {
	text, err := os.ReadFile(filepath.Join(h.home, "contexts", "default.json"))
	if err != nil {
		return err
	}
	var mesh meshContext
	if err := json.Unmarshal(text, &mesh); err != nil {
		return err
	}
	token, err := h.ask(ctx, "token", "bench", "--act-as-any", "--expires", tokenLife)
	if err != nil {
		return err
	}
	for _, n := range mesh.Nodes {
		h.nodes = append(h.nodes, n.ID)
		h.targets = append(h.targets, talk.Target{
			Protocol: protocol, Addr: n.Addr, CA: mesh.CA, Name: mesh.ServerName, Token: strings.TrimSpace(string(token)),
		})
	}
	d, err := talk.NewDialer(h.targets[0])
	if err != nil {
		return err
	}
	h.client = http.Client{Transport: &http.Transport{TLSClientConfig: d.TLS(), DisableKeepAlives: true}, Timeout: stopWithin}
	return nil
}

// ask runs another command of edge-node.
func (h *harmMesh) ask(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, h.edgeNode, args...)
	cmd.Env = append(partEnv(), "STARLING_HOME="+h.home)
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

// pid is the process of a node, 0 if it does not run now.
func (h *harmMesh) pid(node int) int {
	parent := h.dev.Process.Pid
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
	for _, task := range tasks {
		b, _ := os.ReadFile(task)
		for child := range strings.FieldsSeq(string(b)) {
			line, _ := os.ReadFile("/proc/" + child + "/cmdline")
			if strings.Contains(string(line), "/"+h.nodes[node]) {
				pid, _ := strconv.Atoi(child)
				return pid
			}
		}
	}
	return 0
}

func (h *harmMesh) pids() (pids []int) {
	for i := range h.nodes {
		pids = append(pids, h.pid(i))
	}
	return pids
}

// health is what a node says of itself at /healthz.
type health struct {
	Ready          bool
	Sessions       int
	MaxUnsentBytes int `json:"max_unsent_bytes"`
	TailBytes      int `json:"tail_bytes"`
}

func (h *harmMesh) health(ctx context.Context, node int) (said health, err error) {
	question, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+h.targets[node].Addr+"/healthz", nil)
	if err != nil {
		return said, err
	}
	answer, err := h.client.Do(question)
	if err != nil {
		return said, err
	}
	defer answer.Body.Close()
	return said, json.NewDecoder(answer.Body).Decode(&said)
}

// whole waits until every node runs and is ready.
func (h *harmMesh) whole(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*startWithin, errors.New("a node is not ready"))
	defer cancel()
	for i := range h.nodes {
		for {
			if said, err := h.health(ctx, i); err == nil && said.Ready && h.pid(i) > 0 {
				break
			}
			if err := pause(ctx, askEvery); err != nil {
				return err
			}
		}
	}
	return nil
}

// A roomPlace is a line of what edge-node rooms says, a groupPlace one of edge-node groups.
type (
	roomPlace struct {
		Room  string
		Group uint32
	}
	groupPlace struct {
		ID     uint32
		Leader string
	}
)

// places are the groups of the rooms.
func (h *harmMesh) places(ctx context.Context) (map[string]uint32, error) {
	out, err := h.ask(ctx, "rooms", "--json", "--all")
	if err != nil {
		return nil, err
	}
	all := map[string]uint32{}
	for pages := json.NewDecoder(bytes.NewReader(out)); pages.More(); {
		var page []roomPlace
		if err := pages.Decode(&page); err != nil {
			return nil, err
		}
		for _, r := range page {
			all[r.Room] = r.Group
		}
	}
	return all, nil
}

// leader is the number of the node that orders a room.
func (h *harmMesh) leader(ctx context.Context, room string) (int, error) {
	places, err := h.places(ctx)
	if err != nil {
		return 0, err
	}
	out, err := h.ask(ctx, "groups", "--json")
	if err != nil {
		return 0, err
	}
	var groups []groupPlace
	if err := json.Unmarshal(out, &groups); err != nil {
		return 0, err
	}
	for _, g := range groups {
		for i, node := range h.nodes {
			if g.ID == places[room] && g.Leader == node {
				return i, nil
			}
		}
	}
	return 0, fmt.Errorf("nobody leads the group of %s", room)
}
