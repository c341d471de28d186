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
	"time"

	"github.com/starling-im/starling/bench/internal/talk"
)

// starlingLimits is what a row says of one node.
const starlingLimits = limitsProfile + ": no rates; 1 MiB of tail per room, 256 KiB unsent per session"

// meshContext is what edge-node dev writes for other commands.
type meshContext struct {
	CA         string `json:"ca"`
	ServerName string `json:"server_name"`
	Nodes      []struct {
		ID   string `json:"id"`
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
		memory, err := newStarlingMemory(p.target)
		if err != nil {
			p.stop()
			return nil, err
		}
		p.heap, p.collect = memory.inUse, memory.collect
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

// starlingMemory is what a node's metrics say of its memory.
type starlingMemory struct {
	client http.Client
	url    string
}

func newStarlingMemory(t talk.Target) (*starlingMemory, error) {
	d, err := talk.NewDialer(t)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{TLSClientConfig: d.TLS(), DisableKeepAlives: true}
	return &starlingMemory{http.Client{Transport: transport, Timeout: stopWithin}, "https://" + t.Addr + "/metrics"}, nil
}

// The names of metrics.
const (
	heapMetric      = "go_memstats_heap_alloc_bytes"
	stackMetric     = "go_memstats_stack_inuse_bytes"
	collectedMetric = "go_memstats_last_gc_time_seconds"
)

// inUse is what heap and stacks hold, in bytes.
func (s *starlingMemory) inUse(ctx context.Context) (float64, error) {
	m, err := s.ask(ctx)
	return m[heapMetric] + m[stackMetric], err
}

// collectWithin is how long a node may take: Go collects every two minutes at
// the latest.
const collectWithin = 150 * time.Second

// collect asks until the node has collected its garbage twice, the second time
// all of what there was before. Nobody can tell it to, but to answer takes memory.
func (s *starlingMemory) collect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, collectWithin)
	defer cancel()
	var last float64
	for times := -1; ; {
		m, err := s.ask(ctx)
		if err != nil {
			return err
		}
		if m[collectedMetric] != last {
			last = m[collectedMetric]
			times++
		}
		if times == 2 {
			return nil
		}
		if err := pause(ctx, askEvery); err != nil {
			return fmt.Errorf("the node does not collect its garbage: %w", err)
		}
	}
}

// ask reads the metrics.
func (s *starlingMemory) ask(ctx context.Context) (map[string]float64, error) {
	question, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, err
	}
	answer, err := s.client.Do(question)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	found := map[string]float64{}
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		switch name, value, _ := strings.Cut(lines.Text(), " "); name {
		case heapMetric, stackMetric, collectedMetric:
			if found[name], err = strconv.ParseFloat(value, 64); err != nil {
				return nil, err
			}
		}
	}
	if len(found) != 3 {
		return nil, fmt.Errorf("the node's metrics (%s) do not tell of its memory: %w", answer.Status, lines.Err())
	}
	return found, nil
}
