package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/starling-im/starling/bench/internal/talk"
)

// starlingLimits is what a row says of one node.
const starlingLimits = limitsProfile + ": no rates; 1 MiB of tail per room, 256 KiB unsent per session"

// meshContext is what edge-node dev writes for other commands.
type meshContext struct {
	CA         string `json:"ca"`
	ServerName string `json:"server_name"`
	Nodes      []struct {
		Addr string `json:"addr"`
	} `json:"nodes"`
}

// startOneStarling returns what starts one node, to which clients talk by a
// protocol.
func startOneStarling(protocol string) func(context.Context, *machine, string) (*peer, error) {
	return func(ctx context.Context, m *machine, dir string) (*peer, error) {
		home := filepath.Join(dir, "home")
		dev := exec.Command(m.edgeNode, "dev", "--processes", "--regions", "fra", "--nodes", "1", "--json", "--limits", limitsProfile,
			"--data", filepath.Join(dir, "data"), "--restart-after", "1ms")
		said := &lastLine{log: m.log}
		dev.Env, dev.Stderr = append(partEnv(), "STARLING_HOME="+home), said
		out, err := dev.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := dev.Start(); err != nil {
			return nil, err
		}
		c := &cluster{stop: func() { stopDev(dev, nil) }}
		if err := c.awaitDev(ctx, out, dev, 1); err != nil {
			c.stop()
			return nil, fmt.Errorf("%w: %s", err, said)
		}
		p := &peer{limits: starlingLimits, pid: c.pids[0], stop: func() { stopDev(dev, nil) }}
		p.again = func(context.Context) error { return nil } // dev does
		if p.target, err = starlingTarget(ctx, m.edgeNode, home); err != nil {
			p.stop()
			return nil, err
		}
		p.target.Protocol = protocol
		p.heap = func(ctx context.Context) (float64, error) { return starlingHeap(ctx, p.target) }
		return p, nil
	}
}

// starlingTarget reads the context that dev wrote, and has a token made for
// clients that may speak for all users: one user may have 16 connections.
func starlingTarget(ctx context.Context, edgeNode, home string) (t talk.Target, err error) {
	text, err := os.ReadFile(filepath.Join(home, "contexts", "default.json"))
	if err != nil {
		return t, err
	}
	var mesh meshContext
	if err := json.Unmarshal(text, &mesh); err != nil || len(mesh.Nodes) != 1 {
		return t, fmt.Errorf("edge-node dev wrote %q: %w", text, err)
	}
	token := exec.CommandContext(ctx, edgeNode, "token", "bench", "--act-as-any", "--expires", "24h")
	token.Env = append(partEnv(), "STARLING_HOME="+home)
	line, err := token.Output()
	if err != nil {
		return t, fmt.Errorf("edge-node token: %w", err)
	}
	return talk.Target{Addr: mesh.Nodes[0].Addr, CA: mesh.CA, Name: mesh.ServerName, Token: strings.TrimSpace(string(line))}, nil
}

// starlingHeap asks a node's metrics what its heap and stacks have in use, in bytes.
func starlingHeap(ctx context.Context, t talk.Target) (sum float64, err error) {
	d, err := talk.NewDialer(t)
	if err != nil {
		return 0, err
	}
	transport := &http.Transport{TLSClientConfig: d.TLS(), DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	ask, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+t.Addr+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	answer, err := (&http.Client{Transport: transport, Timeout: stopWithin}).Do(ask)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	found := 0
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if name != "go_memstats_heap_alloc_bytes" && name != "go_memstats_stack_inuse_bytes" {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, err
		}
		sum += v
		found++
	}
	if found != 2 {
		return 0, fmt.Errorf("the node's metrics (%s) do not tell of its memory", answer.Status)
	}
	return sum, nil
}
