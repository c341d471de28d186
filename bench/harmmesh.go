package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/starling-im/starling/bench/internal/talk"
)

// A harmMesh is a mesh, and clients who are told what to do.
type harmMesh struct {
	*mesh
	m       *machine
	nodes   []string // their names
	targets []talk.Target
	began   time.Time
	client  http.Client
}

// startHarm starts a mesh in a folder.
func (m *machine) startHarm(ctx context.Context, dir, protocol string, p meshPlan) (*harmMesh, error) {
	s, err := m.startMesh(ctx, dir, p)
	if err != nil {
		return nil, err
	}
	h := &harmMesh{mesh: s, m: m, began: time.Now()}
	var d *talk.Dialer
	if h.targets, h.nodes, err = s.readContext(ctx, protocol); err == nil {
		d, err = talk.NewDialer(h.targets[0])
	}
	if err != nil {
		h.stop()
		return nil, err
	}
	h.client = http.Client{Transport: &http.Transport{TLSClientConfig: d.TLS(), DisableKeepAlives: true}, Timeout: stopWithin}
	return h, nil
}

// pid is the process of a node, 0 if it does not run now.
func (h *harmMesh) pid(i int) int {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", h.devPID))
	for _, task := range tasks {
		b, _ := os.ReadFile(task)
		for child := range strings.FieldsSeq(string(b)) {
			line, _ := os.ReadFile("/proc/" + child + "/cmdline")
			if strings.Contains(string(line), "/"+h.nodes[i]) {
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
