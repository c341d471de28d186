package main

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// lives learns from what dev says how the processes of its nodes end and begin.
// It is written to, and keeps no more than the last half of a line.
type lives struct {
	mu     sync.Mutex
	rest   []byte
	pids   map[string]int // of those that run again
	begun  map[string]int // how often a node has begun again
	ended  map[string]int
	struck map[string]int // how often a test has ended it
	raced  bool           // the race detector has found something in a node
}

func (l *lives) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, p...)
	for {
		line, more, whole := bytes.Cut(l.rest, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		l.line(string(line))
		l.rest = more
	}
}

func (l *lives) line(line string) {
	if l.pids == nil {
		l.pids, l.begun, l.ended = map[string]int{}, map[string]int{}, map[string]int{}
	}
	node, what, _ := strings.Cut(strings.TrimPrefix(line, "["), "] ")
	if pid, ok := strings.CutPrefix(what, "runs again, pid "); ok {
		l.pids[node], _ = strconv.Atoi(pid)
		l.begun[node]++
	}
	l.raced = l.raced || strings.Contains(what, "WARNING: DATA RACE")
	if strings.HasPrefix(what, "ended (") {
		l.ended[node]++
	}
}

// pid is the process of a node that runs.
func (m *devMesh) pid(node string) int {
	m.lives.mu.Lock()
	defer m.lives.mu.Unlock()
	if pid := m.pids[node]; pid != 0 {
		return pid
	}
	return m.Nodes[slices.IndexFunc(m.Nodes, func(n readyNode) bool { return n.ID == node })].PID
}

// names are the ids of the nodes.
func (m *devMesh) names() (ids []string) {
	for _, n := range m.Nodes {
		ids = append(ids, n.ID)
	}
	return ids
}

// strike sends nodes that run a signal that ends them.
func (m *devMesh) strike(t *testing.T, sig os.Signal, nodes ...string) {
	t.Helper()
	for _, node := range nodes {
		p, err := os.FindProcess(m.pid(node))
		if err != nil {
			t.Fatal(err)
		}
		m.lives.mu.Lock()
		if m.struck == nil {
			m.struck = map[string]int{}
		}
		m.struck[node]++
		m.lives.mu.Unlock()
		if err := p.Signal(sig); err != nil {
			t.Fatalf("%s has ended by itself: %v", node, err)
		}
	}
}

// back waits until all that was struck runs again.
func (m *devMesh) back(t *testing.T) {
	t.Helper()
	waitFor(t, "process of a node that was killed", func() bool {
		m.lives.mu.Lock()
		defer m.lives.mu.Unlock()
		for node, n := range m.struck {
			if m.begun[node] < n {
				return false
			}
		}
		return true
	})
}

// diedOnly fails if a node has ended that nobody had struck.
func (m *devMesh) diedOnly(t *testing.T) {
	t.Helper()
	m.lives.mu.Lock()
	defer m.lives.mu.Unlock()
	for node, n := range m.ended {
		if n != m.struck[node] {
			t.Errorf("%s ended %d times, and was struck %d times", node, n, m.struck[node])
		}
	}
}
