package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/starling-im/starling/bench/internal/talk"
)

// starlingLimits is what a row says of one node.
const starlingLimits = limitsProfile + ": no rates; 1 MiB of tail per room, 256 KiB unsent per session"

// startOneStarling returns what starts one node, to which clients talk by a
// protocol.
func startOneStarling(protocol string) func(context.Context, *machine, string) (*peer, error) {
	return func(ctx context.Context, m *machine, dir string) (*peer, error) {
		s, err := m.startMesh(ctx, dir, meshPlan{nodes: 1, limits: limitsProfile, restart: time.Millisecond})
		if err != nil {
			return nil, err
		}
		p := &peer{limits: starlingLimits, pid: s.firstPIDs[0], stop: s.stop}
		p.again = func(context.Context) error { return nil } // dev does
		targets, _, err := s.readContext(ctx, protocol)
		if err != nil {
			p.stop()
			return nil, err
		}
		p.target = targets[0]
		memory, err := newStarlingMemory(p.target)
		if err != nil {
			p.stop()
			return nil, err
		}
		p.heap, p.collect = memory.inUse, memory.collect
		return p, nil
	}
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
